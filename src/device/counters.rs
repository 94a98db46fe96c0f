//! What a device has done so far, per queue, for `status` and metrics.
//!
//! Each [`QueueCounters`] has one writer, its queue's thread, so a change is a plain load and store without a locked
//! instruction; readers may be a moment behind. Padded to cache lines of its own, so queues do not slow each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the queue's thread alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    pub(super) reads: Counter,
    pub(super) writes: Counter,
    pub(super) flushes: Counter,
    pub(super) discards: Counter,
    pub(super) others: Counter,
    pub(super) bytes_read: Counter,
    pub(super) bytes_written: Counter,
    pub(super) errors: Counter,
    pub(super) notifications: Counter,
    pub(super) in_flight: Counter,
}

/// One number with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.set(self.get().wrapping_add(amount));
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A queue's numbers at one moment, counted since the device was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Discards and write-zeroes.
    pub discards: u64,
    /// Serial number requests, and types we do not know.
    pub others: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Requests that were answered with anything but OK.
    pub errors: u64,
    /// Times the guest was interrupted.
    pub notifications: u64,
    pub in_flight: u64,
}

impl QueueCounters {
    pub fn statistics(&self) -> QueueStatistics {
        QueueStatistics {
            reads: self.reads.get(),
            writes: self.writes.get(),
            flushes: self.flushes.get(),
            discards: self.discards.get(),
            others: self.others.get(),
            bytes_read: self.bytes_read.get(),
            bytes_written: self.bytes_written.get(),
            errors: self.errors.get(),
            notifications: self.notifications.get(),
            in_flight: self.in_flight.get(),
        }
    }
}
