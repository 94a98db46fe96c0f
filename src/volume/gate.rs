//! The gate: every write in place passes through it, from looking at who owns the object until the store has ended the write.
//!
//! A snapshot closes it, waits until nobody is inside, says in memory that all objects are shared, and opens it again (rule C8).
//! That is all that a guest ever waits for a snapshot. What makes new objects need not pass: an object that was being
//! made when the snapshot came is in no snapshot, and counts as shared until it is written again.
//!
//! ```text
//!   pass:  count in ── closed? ──no──► inside ── count out ── closed? tell the closer
//!                         └─yes─► count out, wait until it opens
//! ```
//! Counting in comes before looking, closing before counting, all of it sequentially consistent: of a pass and a closer at
//! the same time at least one sees the other. Each port counts in a place of its own, so queues do not meet here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use tokio::sync::{Mutex, MutexGuard, Notify};

#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    counters: std::sync::Mutex<Vec<Weak<Counter>>>,
    drained: Notify,
    opened: Notify,
    /// Closers, one after the other.
    closing: Mutex<()>,
}

/// One port's passes. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counter(AtomicUsize);

/// Being inside; ended by [`Gate::leave`] or by dropping it.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    counter: &'a Counter,
}

/// The gate is closed until this is dropped.
#[derive(Debug)]
pub(super) struct Closed<'a> {
    gate: &'a Gate,
    _turn: MutexGuard<'a, ()>,
}

impl Gate {
    /// A place to count for one port.
    pub(super) fn counter(&self) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.retain(|counter| counter.strong_count() != 0);
        counters.push(Arc::downgrade(&counter));
        counter
    }

    /// Counts in; false when the gate is closed. Each success needs one [`Gate::leave`].
    pub(super) fn try_enter(&self, counter: &Counter) -> bool {
        counter.0.fetch_add(1, Ordering::SeqCst);
        let closed = self.closed.load(Ordering::SeqCst);
        if closed {
            self.leave(counter);
        }
        !closed
    }

    pub(super) fn leave(&self, counter: &Counter) {
        counter.0.fetch_sub(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.drained.notify_waiters();
        }
    }

    /// Inside as soon as the gate is open.
    pub(super) async fn enter<'a>(&'a self, counter: &'a Counter) -> Pass<'a> {
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            opened.as_mut().enable();
            if self.try_enter(counter) {
                return Pass { gate: self, counter };
            }
            opened.await;
        }
    }

    /// Closes the gate and waits until nobody is inside. Of several closers one goes after the other.
    pub(super) async fn close(&self) -> Closed<'_> {
        let turn = self.closing.lock().await;
        self.closed.store(true, Ordering::SeqCst);
        let closed = Closed { gate: self, _turn: turn };
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.is_empty() {
                return closed;
            }
            drained.await;
        }
    }

    fn is_empty(&self) -> bool {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().filter_map(Weak::upgrade).all(|counter| counter.0.load(Ordering::SeqCst) == 0)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.counter);
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.closed.store(false, Ordering::SeqCst);
        self.gate.opened.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_closer_waits_for_those_inside_and_new_ones_wait_for_it() {
        let gate = Gate::default();
        let counters = [gate.counter(), gate.counter()];
        let inside = gate.enter(&counters[0]).now_or_never().unwrap();
        let mut closing = Box::pin(gate.close());
        assert!(closing.as_mut().now_or_never().is_none());
        assert!(!gate.try_enter(&counters[1]));
        let mut waiting = Box::pin(gate.enter(&counters[1]));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(inside);
        let closed = closing.now_or_never().unwrap();
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(closed);
        drop(waiting.now_or_never().unwrap());
        assert!(gate.close().now_or_never().is_some());
    }

    #[test]
    fn a_closer_that_gives_up_opens_the_gate_again() {
        let gate = Gate::default();
        let counter = gate.counter();
        assert!(gate.try_enter(&counter));
        let mut closing = Box::pin(gate.close());
        assert!(closing.as_mut().now_or_never().is_none());
        drop(closing);
        gate.leave(&counter);
        assert!(gate.try_enter(&counter));
    }
}
