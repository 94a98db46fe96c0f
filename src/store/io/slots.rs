//! The operations that futures wait for. A slot lives from submission to completion, whatever becomes of the future.

use super::Finished;
use slab::Slab;
use std::task::{Poll, Waker};

/// Keys are 31 bits of generation above 32 bits of index, so a completion that came twice would be noticed.
#[derive(Default)]
pub(super) struct Slots {
    slots: Slab<Slot>,
    generation: u64,
}

struct Slot {
    key: u64,
    state: State,
}

enum State {
    /// The operation runs; whom to wake, once the future has been polled.
    Running(Option<Waker>),
    /// The operation runs and its future was dropped.
    Abandoned,
    /// The operation ended and its future has not looked yet.
    Finished(Finished),
}

const GENERATIONS: u64 = 1 << 31;

impl Slots {
    /// A slot for an operation about to be submitted.
    pub(super) fn occupy(&mut self) -> u64 {
        self.generation = (self.generation + 1) % GENERATIONS;
        let entry = self.slots.vacant_entry();
        let index = u32::try_from(entry.key()).expect("operations in flight fit in 32 bits");
        let key = self.generation << 32 | u64::from(index);
        entry.insert(Slot { key, state: State::Running(None) });
        key
    }

    /// The operation ended. Returns whom to wake; call it when nothing is borrowed.
    pub(super) fn finish(&mut self, key: u64, finished: Finished) -> Option<Waker> {
        let slot = self.slot(key);
        match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Running(waker) => {
                slot.state = State::Finished(finished);
                waker
            }
            State::Abandoned => {
                self.slots.remove(index_of(key));
                None
            }
            State::Finished(_) => panic!("the driver completed operation {key:x} twice"),
        }
    }

    /// The result, or the waker is noted.
    pub(super) fn poll(&mut self, key: u64, waker: &Waker) -> Poll<Finished> {
        let slot = self.slot(key);
        match &mut slot.state {
            State::Running(waiting) => {
                match waiting {
                    Some(known) => known.clone_from(waker),
                    None => *waiting = Some(waker.clone()),
                }
                Poll::Pending
            }
            State::Finished(_) => match self.slots.remove(index_of(key)).state {
                State::Finished(finished) => Poll::Ready(finished),
                State::Running(_) | State::Abandoned => unreachable!("it was finished a line above"),
            },
            State::Abandoned => unreachable!("a future that was dropped is polled"),
        }
    }

    /// The future was dropped, before or after it ended.
    pub(super) fn abandon(&mut self, key: u64) {
        let index = index_of(key);
        match self.slots.get_mut(index) {
            Some(slot) if slot.key == key => match slot.state {
                State::Running(_) => slot.state = State::Abandoned,
                State::Finished(_) => drop(self.slots.remove(index)),
                State::Abandoned => unreachable!("a future is dropped once"),
            },
            // It ended and was looked at; the slot may serve somebody else by now.
            Some(_) | None => {}
        }
    }

    fn slot(&mut self, key: u64) -> &mut Slot {
        let slot = self.slots.get_mut(index_of(key)).expect("a slot lives until its operation completes");
        assert_eq!(slot.key, key, "a completion names an operation that ended before");
        slot
    }
}

fn index_of(key: u64) -> usize {
    usize::try_from(key & u64::from(u32::MAX)).expect("32 bits fit in a usize")
}
