//! Event descriptors that a front-end hands us, to be signalled or watched.
//!
//! They are shared with the front-end: whether they block is its choice, so they are never read here, and what is not an
//! eventfd is refused, because writing to a pipe or a terminal of the front-end's choice could block a queue for ever.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    /// `None` when the descriptor is something else.
    pub(super) fn new(fd: OwnedFd) -> Option<Self> {
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
        (link.as_bytes() == b"anon_inode:[eventfd]").then_some(Self(fd))
    }

    /// Signals it. Blocks while the counter is full and the front-end made the descriptor blocking; only a front-end that
    /// filled it on purpose can bring that about, and [`EventFd::make_room`] ends it.
    ///
    /// # Errors
    /// When the kernel refuses, which for an eventfd it does not.
    pub(super) fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties the counter if it is full, so that a thread blocked in [`EventFd::signal`] goes on. The front-end loses
    /// signals that it has spoilt itself.
    pub(super) fn make_room(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let full = poll(&mut fds, Some(&now)) == Ok(0);
        if full {
            // A full counter is readable, so this returns at once.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_is_not_an_eventfd_is_refused() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(EventFd::new(reader).is_none() && EventFd::new(writer).is_none());
        assert!(EventFd::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).is_some());
    }

    #[test]
    fn a_thread_stuck_on_a_full_counter_can_be_freed() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let event = Arc::new(EventFd::new(fd).unwrap());
        let stuck = Arc::clone(&event);
        let thread = thread::spawn(move || stuck.signal());
        thread::sleep(Duration::from_millis(20));
        assert!(!thread.is_finished());
        event.make_room();
        assert!(thread.join().unwrap().is_ok());
    }
}
