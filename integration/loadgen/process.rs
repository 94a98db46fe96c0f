//! The daemon as a process to signal and to see off. A pidfd, so that the id of a process that ended is never somebody
//! else's.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Fallible;
use super::args;

/// How long a signalled daemon may take before that is an error.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Process(OwnedFd);

impl Process {
    pub(crate) fn open(pid: i32) -> Fallible<Self> {
        let pid = Pid::from_raw(pid).ok_or("0 is not a process id")?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    pub(crate) fn signal(&self, signal: args::Signal) -> Fallible<()> {
        let signal = match signal {
            args::Signal::Kill => Signal::KILL,
            args::Signal::Term => Signal::TERM,
        };
        Ok(pidfd_send_signal(&self.0, signal)?)
    }

    /// Whether the process, signalled at `since`, has ended.
    pub(crate) fn is_gone(&self, since: Instant) -> Fallible<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let gone = poll(&mut fds, Some(&Timespec::default()))? > 0;
        if !gone && since.elapsed() > EXIT_LIMIT {
            return Err("the process is still there 20 s after the signal".into());
        }
        Ok(gone)
    }
}
