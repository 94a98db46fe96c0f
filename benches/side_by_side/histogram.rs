//! Latencies in buckets that grow with the value: 32 to each power of two, so a percentile is at most 3 % too high.
//! Recording is an index and an increment.

use std::time::Duration;

const STEPS_LOG2: u32 = 5;
const STEPS: u64 = 1 << STEPS_LOG2;
/// Up to 2^40 ns, 18 minutes.
const BUCKETS: usize = 36 << STEPS_LOG2;

#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The value that `fraction` of the records do not exceed, in µs.
    pub(crate) fn quantile_us(&self, fraction: f64) -> f64 {
        let mut left = (self.total as f64 * fraction).ceil();
        for (index, count) in self.counts.iter().enumerate() {
            left -= *count as f64;
            if left <= 0.0 && *count > 0 {
                return upper_bound(index) / 1000.0;
            }
        }
        0.0
    }
}

/// Values below 32 have a bucket each; above, the five bits after the leading one choose it.
fn bucket(ns: u64) -> usize {
    let doublings = ns.max(1).ilog2().saturating_sub(STEPS_LOG2);
    let index = u64::from(doublings) * STEPS + (ns >> doublings);
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

fn upper_bound(index: usize) -> f64 {
    let steps = 1_usize << STEPS_LOG2;
    let doublings = (index / steps).saturating_sub(1);
    let step = index - doublings * steps;
    (step + 1) as f64 * f64::powi(2.0, i32::try_from(doublings).unwrap_or(i32::MAX)) - 1.0
}
