//! How long a queue is watched after its last work before its thread sleeps.
//!
//! Sleeping and being woken costs tens of microseconds, watching costs CPU. So the time adapts: it grows while the next
//! work comes while it is watched, and shrinks to nothing while it does not. For example with a limit of 32 µs: work that
//! comes 10 µs after the last brings the window to 20 µs, from above as from below; one that comes after a millisecond halves
//! it, and four more such pauses leave nothing.
//!
//! After a burst of requests the limit is twice as high: a guest that was given many answers at once takes longer to come
//! back with the next burst, and what watching costs is spread over many requests.
//!
//! A thread that slept cannot tell how soon the work really came, because being woken takes longer than the window. So
//! every [`TRIAL_EVERY`] pauses the full window is tried once. An idle queue pays nothing: it has no pauses that end.

use std::time::{Duration, Instant};

/// Below this a window is not worth the clock reads.
const WINDOW_MIN: Duration = Duration::from_micros(1);

/// Pauses that came too late between two trials: rare enough that a trial that fails costs little (32 µs in 16 wake-ups).
const TRIAL_EVERY: u32 = 16;

/// Answers since the last pause that make a burst: half of the depth at which queues are usually driven hard.
const BURST: usize = 16;

#[derive(Debug)]
pub(super) struct Polling {
    max: Duration,
    /// What applies to the present pause: `max`, or twice that after a burst.
    limit: Duration,
    answered: usize,
    window: Duration,
    misses: u32,
    idle_since: Option<Instant>,
}

impl Polling {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, limit: max, answered: 0, window: max / 2, misses: 0, idle_since: None }
    }

    /// There was work, and so many requests were answered.
    #[inline]
    pub(super) fn worked(&mut self, answered: usize) {
        if self.idle_since.is_some() {
            self.adapt(Instant::now());
        }
        self.answered += answered;
    }

    /// There was no work. Whether to look again at once rather than to sleep.
    pub(super) fn look_again(&mut self) -> bool {
        self.look_again_at(Instant::now())
    }

    fn look_again_at(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert_with(|| {
            self.limit = if self.answered >= BURST { self.max * 2 } else { self.max };
            self.answered = 0;
            now
        });
        now.duration_since(since) < self.window.min(self.limit)
    }

    fn adapt(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else { return };
        let pause = now.duration_since(since);
        if pause <= self.limit {
            self.misses = 0;
            // Decays towards what is needed, so that the rare late one does not cost the full window.
            self.window = (self.window - self.window / 8).max(pause * 2).min(self.max * 2);
        } else {
            self.missed();
        }
    }

    fn missed(&mut self) {
        self.misses += 1;
        let was_trial = self.misses > TRIAL_EVERY;
        if self.misses == TRIAL_EVERY {
            self.window = self.limit;
            return;
        }
        self.window /= 2;
        if was_trial || self.window < WINDOW_MIN {
            self.window = Duration::ZERO;
        }
        if was_trial {
            self.misses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_pauses(polling: &mut Polling, pause: Duration, times: u32) {
        for _ in 0..times {
            let start = Instant::now();
            polling.look_again_at(start);
            polling.adapt(start + pause);
        }
    }

    #[test]
    fn the_window_grows_while_work_comes_soon_and_never_past_its_limit() {
        let mut polling = Polling::new(Duration::from_micros(32));
        after_pauses(&mut polling, Duration::from_micros(10), 1);
        assert_eq!(polling.window, Duration::from_micros(20));
        after_pauses(&mut polling, Duration::from_micros(30), 3);
        assert_eq!(polling.window, Duration::from_micros(60));
        let start = Instant::now();
        polling.look_again_at(start);
        assert!(!polling.look_again_at(start + Duration::from_micros(32)));
    }

    #[test]
    fn after_a_burst_the_limit_is_twice_as_high() {
        let mut polling = Polling::new(Duration::from_micros(32));
        polling.worked(BURST);
        after_pauses(&mut polling, Duration::from_micros(50), 1);
        assert_eq!(polling.window, Duration::from_micros(64));
        let start = Instant::now();
        polling.look_again_at(start);
        assert!(!polling.look_again_at(start + Duration::from_micros(33)), "no burst came before this pause");
    }

    #[test]
    fn the_window_shrinks_to_what_is_needed() {
        let mut polling = Polling::new(Duration::from_micros(64));
        after_pauses(&mut polling, Duration::from_micros(2), 30);
        assert_eq!(polling.window, Duration::from_micros(4));
    }

    #[test]
    fn the_window_vanishes_when_work_comes_late_and_returns_when_it_pays_again() {
        let mut polling = Polling::new(Duration::from_micros(32));
        after_pauses(&mut polling, Duration::from_millis(1), 6);
        assert_eq!(polling.window, Duration::ZERO);
        after_pauses(&mut polling, Duration::from_micros(4), 1);
        assert_eq!(polling.window, Duration::from_micros(8));
    }

    #[test]
    fn the_full_window_is_tried_once_in_a_while() {
        let mut polling = Polling::new(Duration::from_micros(32));
        after_pauses(&mut polling, Duration::from_millis(1), TRIAL_EVERY);
        assert_eq!(polling.window, Duration::from_micros(32));
        after_pauses(&mut polling, Duration::from_millis(1), 1);
        assert_eq!(polling.window, Duration::ZERO);
    }

    #[test]
    fn a_limit_of_zero_never_polls() {
        let mut polling = Polling::new(Duration::ZERO);
        after_pauses(&mut polling, Duration::from_nanos(0), 3);
        assert!(!polling.look_again_at(Instant::now()));
    }
}
