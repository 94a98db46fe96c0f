//! Late requests: answered with an error at their deadline, and still under way in the volume. All of one device.
//!
//! What a late change (a write, a discard, a write-zeroes) does may still happen, at any time until it ends. So the rule
//! that keeps a guest's data in order:
//!
//! > A request that touches a place of a late change is not started before that change has ended.
//!
//! The guest was told that the change failed, and may write the place again at once, through any queue, and after a new
//! start of the queue. Two operations that are under way on one object have no order, so a new write beside the late one could
//! be undone by it after the guest saw it succeed. A new read beside it could show the old content, which the
//! guest keeps, and which then changes. What was submitted before the late change was answered has no order with it
//! anyway; flushes owe nothing to a change that never succeeded; and late reads change nothing.
//!
//! Queues ask for each request ([`LateRequests::admit`]). While nothing is late that is one load. It cannot be stale: a late
//! request is entered here before its answer is published, and the guest sees the answer before it asks for more.
//!
//! Bounded, because a guest that goes on while the store is silent would otherwise fill our memory.

use super::log_limit::LogLimit;
use crate::store::Wake;
use crate::units::{ByteRange, VolumeName};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most late requests of a device: some ringfuls of each of the usual number of queues.
pub(super) const LATE_MAX: usize = 4096;

/// Most data of late requests that a device keeps in memory. What is in flight when it is reached comes on top of it.
pub(super) const LATE_BYTES_MAX: u64 = 64 << 20;

pub(super) struct LateRequests {
    volume: VolumeName,
    /// `state.requests`, to be looked at without the lock. Zero nearly always.
    requests: AtomicUsize,
    /// Late changes that have ended: who waits for one looks again when this has changed.
    changes_ended: AtomicU64,
    state: Mutex<State>,
    /// Threads of stopped queues that still have late requests.
    threads: Mutex<Vec<JoinHandle<()>>>,
    answers_again: LogLimit,
}

#[derive(Default)]
struct State {
    requests: usize,
    bytes: u64,
    changes: Vec<(u64, ByteRange)>,
    last: u64,
    /// Queues with requests that wait for a change to end.
    sleepers: Vec<Arc<dyn Wake>>,
    /// Requests that became late since the last time that there were none.
    episode: u64,
}

/// One late request; dropped when it has ended, and not before.
#[must_use]
pub(super) struct LateRequest {
    all: Arc<LateRequests>,
    bytes: u64,
    change: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Go,
    /// It touches a place of a late change. The waker is called when one has ended.
    Wait,
    /// There are too many late requests.
    Refuse,
}

impl LateRequests {
    pub(super) fn new(volume: VolumeName) -> Self {
        Self {
            volume,
            requests: AtomicUsize::new(0),
            changes_ended: AtomicU64::new(0),
            state: Mutex::default(),
            threads: Mutex::default(),
            answers_again: LogLimit::default(),
        }
    }

    /// Enters a request that is about to be answered early; `change` is where it may still change something.
    pub(super) fn enter(self: &Arc<Self>, bytes: u64, change: Option<ByteRange>) -> LateRequest {
        let mut state = self.lock();
        state.requests += 1;
        state.episode += 1;
        state.bytes += bytes;
        let change = change.map(|range| {
            state.last += 1;
            let number = state.last;
            state.changes.push((number, range));
            number
        });
        self.requests.store(state.requests, Ordering::SeqCst);
        LateRequest { all: Arc::clone(self), bytes, change }
    }

    /// Whether a new request may start that touches this range, if any.
    #[inline]
    pub(super) fn admit(&self, range: Option<ByteRange>, waker: &Arc<dyn Wake>) -> Admission {
        if self.requests.load(Ordering::SeqCst) == 0 { Admission::Go } else { self.admit_beside(range, waker) }
    }

    #[cold]
    fn admit_beside(&self, range: Option<ByteRange>, waker: &Arc<dyn Wake>) -> Admission {
        let mut state = self.lock();
        if state.requests >= LATE_MAX || state.bytes >= LATE_BYTES_MAX {
            return Admission::Refuse;
        }
        if state.is_free(range) {
            return Admission::Go;
        }
        state.wait(waker);
        Admission::Wait
    }

    /// Whether a request that was told to wait may start now; if not, the waker is called at the next end.
    pub(super) fn is_free(&self, range: Option<ByteRange>, waker: &Arc<dyn Wake>) -> bool {
        let mut state = self.lock();
        let free = state.is_free(range);
        if !free {
            state.wait(waker);
        }
        free
    }

    pub(super) fn changes_ended(&self) -> u64 {
        self.changes_ended.load(Ordering::SeqCst)
    }

    /// The thread of a queue that was stopped goes on until its late requests have ended.
    pub(super) fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Waits until the threads of all stopped queues have ended.
    pub(super) fn settle(&self) {
        loop {
            // Not locked while it is waited for.
            let thread = self.threads().pop();
            let Some(thread) = thread else { return };
            if thread.join().is_err() {
                tracing::error!(volume = %self.volume, "a stopped queue's thread ended by a fault of archvhost's own");
            }
        }
    }

