//! Waits for a front-end and can be told to stop waiting.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Pause after an accept that failed for want of something that others may give back: trying at once would burn the
/// processor.
const SHORTAGE_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Ends a wait, present or future; from any thread, as often as you like.
#[derive(Debug)]
pub struct Stop(OwnedFd);

impl Stop {
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Waits out the pause, or less when told to stop.
    fn pause(&self, pause: &Timespec) {
        // However it ends, the caller looks again.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(pause));
    }

    pub fn stop(&self) {
        // The only possible failure is a counter that is full, and then it is signalled already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The next front-end, or `None` when told to stop. Blocks, also while the process or the host has no descriptor or no
/// memory for another connection.
///
/// # Errors
/// When the listening socket itself is broken.
pub fn accept(listener: &UnixListener, stop: &Stop) -> io::Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    let mut short = false;
    loop {
        let mut watched =
            [PollFd::new(&stop.0, PollFlags::IN), PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if watched[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            // The front-end gave up meanwhile, or a signal came.
            Err(error) if is_passing(&error) => {}
            Err(error) if is_shortage(&error) => {
                if !short {
                    tracing::warn!(%error, "cannot accept a front-end now: trying again until it works");
                }
                short = true;
                stop.pause(&SHORTAGE_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_the_wait_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let stop = Stop::new().unwrap();
        stop.stop();
        for _ in 0..2 {
            assert!(accept(&listener, &stop).unwrap().is_none());
        }
    }

    #[test]
    fn front_ends_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let _front_end = UnixStream::connect(&path).unwrap();
        assert!(accept(&listener, &Stop::new().unwrap()).unwrap().is_some());
    }
}
