//! Whether the lease was in force a moment ago: what keeps a holder that was stopped, and wakes up, from going on as if nothing had
//! happened.
//!
//! The keeper looks every few seconds that there is no higher generation and that the lock is still ours. A look counts for a while,
//! on a clock that also runs while the host sleeps. A request that comes later than that waits for a new look. The window that is left,
//! between a request's check and the store, is what rule C4 is for.
//!
//! ```text
//!   port: fresh? ── yes ─► go on
//!            └─ no ─► ask, wait ◄── news ── keeper: look ─► fresh again, or the volume failed
//! ```
//! A volume that is open read-only has no keeper, and nothing to lose while nobody reads: its ports look themselves, at the headers
//! alone. Whoever took it over by force changes nothing before it has made one.

use crate::clock;
use crate::volume::VolumeError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Looks in the time that one of them counts: one may fail, and one be late.
const LOOKS: u32 = 3;

#[derive(Debug)]
pub(in crate::volume) struct Watch {
    /// `None`: nobody looks, and every moment is as good as another.
    valid_for: Option<Duration>,
    /// When the last look began that showed the lease in force, and the last look of all; on the boot-time clock.
    good: AtomicU64,
    last: AtomicU64,
    /// Looks that have ended.
    looks: AtomicU64,
    /// Why the last look told nothing.
    trouble: Mutex<Option<VolumeError>>,
    asked: Notify,
    news: Notify,
    ended: AtomicBool,
}

impl Watch {
    /// The lease was taken just now.
    pub(in crate::volume) fn new(valid_for: Option<Duration>) -> Self {
        let now = valid_for.map_or(0, |_| clock::boottime_ns());
        Self {
            valid_for,
            good: now.into(),
            last: now.into(),
            looks: 0.into(),
            trouble: Mutex::default(),
            asked: Notify::new(),
            news: Notify::new(),
            ended: false.into(),
        }
    }

    pub(in crate::volume) fn is_on(&self) -> bool {
        self.valid_for.is_some()
    }

    /// The time that looks are told by.
    pub(in crate::volume) fn now(&self) -> u64 {
        self.valid_for.map_or(0, |_| clock::boottime_ns())
    }

    /// Changes every few milliseconds while somebody looks, also when the process was stopped or the host asleep in between.
    pub(in crate::volume) fn tick(&self) -> u64 {
        self.valid_for.map_or(0, |_| clock::tick())
    }

    /// Whether the last good look still counts.
    pub(in crate::volume) fn is_fresh(&self) -> bool {
        let Some(valid_for) = self.valid_for else { return true };
        Duration::from_nanos(clock::boottime_ns().saturating_sub(self.good.load(Ordering::Acquire))) < valid_for
    }

    /// Waits for a look that begins from now on if the last one does not count any more.
    ///
    /// # Errors
    /// Why that look told nothing. The caller looks itself whether the volume failed.
    pub(in crate::volume) async fn fresh(&self) -> Result<(), VolumeError> {
        let now = clock::boottime_ns();
        // One look may be under way, and have begun too early.
        let enough = self.looks.load(Ordering::Acquire) + 2;
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            let looked_since = self.good.load(Ordering::Acquire) >= now;
            if self.is_fresh() || looked_since || self.ended.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.looks.load(Ordering::Acquire) >= enough
                && let Some(trouble) = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
            {
                return Err(trouble);
            }
            self.asked.notify_one();
            news.await;
        }
    }

    // ---- the keeper's side

    /// Ready when a look is wanted; `false` when there will be none any more.
    pub(in crate::volume) async fn asked(&self) -> bool {
        if !self.ended.load(Ordering::Acquire) {
            self.asked.notified().await;
        }
        !self.ended.load(Ordering::Acquire)
    }

    /// Tells what a look that began at `began` has shown.
    pub(in crate::volume) fn looked(&self, began: u64, result: Result<(), VolumeError>) {
        if result.is_ok() {
            self.good.fetch_max(began, Ordering::AcqRel);
        }
        self.last.fetch_max(began, Ordering::AcqRel);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
        self.looks.fetch_add(1, Ordering::AcqRel);
        self.news.notify_waiters();
    }

    /// Asks for a look when one is due. Returns how long to sleep until the next is.
    pub(in crate::volume) fn ask_when_due(&self) -> Option<Duration> {
        let pause = self.valid_for? / LOOKS;
        let since = Duration::from_nanos(clock::boottime_ns().saturating_sub(self.last.load(Ordering::Acquire)));
        if since < pause {
            return Some(pause - since);
        }
        // Once for each pause, however often this is called meanwhile.
        self.last.store(clock::boottime_ns(), Ordering::Release);
        self.asked.notify_one();
        Some(pause)
    }

    /// Nobody looks any more; whoever waits finds the volume closed or failed.
    pub(in crate::volume) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.asked.notify_one();
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeErrorKind;
    use futures_util::FutureExt;

    #[test]
    fn a_stale_watch_waits_for_a_look_that_began_after_it_was_asked() {
        let watch = Watch::new(Some(Duration::ZERO));
        assert!(!watch.is_fresh());
        let mut waiting = Box::pin(watch.fresh());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(watch.asked().now_or_never(), Some(true), "the keeper is asked");
        let trouble = || VolumeError::new(VolumeErrorKind::Store, "no answer");
        watch.looked(clock::boottime_ns(), Err(trouble()));
        assert!(waiting.as_mut().now_or_never().is_none(), "that one may have begun before");
        watch.looked(clock::boottime_ns(), Err(trouble()));
        assert!(waiting.as_mut().now_or_never().is_some_and(|result| result.is_err()));
    }

    #[test]
    fn a_good_look_counts_for_a_while_and_an_older_one_takes_nothing_back() {
        let watch = Watch::new(Some(Duration::from_secs(3600)));
        assert!(watch.is_fresh() && watch.fresh().now_or_never().is_some());
        watch.looked(0, Ok(()));
        assert!(watch.is_fresh());
        assert!(watch.ask_when_due().is_some_and(|pause| pause > Duration::from_secs(1000)));
    }

    #[test]
    fn without_a_time_every_moment_is_good() {
        let watch = Watch::new(None);
        assert!(!watch.is_on() && watch.is_fresh() && watch.ask_when_due().is_none());
    }
}