    fn end(&self, late: &LateRequest) {
        let mut state = self.lock();
        state.requests -= 1;
        state.bytes -= late.bytes;
        let mut sleepers = Vec::new();
        if let Some(number) = late.change {
            state.changes.retain(|(other, _)| *other != number);
            sleepers = std::mem::take(&mut state.sleepers);
            self.changes_ended.fetch_add(1, Ordering::SeqCst);
        }
        self.requests.store(state.requests, Ordering::SeqCst);
        let ended = (state.requests == 0).then(|| std::mem::take(&mut state.episode));
        drop(state);
        sleepers.iter().for_each(|sleeper| sleeper.wake());
        if let Some(late) = ended
            && let Some(left_out) = self.answers_again.admit()
        {
            let volume = &self.volume;
            tracing::info!(%volume, late, left_out, "the store answers again: no request is late any more");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_free(&self, range: Option<ByteRange>) -> bool {
        range.is_none_or(|range| !self.changes.iter().any(|(_, change)| overlap(*change, range)))
    }

    fn wait(&mut self, waker: &Arc<dyn Wake>) {
        if !self.sleepers.iter().any(|sleeper| Arc::ptr_eq(sleeper, waker)) {
            self.sleepers.push(Arc::clone(waker));
        }
    }
}

/// Both lie within a volume, so no end overflows.
fn overlap(a: ByteRange, b: ByteRange) -> bool {
    a.offset < b.offset + b.len && b.offset < a.offset + a.len
}

impl Drop for LateRequest {
    fn drop(&mut self) {
        // A thread that panics leaves the request under way: what touches its place had better wait for ever.
        if !std::thread::panicking() {
            self.all.end(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Scene {
        late: Arc<LateRequests>,
        woken: Arc<Woken>,
        waker: Arc<dyn Wake>,
    }

    fn scene() -> Scene {
        let late = Arc::new(LateRequests::new(VolumeName::new("v").unwrap()));
        let woken = Arc::new(Woken::default());
        Scene { late, waker: Arc::clone(&woken) as Arc<dyn Wake>, woken }
    }

    impl Scene {
        fn admit(&self, offset: u64, len: u64) -> Admission {
            self.late.admit(Some(ByteRange::new(offset, len)), &self.waker)
        }
    }

    #[test]
    fn what_touches_a_late_change_waits_and_what_lies_beside_it_does_not() {
        let scene = scene();
        let late = scene.late.enter(4096, Some(ByteRange::new(4096, 4096)));
        let waits = [(4096, 512), (7680, 512), (0, 4608), (0, 1 << 20)];
        assert!(waits.iter().all(|(offset, len)| scene.admit(*offset, *len) == Admission::Wait));
        assert_eq!([scene.admit(0, 4096), scene.admit(8192, 512)], [Admission::Go; 2]);
        assert_eq!(scene.late.admit(None, &scene.waker), Admission::Go, "a flush has no place");
        drop(late);
        assert_eq!(scene.admit(4096, 512), Admission::Go);
    }

    #[test]
    fn nothing_waits_for_a_late_read() {
        let scene = scene();
        let _late = scene.late.enter(4096, None);
        assert_eq!(scene.admit(0, 1 << 20), Admission::Go);
    }

    #[test]
    fn a_queue_that_waits_is_woken_once_for_each_end_and_asks_again() {
        let scene = scene();
        let range = ByteRange::new(0, 512);
        let (first, second) = (scene.late.enter(512, Some(range)), scene.late.enter(512, Some(range)));
        assert_eq!([scene.admit(0, 512), scene.admit(0, 512)], [Admission::Wait; 2]);
        let before = scene.late.changes_ended();
        drop(first);
        assert_eq!(scene.woken.0.load(Ordering::SeqCst), 1);
        assert_ne!(scene.late.changes_ended(), before);
        assert!(!scene.late.is_free(Some(range), &scene.waker));
        drop(second);
        assert_eq!(scene.woken.0.load(Ordering::SeqCst), 2);
        assert!(scene.late.is_free(Some(range), &scene.waker));
    }

    #[test]
    fn late_requests_are_bounded_in_number_and_in_bytes() {
        let scene = scene();
        let many: Vec<_> = (0..LATE_MAX).map(|_| scene.late.enter(0, None)).collect();
        assert_eq!(scene.admit(0, 512), Admission::Refuse);
        drop(many);
        assert_eq!(scene.admit(0, 512), Admission::Go);
        let large = scene.late.enter(LATE_BYTES_MAX, None);
        assert_eq!(scene.admit(0, 512), Admission::Refuse);
        drop(large);
        assert_eq!(scene.admit(0, 512), Admission::Go);
    }
}
