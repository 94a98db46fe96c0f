//! The real `archvhost` program, run by a test: one-off verbs, and daemons that end with their test.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test fails by panicking, and not every test file uses everything"
)]

use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a daemon may take to start, and a process to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of the test's own, and the program run in it.
pub struct Scene {
    pub dir: TempDir,
    /// In memory, as it must be.
    pub soft_journals: TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Scene {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), soft_journals: tempfile::tempdir_in("/dev/shm").unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new, empty file store in the scene's directory.
    pub fn file_store(&self) -> String {
        let dir = self.path("store");
        std::fs::create_dir_all(&dir).unwrap();
        format!("file:{}", dir.display())
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archvhost"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.arg("--soft-journal-dir").arg(self.soft_journals.path());
        for variable in
            ["ARCHVHOST_STORE", "ARCHVHOST_CONTROL", "RUST_LOG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"]
        {
            command.env_remove(variable);
        }
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command().args(arguments))
    }

    /// A daemon on `store` that says it is ready.
    pub fn daemon(&self, store: &str) -> Daemon<'_> {
        self.daemon_at(store, "control.sock")
    }

    /// With its control socket there, for scenes with several daemons.
    pub fn daemon_at(&self, store: &str, control: &str) -> Daemon<'_> {
        let control = self.path(control);
        let mut command = self.command();
        command.arg("--store").arg(store).arg("--control").arg(&control).arg("serve");
        Daemon { scene: self, control, process: self.start(command) }
    }

    /// Starts the program and waits until it reports that it is ready (sd_notify), or ends.
    pub fn start(&self, mut command: Command) -> Process {
        let ready = self.path("notify.sock");
        let _ = std::fs::remove_file(&ready);
        let socket = UnixDatagram::bind(&ready).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        command.env("NOTIFY_SOCKET", &ready).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process { child: command.spawn().unwrap() };
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; 256];
        while Instant::now() < deadline && process.child.try_wait().unwrap().is_none() {
            if socket.recv(&mut message).is_ok_and(|len| message[..len].starts_with(b"READY=1")) {
                break;
            }
        }
        process
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr }
    }

    /// What it printed, when it succeeded.
    pub fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.stderr);
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// The one line about its failure.
    pub fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{} {}", String::from_utf8_lossy(&self.stdout), self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{}", self.stderr);
        self.stderr.trim_end()
    }
}

/// A running program, killed if the test does not end it.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; returns how long the end took.
    pub fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.signal(libc::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status:?}: {}", self.log());
        start.elapsed()
    }

    /// What it wrote to the standard error until its end.
    pub fn log(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host daemon and its control socket.
pub struct Daemon<'a> {
    scene: &'a Scene,
    pub control: PathBuf,
    pub process: Process,
}

impl Daemon<'_> {
    /// Runs a verb through the daemon.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.scene.command().arg("--control").arg(&self.control).args(arguments))
    }
}

/// What a test does with a scene, given a way to run a verb with its arguments.
pub type Check = fn(&Scene, &dyn Fn(&[&str]) -> Ran);

/// Runs the same checks directly on a file store and through a daemon of one.
pub fn both_ways(check: Check) {
    let scene = Scene::new();
    let store = scene.file_store();
    check(&scene, &|arguments| scene.run(["--store", store.as_str()].iter().chain(arguments)));
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    check(&scene, &|arguments| daemon.run(arguments));
}

/// Looks again and again until it is so.
pub fn wait_until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it does not come to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An image of `size` bytes with `data` bytes at its start that are not zero and a few at its very end.
pub fn image(path: &Path, size: u64, data: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let bytes: Vec<u8> = (0..data).map(|index| u8::try_from(index * 7 % 251).unwrap() | 1).collect();
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.write_all_at(b"the end", size - 7).unwrap();
    std::fs::read(path).unwrap()
}
