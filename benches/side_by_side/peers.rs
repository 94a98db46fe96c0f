//! The servers: how each of them is started for each fixture, and stopped. A server is ended by its process id when its
//! value is dropped.

use crate::cpu::CpuClock;
use crate::options::Pins;
use crate::workload::Fixture;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// A program that can be measured.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The daemon of this project, at a path.
    Archvhost(PathBuf),
    /// `qemu-storage-daemon`: a raw file with O_DIRECT and io_uring, exported from an iothread, which polls adaptively.
    Qsd,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "qsd" => Ok(Kind::Qsd),
            None if text == "archvhost" => Ok(Kind::Archvhost(env!("CARGO_BIN_EXE_archvhost").into())),
            Some(("archvhost", path)) => Ok(Kind::Archvhost(path.into())),
            _ => Err("archvhost, archvhost=PATH or qsd".to_owned()),
        }
    }
}

impl Kind {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Kind::Archvhost(_) => "archvhost",
            Kind::Qsd => "qsd",
        }
    }
}

/// What a server has to serve.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    pub(crate) fixture: Fixture,
    pub(crate) data_bytes: u64,
    pub(crate) pins: Option<Pins>,
}

pub(crate) const NULL_BYTES: u64 = 1 << 40;
const IDLE_VOLUMES: usize = 8;
const IDLE_BYTES: u64 = 64 << 20;
const QUEUES: u16 = 2;

pub(crate) struct Server {
    child: Child,
    pub(crate) sockets: Vec<PathBuf>,
}

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);

impl Server {
    /// Starts the server with its data in `dir`, a new directory, and waits until its sockets answer.
    pub(crate) fn start(kind: &Kind, service: Service, dir: &Path) -> io::Result<Server> {
        fs::create_dir(dir)?;
        let sockets: Vec<PathBuf> = (0..service.sockets()).map(|i| dir.join(format!("disk{i}.sock"))).collect();
        let child = match kind {
            Kind::Archvhost(program) => archvhost(program, service, dir, &sockets)?,
            Kind::Qsd => qsd(service, dir, &sockets)?,
        };
        let mut server = Server { child, sockets };
        if let (Kind::Archvhost(program), Fixture::Idle) = (kind, service.fixture) {
            attach_idle_volumes(program, dir, &server)?;
        }
        server.wait_until_ready().map_err(|error| with_log(&error, dir))?;
        Ok(server)
    }

    pub(crate) fn cpu(&self) -> io::Result<CpuClock> {
        CpuClock::of_process(self.child.id())
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !self.sockets.iter().all(|socket| socket.exists()) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // What cannot be stopped or awaited here is ended below.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn sockets(self) -> usize {
        if self.fixture == Fixture::Idle { IDLE_VOLUMES } else { 1 }
    }

    /// The command for a program, with the CPU it stays on if it is pinned.
    fn command(self, program: impl Into<OsString>) -> Command {
        let Some(pins) = self.pins else { return Command::new(program.into()) };
        let mut command = Command::new("taskset");
        command.args(["-c".into(), pins.server.to_string().into(), program.into()]);
        command
    }
}

fn archvhost(program: &Path, service: Service, dir: &Path, sockets: &[PathBuf]) -> io::Result<Child> {
    let store = match service.fixture {
        Fixture::Null => "null:1TiB".to_owned(),
        Fixture::File | Fixture::Idle => format!("file:{}", make_store(dir)?.display()),
    };
    if service.fixture == Fixture::File {
        run(Command::new(program).args([
            "--store",
            &store,
            "create",
            "bench",
            "--size",
            &service.data_bytes.to_string(),
        ]))?;
    }
    let mut command = service.command(program);
    command.args(["--store", &store]);
    match service.fixture {
        Fixture::Idle => command.arg("--control").arg(control(dir)).arg("serve"),
        _ => command
            .args(["serve", "--volume", "bench", "--queues", &QUEUES.to_string(), "--socket-path"])
            .arg(&sockets[0]),
    };
    spawn(&mut command, dir)
}

fn make_store(dir: &Path) -> io::Result<PathBuf> {
    let store = dir.join("store");
    fs::create_dir(&store)?;
    Ok(store)
}

fn control(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

fn attach_idle_volumes(program: &Path, dir: &Path, server: &Server) -> io::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while UnixStream::connect(control(dir)).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    for (index, socket) in server.sockets.iter().enumerate() {
        let name = format!("idle{index}");
        let daemon = || {
            let mut command = Command::new(program);
            command.arg("--control").arg(control(dir));
            command
        };
        run(daemon().args(["create", &name, "--size", &IDLE_BYTES.to_string()]))?;
        run(daemon().args(["attach", &name, "--socket"]).arg(socket))?;
    }
    Ok(())
}

fn qsd(service: Service, dir: &Path, sockets: &[PathBuf]) -> io::Result<Child> {
    let mut command = service.command("qemu-storage-daemon");
    command.args(["--object", "iothread,id=thread"]);
    for (index, socket) in sockets.iter().enumerate() {
        let blockdev = match service.fixture {
            Fixture::Null => format!("driver=null-co,node-name=n{index},size={NULL_BYTES},read-zeroes=off"),
            Fixture::File => raw_file(&dir.join(format!("disk{index}.raw")), service.data_bytes, index)?,
            Fixture::Idle => raw_file(&dir.join(format!("disk{index}.raw")), IDLE_BYTES, index)?,
        };
        let export = format!(
            "type=vhost-user-blk,id=e{index},node-name=n{index},addr.type=unix,addr.path={},writable=on,\
             num-queues={QUEUES},iothread=thread",
            socket.display()
        );
        command.args(["--blockdev", &blockdev, "--export", &export]);
    }
    spawn(&mut command, dir)
}

/// A preallocated file; it is written through the socket like the other side's volume.
fn raw_file(path: &Path, bytes: u64, index: usize) -> io::Result<String> {
    let file = File::create_new(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(format!("driver=file,node-name=n{index},filename={},cache.direct=on,aio=io_uring", path.display()))
}

fn spawn(command: &mut Command, dir: &Path) -> io::Result<Child> {
    let log = File::create(dir.join("log"))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    child.map_err(|error| io::Error::new(error.kind(), format!("cannot start {command:?}: {error}")))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn with_log(error: &io::Error, dir: &Path) -> io::Error {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    io::Error::new(error.kind(), format!("{error}\n{log}"))
}
