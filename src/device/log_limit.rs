//! Log lines that a guest can cause, kept to a bounded rate: the first of each interval is written, the rest are counted.
//!
//! A limit belongs to the device, not to a connection or to a started ring, because a guest may restart those at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line per place and interval. A guest that misbehaves all day long fills 700 kB a day and queue at most.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    last: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Whether to write a line now, and how many were left out since the last one.
    pub(super) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            counted.left_out += 1;
            return None;
        }
        counted.last = Some(now);
        Some(std::mem::take(&mut counted.left_out))
    }
}

/// The limits of one queue. Apart, so that a guest's noise does not hide that its store fails.
#[derive(Debug, Default)]
pub(super) struct QueueLogs {
    pub(super) malformed: LogLimit,
    pub(super) broken: LogLimit,
    pub(super) failed: LogLimit,
    /// The store is silent.
    pub(super) silent: LogLimit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_within_an_interval_are_counted_instead_of_written() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.admit_at(start), Some(0));
        assert_eq!(limit.admit_at(start), None);
        assert_eq!(limit.admit_at(start), None);
        assert_eq!(limit.admit_at(start + INTERVAL), Some(2));
        assert_eq!(limit.admit_at(start + 2 * INTERVAL), Some(0));
    }
}
