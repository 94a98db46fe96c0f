//! Programs that a benchmark starts: servers are awaited and ended in order, commands are run to their end.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to be ready.
const START_MAX: Duration = Duration::from_secs(20);

/// How long a server may take to end in order; once `qemu-storage-daemon` hung there for good.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Until the server's socket is there; what it logged, if it ends before.
pub(crate) fn wait_for_socket(child: &mut Child, socket: &Path, log: &Path) -> io::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while !socket.exists() {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(log).unwrap_or_default();
            return Err(io::Error::other(format!("a server does not serve {}: {log}", socket.display())));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// SIGTERM, and SIGKILL for what does not heed it.
pub(crate) fn end(child: &mut Child) {
    // What cannot be stopped or awaited here is ended below.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
    let deadline = Instant::now() + STOP_MAX;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What it said, if it did not succeed.
pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
