//! The memory tables that one queue's requests point into.
//!
//! A front-end may change the table while requests are in flight. New requests use the new one; an old one is let go when
//! the last request that points into it is finished. Each queue wraps the table in an `Arc` of its own, so that taking and
//! giving back a reference per request touches no cache line of another queue.

use super::memory::Memory;
use std::any::Any;
use std::sync::Arc;

pub(super) struct Tables {
    current: Arc<Memory>,
    keep: Arc<dyn Any + Send + Sync>,
    number: u64,
    in_flight: usize,
    old: Vec<OldTable>,
}

struct OldTable {
    number: u64,
    in_flight: usize,
    memory: Arc<Memory>,
}

impl Tables {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let keep = Arc::new(Arc::clone(&memory));
        Self { current: memory, keep, number: 0, in_flight: 0, old: Vec::new() }
    }

    pub(super) fn current(&self) -> &Arc<Memory> {
        &self.current
    }

    /// What keeps the current table's memory mapped.
    pub(super) fn keep(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.keep
    }

    pub(super) fn replace(&mut self, memory: Arc<Memory>) {
        let keep = Arc::new(Arc::clone(&memory));
        let memory = std::mem::replace(&mut self.current, memory);
        self.keep = keep;
        if self.in_flight != 0 {
            self.old.push(OldTable { number: self.number, in_flight: self.in_flight, memory });
        }
        self.number += 1;
        self.in_flight = 0;
    }

    /// A request is about to point into the current table; the number is to be given to [`Tables::release`].
    #[inline]
    pub(super) fn take(&mut self) -> u64 {
        self.in_flight += 1;
        self.number
    }

    #[inline]
    pub(super) fn release(&mut self, number: u64) {
        if number == self.number {
            self.in_flight -= 1;
        } else {
            self.release_old(number);
        }
    }

    #[cold]
    fn release_old(&mut self, number: u64) {
        let place = self.old.iter().position(|table| table.number == number).expect("a table in use is kept");
        self.old[place].in_flight -= 1;
        if self.old[place].in_flight == 0 {
            self.old.swap_remove(place);
        }
    }

    /// Whether the front-end took away memory that is in use.
    pub(super) fn is_lost(&self) -> bool {
        self.current.is_lost() || self.old.iter().any(|table| table.memory.is_lost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_table_stays_until_its_last_request_is_finished() {
        let first = Arc::new(Memory::default());
        let watch = Arc::downgrade(&first);
        let mut tables = Tables::new(first);
        let (a, b) = (tables.take(), tables.take());
        tables.replace(Arc::new(Memory::default()));
        let c = tables.take();
        tables.release(a);
        assert!(watch.upgrade().is_some());
        tables.release(b);
        assert!(watch.upgrade().is_none());
        tables.release(c);
    }

    #[test]
    fn an_unused_table_is_let_go_at_once() {
        let first = Arc::new(Memory::default());
        let watch = Arc::downgrade(&first);
        let mut tables = Tables::new(first);
        tables.replace(Arc::new(Memory::default()));
        assert!(watch.upgrade().is_none());
    }
}
