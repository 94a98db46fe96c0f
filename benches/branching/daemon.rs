//! The archvhost daemon as the benchmark's child, asked through its control socket, so that no process start is in a figure.

use crate::child::end;
use archvhost::control::client::{Client, ConnectError};
use archvhost::units::ByteSize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    child: Child,
    client: Client,
    dir: PathBuf,
}

impl Daemon {
    /// On the store in `dir`, which is made if it is not there.
    pub(crate) fn start(program: &Path, dir: &Path, granule: Option<ByteSize>) -> io::Result<Self> {
        fs::create_dir_all(store_dir(dir))?;
        let mut command = Command::new(program);
        command.arg("--store").arg(store_url(dir));
        Self::serve(command, dir, granule)
    }

    /// `command` says which store. Its sockets and its log are in `dir`.
    pub(crate) fn serve(mut command: Command, dir: &Path, granule: Option<ByteSize>) -> io::Result<Self> {
        let control = dir.join("control.sock");
        let log = File::options().create(true).append(true).open(dir.join("log"))?;
        command.arg("--control").arg(&control).arg("serve");
        if let Some(granule) = granule {
            command.arg("--granule").arg(granule.0.to_string());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        match connect(&control, &mut child) {
            Ok(client) => Ok(Self { child, client, dir: dir.to_owned() }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                Err(io::Error::other(format!("{error}\n{log}")))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The answer, and how long it took.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> io::Result<(Value, Duration)> {
        let start = Instant::now();
        let answer = self.client.call(method, params);
        let answer = answer.map_err(|failure| io::Error::other(format!("{method} {params}: {failure}")))?;
        Ok((answer, start.elapsed()))
    }

    pub(crate) fn create(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.call("create", &json!({ "name": name, "size": bytes })).map(|_| ())
    }

    /// Serves the volume; returns its socket, and how long that took.
    pub(crate) fn attach(&mut self, name: &str, queues: u16) -> io::Result<(PathBuf, Duration)> {
        let socket = self.dir.join(format!("{name}.sock"));
        let params = json!({ "name": name, "socket": socket.to_string_lossy(), "queues": queues });
        let (_, taken) = self.call("attach", &params)?;
        Ok((socket, taken))
    }

    pub(crate) fn detach(&mut self, name: &str) -> io::Result<()> {
        self.call("detach", &json!({ "name": name })).map(|_| ())
    }

    /// How long writes waited, as the daemon says, and how long the whole command took.
    pub(crate) fn snapshot(&mut self, volume: &str, name: &str) -> io::Result<(Duration, Duration)> {
        let (answer, taken) = self.call("snapshot", &json!({ "snapshots": [{ "volume": volume, "name": name }] }))?;
        let pause = answer["pause_seconds"].as_f64().ok_or_else(|| io::Error::other("snapshot tells no pause"))?;
        Ok((Duration::from_secs_f64(pause), taken))
    }

    pub(crate) fn clone(&mut self, source: &str, name: &str) -> io::Result<Duration> {
        Ok(self.call("clone", &json!({ "source": source, "name": name }))?.1)
    }

    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.call("remove", &json!({ "name": name })).map(|_| ())
    }

    /// Resident memory, in bytes; with a front-end connected, that includes what is touched of the guest's.
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("no VmRSS in /proc"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

pub(crate) fn store_url(dir: &Path) -> String {
    format!("file:{}", store_dir(dir).display())
}

fn connect(control: &Path, child: &mut Child) -> io::Result<Client> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match Client::connect(control) {
            Ok(client) => return Ok(client),
            Err(ConnectError::Failure(failure)) => return Err(io::Error::other(failure.to_string())),
            Err(ConnectError::NobodyListens) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("the daemon ended: {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}
