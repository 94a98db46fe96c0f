//! How a long job and whoever waits for it see each other: progress one way, a wish to cancel the other way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the job's threads, which report and ask, and by one presenter, which looks now and then.
#[derive(Debug, Default)]
pub struct Job {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

/// A moment of a job; bytes or objects, as the job says. A total of zero means that it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

impl Job {
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Never goes back, whichever of several threads reports last.
    pub fn reached(&self, done: u64) {
        self.done.fetch_max(done, Ordering::Relaxed);
    }

    pub fn progress(&self) -> Progress {
        Progress { done: self.done.load(Ordering::Relaxed), total: self.total.load(Ordering::Relaxed) }
    }

    /// Asks the job to stop; it will at its next step, or finish first.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
