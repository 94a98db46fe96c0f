//! What one outsider may make us log by connecting and leaving: so many messages a minute, then a count of the rest.
//!
//! Without it a front-end that connects in a loop fills the host's log. Each attachment has a budget of its own, so that
//! what one guest causes hides nothing about another; faults of our own are not limited. A few connections in a row are
//! normal and told in full, which is why this is not the one line per place that `device` allows a guest's requests.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// Messages in one window: ten connections that come and go, which is what a person who looks for a fault causes.
const MESSAGES_MAX: u32 = 20;

#[derive(Debug)]
pub struct LogBudget {
    about: String,
    window: Mutex<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    logged: u32,
    left_out: u64,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// The first of a new window, after so many that were left out.
    LogAfter(u64),
    LeaveOut,
}

impl LogBudget {
    /// `about` says whose messages these are.
    pub fn new(about: impl Into<String>) -> Self {
        let window = Window { start: Instant::now(), logged: 0, left_out: 0 };
        Self { about: about.into(), window: Mutex::new(window) }
    }

    /// Whether one more message may be logged now. Ask once for each.
    pub fn allows(&self) -> bool {
        match self.window.lock().unwrap_or_else(PoisonError::into_inner).judge(Instant::now()) {
            Verdict::Log => true,
            Verdict::LogAfter(left_out) => {
                tracing::warn!(about = self.about, left_out, "messages were left out: there were too many");
                true
            }
            Verdict::LeaveOut => false,
        }
    }
}

impl Window {
    fn judge(&mut self, now: Instant) -> Verdict {
        if now.duration_since(self.start) >= WINDOW {
            let left_out = self.left_out;
            *self = Self { start: now, logged: 1, left_out: 0 };
            return if left_out == 0 { Verdict::Log } else { Verdict::LogAfter(left_out) };
        }
        if self.logged < MESSAGES_MAX {
            self.logged += 1;
            return Verdict::Log;
        }
        self.left_out += 1;
        Verdict::LeaveOut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let start = Instant::now();
        let mut window = Window { start, logged: 0, left_out: 0 };
        let verdicts: Vec<_> = (0..100).map(|_| window.judge(start)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Log).count(), 20);
        assert_eq!(window.judge(start + WINDOW), Verdict::LogAfter(80));
        assert_eq!(window.judge(start + WINDOW), Verdict::Log);
        assert_eq!(window.judge(start + 2 * WINDOW), Verdict::Log);
    }
}
