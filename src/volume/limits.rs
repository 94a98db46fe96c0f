//! What a volume may be used at: requests and bytes per second, shared by all its queues, changeable while they run.
//!
//! Two token buckets, and a queue for turns. A request *reserves*: it takes its tokens at once, even those that will only
//! be there later, and is told when that is. Then it waits until then ([`super::held_back`]), without asking again. So:
//!
//! - turns are given in the order in which they were asked for. Each queue asks for one request at a time, so busy queues of one
//!   volume take turns, request by request;
//! - nobody is woken in vain, and nobody looks whether there are tokens yet;
//! - a queue whose thread comes late for its turn has lost nothing: the tokens were its own.
//!
//! A bucket fills at the limit and holds the burst. A request starts when the bucket has all that it costs, or is full: one that
//! is larger than the bucket takes a full one and leaves a debt behind. For example, with 100 requests per second and a burst
//! of 10: after a rest of a tenth of a second ten start at once, then one every 10 ms. Within any time t no more than
//! burst + limit · t start, and one more for each queue (its turn may have come before it took it).
//!
//! With no limits set, a request costs one relaxed load here.
//!
//! The crate `governor` was considered: it has one bucket per limiter, quotas of 32 bits (4 GiB/s), no way to change them
//! while requests wait, and no turns: who waits asks again, and who asks at the right moment overtakes the others.

use super::{Request, Volume};
use crate::clock::{Monotonic, SystemClock};
use crate::map::format::header::Limits;
use crate::store::Wake;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Levels are counted in billionths, so that what comes in a nanosecond is a whole number.
const SCALE: i128 = 1_000_000_000;

/// A volume's limits, and how much of them is used.
pub(super) struct Throttle {
    /// Whether any limit is set. Only a hint: who sees it late is limited late.
    limiting: AtomicBool,
    state: Mutex<State>,
}

struct State {
    limits: Limits,
    /// Raised with each change: turns given before it are void.
    edition: u64,
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    /// When the buckets were filled up last.
    filled: Duration,
    clock: Arc<dyn Monotonic>,
    /// Those who may wait for a turn.
    ports: Vec<Weak<dyn Wake>>,
}

/// When a request may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    edition: u64,
    at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Until(Duration),
    /// The limits have changed: ask for another turn.
    Void,
}

#[derive(Debug)]
struct Bucket {
    /// Tokens per second, which are billionths of a token per nanosecond.
    rate: u64,
    capacity: i128,
    /// Negative: tokens that were taken before they were there.
    level: i128,
}

