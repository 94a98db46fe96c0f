//! The operator's proof that a host writes no more: a command that cuts it off, by whatever means there are.

use super::{Doubt, LeaseOptions};
use crate::units::VolumeName;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Switching a host off through its management board takes up to a minute or two.
const PATIENCE: Duration = Duration::from_secs(300);

const LOOK: Duration = Duration::from_millis(20);

/// Runs the command, if there is one: `COMMAND HOST VOLUME`. Whether the holder is proven to write no more.
pub(super) fn fence(options: &LeaseOptions, doubt: &Doubt, volume: &VolumeName) -> bool {
    let Some(command) = &options.fence_command else { return false };
    let (host, pid) = (&doubt.host, doubt.pid);
    tracing::warn!(%volume, host, pid, command = %command.display(), "fencing a holder that is in doubt");
    let started = Command::new(command)
        .args([host.as_str(), volume.as_str()])
        .env("ARCHVHOST_PID", pid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    match started.and_then(wait) {
        Ok(true) => true,
        Ok(false) => {
            tracing::error!(%volume, host, "the fence command did not succeed");
            false
        }
        Err(error) => {
            tracing::error!(%volume, host, %error, "the fence command could not be run");
            false
        }
    }
}

/// Whether it exits with 0 in time. One that does not is ended.
fn wait(mut child: Child) -> std::io::Result<bool> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= give_up {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}
