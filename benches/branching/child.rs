//! Programs that a benchmark starts: servers are ended in order, commands are run to their end.

use std::io;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to end in order; once `qemu-storage-daemon` hung there for good.
const STOP_MAX: Duration = Duration::from_secs(10);

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
