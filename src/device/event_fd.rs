//! Event descriptors that a front-end hands us, to be signalled or watched.
//!
//! They are shared with the front-end: whether they block is its choice at any time, and there is no way to write to one
//! that surely does not (RWF_NOWAIT is not for them; a look before the write may be outdated by the time of the write). A
//! front-end that fills the counter can so hold the thread that signals. Draining it would be a race that the front-end
//! can win, and reading may block as well. So whoever waits for such a thread watches it with [`StuckWatch`], and in the
//! end puts a descriptor of our own in the place of the front-end's.
//!
//! What is not an eventfd is refused.

#![allow(unsafe_code, reason = "a descriptor is replaced under its number")]

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, Errno, dup3};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many looks in a row must find one and the same write before its descriptor counts as stuck. One could be due to a
/// process that was stopped for a while, and a front-end that did nothing wrong would lose its interrupts.
const STUCK_LOOKS: u32 = 4;

#[derive(Debug)]
pub(super) struct EventFd {
    fd: OwnedFd,
    /// Counts entries into and exits from [`EventFd::signal`]: odd while inside.
    passages: AtomicU32,
}

impl EventFd {
    /// `None` when the descriptor is something else.
    pub(super) fn new(fd: OwnedFd) -> Option<Self> {
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
        (link.as_bytes() == b"anon_inode:[eventfd]").then_some(Self { fd, passages: AtomicU32::new(0) })
    }

    /// Signals it; by one thread only. Blocks while the counter is full and the front-end made the descriptor blocking; only
    /// a front-end that filled it on purpose can bring that about, and [`StuckWatch`] ends it.
    ///
    /// # Errors
    /// When the kernel refuses, which for an eventfd it does not.
    pub(super) fn signal(&self) -> io::Result<()> {
        self.pass();
        let written = loop {
            match rustix::io::write(&self.fd, &1_u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                written => break written,
            }
        };
        self.pass();
        match written {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn pass(&self) {
        self.passages.store(self.passages.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Puts a descriptor of ours, which never blocks, in the place of the front-end's. A write that is blocked stays so until
    /// its thread is interrupted; started anew, it goes to ours.
    fn cut_off(&self) -> io::Result<()> {
        let ours = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // SAFETY: the number is open, for `self` owns it; it is not closed here, only made to mean another file, which is as
        // good to every user of it. The type in between is for `dup3`, which wants a right to change it.
        let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd.as_raw_fd()) });
        Ok(dup3(&ours, &mut place, DupFlags::CLOEXEC)?)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Finds out whether a thread is stuck in signalling a descriptor.
pub(super) struct StuckWatch {
    event: Arc<EventFd>,
    seen: u32,
    looks: u32,
}

impl StuckWatch {
    pub(super) fn new(event: Arc<EventFd>) -> Self {
        Self { event, seen: 0, looks: 0 }
    }

    /// One look. `true` when the descriptor is stuck and was cut off: the thread must be interrupted now.
    pub(super) fn look(&mut self) -> bool {
        let now = self.event.passages.load(Ordering::Relaxed);
        if now & 1 == 0 || now != self.seen {
            (self.seen, self.looks) = (now, 0);
            return false;
        }
        self.looks += 1;
        // Without a descriptor to spare it is tried again at the next look.
        self.looks >= STUCK_LOOKS && self.event.cut_off().is_ok()
    }

    /// Whether anybody else still has the descriptor, and so may be stuck in it.
    pub(super) fn is_needed(&self) -> bool {
        Arc::strong_count(&self.event) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::nudge::nudge;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_is_not_an_eventfd_is_refused() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(EventFd::new(reader).is_none() && EventFd::new(writer).is_none());
        assert!(EventFd::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).is_some());
    }

    #[test]
    fn a_thread_stuck_on_a_full_counter_that_nobody_empties_goes_on() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let event = Arc::new(EventFd::new(fd).unwrap());
        let mut watch = StuckWatch::new(Arc::clone(&event));
        let thread = thread::spawn(move || event.signal());
        thread::sleep(Duration::from_millis(20));
        for _ in 0..STUCK_LOOKS {
            assert!(!watch.look() && !thread.is_finished());
        }
        assert!(watch.look());
        nudge(&thread).unwrap();
        assert!(thread.join().unwrap().is_ok());
    }

    #[test]
    fn a_descriptor_that_is_signalled_again_and_again_is_not_cut_off() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let event = Arc::new(EventFd::new(fd).unwrap());
        let mut watch = StuckWatch::new(Arc::clone(&event));
        for _ in 0..2 * STUCK_LOOKS {
            event.signal().unwrap();
            assert!(!watch.look());
        }
    }
}