impl Throttle {
    /// Nobody has used anything yet: the bursts are there.
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            limits,
            edition: 0,
            requests: Bucket::full(limits.iops, limits.iops_burst),
            bytes: Bucket::full(limits.bytes, limits.bytes_burst),
            filled: Duration::ZERO,
            clock: Arc::new(SystemClock),
            ports: Vec::new(),
        };
        Self { limiting: AtomicBool::new(is_limiting(&limits)), state: Mutex::new(state) }
    }

    #[inline]
    pub(super) fn is_limiting(&self) -> bool {
        self.limiting.load(Ordering::Relaxed)
    }

    /// Has the waker called when the limits change.
    pub(super) fn add_port(&self, wake: &Arc<dyn Wake>) {
        let mut state = self.lock();
        state.ports.retain(|port| port.strong_count() != 0);
        state.ports.push(Arc::downgrade(wake));
    }

    fn change(&self, limits: Limits) {
        let ports = {
            let mut state = self.lock();
            state.fill();
            state.change(limits);
            self.limiting.store(is_limiting(&limits), Ordering::Relaxed);
            state.ports.clone()
        };
        // Those who wait for a turn of before must ask again.
        ports.iter().filter_map(Weak::upgrade).for_each(|port| port.wake());
    }

    /// Takes what the request costs.
    pub(super) fn reserve(&self, request: &Request) -> Turn {
        self.lock().reserve(request.data_bytes())
    }

    /// Whether the turn has come.
    pub(super) fn has_come(&self, turn: Turn) -> Option<bool> {
        match self.lock().wait(turn) {
            Wait::No => Some(true),
            Wait::Until(_) => Some(false),
            Wait::Void => None,
        }
    }

    /// How long until [`Throttle::has_come`] has something else to say.
    pub(super) fn time_until(&self, turn: Turn) -> Duration {
        match self.lock().wait(turn) {
            Wait::No | Wait::Void => Duration::ZERO,
            Wait::Until(time) => time,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume {
    /// Limits for requests from now on, those that wait included; not durable by itself: [`Volume::amend`] is.
    pub fn set_limits_in_memory(&self, limits: Limits) {
        self.throttle.change(limits);
    }

    pub fn limits(&self) -> Limits {
        self.throttle.lock().limits
    }

    /// The clock that limits are measured by, in place of the kernel's. To be called before there are ports.
    pub fn set_limits_clock(&self, clock: Arc<dyn Monotonic>) {
        let mut state = self.throttle.lock();
        state.filled = clock.now();
        state.clock = clock;
    }
}

impl State {
    fn fill(&mut self) {
        let now = self.clock.now();
        let passed = now.saturating_sub(self.filled);
        self.filled = now;
        self.buckets().for_each(|(bucket, _)| bucket.fill(passed));
    }

    /// The buckets, and what a request of so many bytes takes from each: `1` and the bytes.
    fn buckets(&mut self) -> impl Iterator<Item = (&mut Bucket, Unit)> {
        let requests = self.requests.iter_mut().map(|bucket| (bucket, Unit::Request));
        requests.chain(self.bytes.iter_mut().map(|bucket| (bucket, Unit::Byte)))
    }

    fn reserve(&mut self, bytes: u64) -> Turn {
        self.fill();
        let waits = self.buckets().map(|(bucket, unit)| match unit {
            Unit::Request => bucket.take(1),
            Unit::Byte => bucket.take(bytes),
        });
        let wait = waits.max().unwrap_or_default();
        Turn { edition: self.edition, at: self.filled.saturating_add(wait) }
    }

    fn wait(&self, turn: Turn) -> Wait {
        if turn.edition != self.edition {
            return Wait::Void;
        }
        match turn.at.checked_sub(self.clock.now()) {
            None | Some(Duration::ZERO) => Wait::No,
            Some(time) => Wait::Until(time),
        }
    }

    fn change(&mut self, limits: Limits) {
        self.edition += 1;
        self.limits = limits;
        self.requests = Bucket::changed(self.requests.take(), limits.iops, limits.iops_burst);
        self.bytes = Bucket::changed(self.bytes.take(), limits.bytes, limits.bytes_burst);
    }
}

enum Unit {
    Request,
    Byte,
}

impl Bucket {
    /// `None` without a limit. A burst of 0 stands for what one second brings.
    fn full(rate: u64, burst: u64) -> Option<Self> {
        let capacity = scaled(if burst == 0 { rate } else { burst });
        (rate != 0).then_some(Self { rate, capacity, level: capacity })
    }

    /// With what was saved up before, so that a change brings nobody a burst. Debts end: those who wait ask again.
    fn changed(before: Option<Self>, rate: u64, burst: u64) -> Option<Self> {
        let saved = before.map_or(0, |bucket| bucket.level.max(0));
        Self::full(rate, burst).map(|bucket| Self { level: bucket.capacity.min(saved), ..bucket })
    }

    fn fill(&mut self, time: Duration) {
        let nanoseconds = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let brought = i128::from(self.rate).saturating_mul(nanoseconds);
        self.level = self.level.saturating_add(brought).min(self.capacity);
    }

    /// Takes the tokens. Returns how long until they are there.
    fn take(&mut self, tokens: u64) -> Duration {
        let missing = (scaled(tokens).min(self.capacity) - self.level).max(0);
        self.level = self.level.saturating_sub(scaled(tokens));
        let rate = i128::from(self.rate);
        let nanoseconds = missing / rate + i128::from(missing % rate != 0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

fn scaled(tokens: u64) -> i128 {
    i128::from(tokens) * SCALE
}

fn is_limiting(limits: &Limits) -> bool {
    limits.iops != 0 || limits.bytes != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct ByHand(AtomicU64);

    impl Monotonic for ByHand {
        fn now(&self) -> Duration {
            Duration::from_nanos(self.0.load(Ordering::SeqCst))
        }
    }

    struct Bench {
        throttle: Throttle,
        clock: Arc<ByHand>,
    }

    impl Bench {
        fn new(limits: Limits) -> Self {
            let (throttle, clock) = (Throttle::new(limits), Arc::new(ByHand::default()));
            throttle.lock().clock = Arc::clone(&clock) as Arc<dyn Monotonic>;
            Self { throttle, clock }
        }

        fn pass(&self, time: Duration) {
            self.clock.0.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
        }

        /// Milliseconds until requests of this size start that are asked for now, one after the other.
        fn waits(&self, bytes: u64, count: usize) -> Vec<u128> {
            let wait = |_| {
                let turn = self.throttle.lock().reserve(bytes);
                self.throttle.time_until(turn).as_millis()
            };
            (0..count).map(wait).collect()
        }
    }

    fn iops(iops: u64, iops_burst: u64) -> Limits {
        Limits { iops, iops_burst, ..Limits::default() }
    }

    fn bytes(bytes: u64, bytes_burst: u64) -> Limits {
        Limits { bytes, bytes_burst, ..Limits::default() }
    }

    #[test]
    fn after_a_rest_the_burst_starts_at_once_and_then_the_limit_holds() {
        let bench = Bench::new(iops(100, 3));
        assert_eq!(bench.waits(512, 5), [0, 0, 0, 10, 20]);
        bench.pass(Duration::from_millis(20));
        assert_eq!(bench.waits(512, 1), [10]);
        bench.pass(Duration::from_secs(100));
        assert_eq!(bench.waits(512, 5), [0, 0, 0, 10, 20], "a longer rest brings no more than the burst");
    }

    #[test]
    fn a_burst_that_is_not_set_is_what_one_second_brings() {
        assert_eq!(Bench::new(iops(4, 0)).waits(512, 6), [0, 0, 0, 0, 250, 500]);
    }

    #[test]
    fn bytes_are_limited_beside_requests_and_the_scarcer_rules() {
        let both = Limits { bytes: 8192, bytes_burst: 8192, ..iops(4, 4) };
        assert_eq!(Bench::new(both).waits(4096, 4), [0, 0, 500, 1000], "bytes are scarce");
        assert_eq!(Bench::new(both).waits(512, 6), [0, 0, 0, 0, 250, 500], "requests are scarce");
        assert_eq!(Bench::new(both).waits(0, 6), [0, 0, 0, 0, 250, 500], "a discard is a request without bytes");
    }

    #[test]
    fn a_request_larger_than_the_bucket_starts_when_it_is_full_and_is_paid_for_afterwards() {
        let bench = Bench::new(bytes(1000, 1000));
        assert_eq!(bench.waits(5000, 2), [0, 5000]);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.waits(1000, 1), [5000]);
    }

    #[test]
    fn no_more_starts_in_any_second_than_the_limit_and_the_burst_allow() {
        let bench = Bench::new(iops(700, 50));
        let mut starts = Vec::new();
        for _ in 0..5000 {
            let turn = bench.throttle.lock().reserve(512);
            bench.pass(bench.throttle.time_until(turn));
            starts.push(bench.clock.now());
        }
        let most = starts.iter().map(|start| {
            let from = starts.partition_point(|earlier| *earlier + Duration::from_secs(1) <= *start);
            starts.partition_point(|other| other <= start) - from
        });
        assert!(most.max().is_some_and(|most| (740..=750).contains(&most)));
        let average = 5000.0 / starts.last().unwrap().as_secs_f64();
        assert!((700.0..708.0).contains(&average), "{average} per second");
    }

    #[test]
    fn a_change_holds_for_those_who_wait_and_brings_no_burst() {
        let bench = Bench::new(iops(1, 1));
        assert_eq!(bench.waits(512, 1), [0]);
        let turn = bench.throttle.lock().reserve(512);
        assert_eq!(bench.throttle.has_come(turn), Some(false));
        bench.throttle.change(iops(100, 100));
        assert_eq!(bench.throttle.has_come(turn), None, "ask again");
        assert_eq!(bench.waits(512, 3), [10, 20, 30]);
        bench.throttle.change(Limits::default());
        assert!(!bench.throttle.is_limiting());
        assert_eq!(bench.waits(1 << 40, 3), [0, 0, 0]);
    }

    #[test]
    fn limits_that_nobody_can_mean_do_no_harm() {
        let bench = Bench::new(Limits { bytes: 1, bytes_burst: 1, ..iops(u64::MAX, u64::MAX) });
        bench.waits(u64::MAX, 3);
        bench.pass(Duration::from_secs(1 << 33));
        bench.waits(u64::MAX, 3);
    }

    #[test]
    fn the_kernels_clock_does_not_go_back() {
        let first = SystemClock.now();
        assert!(SystemClock.now() >= first && first > Duration::ZERO);
    }
}
