//! Log lines that a guest can cause, kept to a bounded rate: the first of each interval is written, the rest are counted.

use std::time::{Duration, Instant};

/// One line per place and interval. A guest that misbehaves all day long fills 700 kB a day and queue at most.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to write a line now, and how many were left out since the last one.
    pub(super) fn admit(&mut self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_within_an_interval_are_counted_instead_of_written() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.admit_at(start), Some(0));
        assert_eq!(limit.admit_at(start), None);
        assert_eq!(limit.admit_at(start), None);
        assert_eq!(limit.admit_at(start + INTERVAL), Some(2));
        assert_eq!(limit.admit_at(start + 2 * INTERVAL), Some(0));
    }
}
