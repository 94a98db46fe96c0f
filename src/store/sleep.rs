//! How a channel without a ring of its own sleeps: one epoll over an eventfd to be woken by, and the watched descriptors.
//!
//! All descriptors are watched edge-triggered and never read, so a signal counts once however often nobody looks, and
//! one that came before the sleep ends it at once. A watched descriptor is duplicated: its owner may close it first.

use super::{StoreError, Wake, WatchId};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use slab::Slab;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Events taken in one look; the rest stay pending and end the next sleep.
const EVENTS: usize = 16;

/// One thread's place to sleep.
pub(crate) struct Sleeper {
    epoll: OwnedFd,
    watched: Slab<OwnedFd>,
    waker: Arc<EventWaker>,
}

/// Ends the sleep of one [`Sleeper`] from any thread.
pub(crate) struct EventWaker {
    event: OwnedFd,
    /// Set from the first call until the sleeper has seen it, so that a burst of calls costs one system call.
    pending: AtomicBool,
}

impl EventWaker {
    pub(crate) fn new() -> Result<Self, StoreError> {
        let event =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| kernel("make an event", e))?;
        Ok(Self { event, pending: AtomicBool::new(false) })
    }

    /// Called by the sleeper after its sleep and before it looks at what it may have been woken for.
    pub(crate) fn acknowledge(&self) {
        self.pending.swap(false, Ordering::SeqCst);
    }

    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for EventWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            // The counter is never read and would need 2^64 calls to overflow, so the write cannot fail.
            let written = rustix::io::write(&self.event, &1u64.to_ne_bytes());
            debug_assert!(written.is_ok(), "an eventfd takes 2^64 signals");
        }
    }
}

impl Sleeper {
    pub(crate) fn new() -> Result<Self, StoreError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| kernel("make", e))?;
        let waker = Arc::new(EventWaker::new()?);
        add(&epoll, waker.event()).map_err(|e| kernel("watch", e))?;
        Ok(Self { epoll, watched: Slab::new(), waker })
    }

    pub(crate) fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        let own = duplicate(fd)?;
        add(&self.epoll, own.as_fd()).map_err(|e| kernel("watch", e))?;
        let key = self.watched.insert(own);
        Ok(WatchId(u32::try_from(key).expect("descriptor numbers fit in 31 bits")))
    }

    pub(crate) fn unwatch(&mut self, watch: WatchId) {
        if let Some(fd) = usize::try_from(watch.0).ok().and_then(|key| self.watched.try_remove(key)) {
            // Without this the entry would live on for as long as the owner's duplicate is open.
            let removed = epoll::delete(&self.epoll, &fd);
            debug_assert!(removed.is_ok(), "what was added can be removed");
        }
    }

    /// Sleeps until woken, a watched descriptor is signalled, or the time is over. May return early.
    pub(crate) fn sleep(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let ended = epoll::wait(&self.epoll, &mut events, timeout.as_ref());
        debug_assert!(matches!(ended, Ok(_) | Err(Errno::INTR)), "waiting on our own epoll works");
        self.waker.acknowledge();
    }

    pub(crate) fn waker(&self) -> Arc<dyn Wake> {
        self.event_waker()
    }

    pub(crate) fn event_waker(&self) -> Arc<EventWaker> {
        Arc::clone(&self.waker)
    }
}

/// A duplicate for ourselves, so that the owner may close theirs at any time.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, StoreError> {
    fd.try_clone_to_owned().map_err(|error| StoreError::from_io(error, "duplicate", "a watched descriptor"))
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    epoll::add(epoll, fd, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)
}

fn kernel(operation: &'static str, error: Errno) -> StoreError {
    StoreError::from_io(error.into(), operation, "a thread's place to sleep")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Option<Duration> = Some(Duration::from_secs(20));
    const SHORT: Option<Duration> = Some(Duration::from_millis(20));

    fn slept_through(sleeper: &mut Sleeper, timeout: Option<Duration>) -> bool {
        let start = Instant::now();
        sleeper.sleep(timeout);
        Some(start.elapsed()) >= timeout
    }

    #[test]
    fn a_wake_before_the_sleep_ends_it() {
        let mut sleeper = Sleeper::new().unwrap();
        sleeper.waker().wake();
        assert!(!slept_through(&mut sleeper, LONG));
        assert!(slept_through(&mut sleeper, SHORT));
        sleeper.waker().wake();
        assert!(!slept_through(&mut sleeper, LONG));
    }

    #[test]
    fn every_signal_counts_once_though_nobody_reads() {
        let mut sleeper = Sleeper::new().unwrap();
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let watch = sleeper.watch(event.as_fd()).unwrap();
        for _ in 0..3 {
            rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
            assert!(!slept_through(&mut sleeper, LONG));
            assert!(slept_through(&mut sleeper, SHORT));
        }
        sleeper.unwatch(watch);
        rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert!(slept_through(&mut sleeper, SHORT));
    }
}
