//! What ends a ring's sleep besides operations: the waker and watched eventfds, as multishot polls that never read them.

#![allow(unsafe_code, reason = "poll entries go to the ring")]

use super::ring::{Event, Ring};
use crate::store::sleep::{EventWaker, duplicate};
use crate::store::{StoreError, WatchId};
use io_uring::{opcode, squeue, types};
use slab::Slab;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Set in the user data of everything here; the keys of operations have it clear.
const MARK: u64 = 1 << 63;

/// User data of the waker's poll.
const WAKER: u64 = MARK | 1 << 62;

/// User data of requests whose completion means nothing.
const IGNORED: u64 = MARK | 1 << 61;

pub(super) struct Watches {
    watches: Slab<Watch>,
}

struct Watch {
    fd: OwnedFd,
    /// Unwatched, and its poll has not ended yet.
    leaving: bool,
}

impl Watches {
    pub(super) fn new(ring: &mut Ring, waker: &EventWaker) -> Self {
        poll(ring, waker.event(), WAKER);
        Self { watches: Slab::new() }
    }

    pub(super) fn owns(user_data: u64) -> bool {
        user_data & MARK != 0
    }

    pub(super) fn watch(&mut self, fd: BorrowedFd<'_>, ring: &mut Ring) -> Result<WatchId, StoreError> {
        let fd = duplicate(fd)?;
        let entry = self.watches.vacant_entry();
        let id = u32::try_from(entry.key()).expect("descriptor numbers fit in 31 bits");
        let watch = entry.insert(Watch { fd, leaving: false });
        poll(ring, borrow(&watch.fd), MARK | u64::from(id));
        Ok(WatchId(id))
    }

    pub(super) fn unwatch(&mut self, watch: WatchId, ring: &mut Ring) {
        let key = usize::try_from(watch.0).expect("32 bits fit in a usize");
        if let Some(known) = self.watches.get_mut(key).filter(|known| !known.leaving) {
            known.leaving = true;
            push(ring, opcode::PollRemove::new(MARK | u64::from(watch.0)).build().user_data(IGNORED));
        }
    }

    /// Takes a completion; returns whether it is a signal.
    pub(super) fn event(&mut self, event: Event, ring: &mut Ring, waker: &Arc<EventWaker>) -> bool {
        match event.user_data {
            IGNORED => false,
            WAKER => {
                waker.acknowledge();
                if !event.more {
                    poll(ring, waker.event(), WAKER);
                }
                true
            }
            _ => self.signal(event, ring),
        }
    }

    fn signal(&mut self, event: Event, ring: &mut Ring) -> bool {
        let key = usize::try_from(event.user_data & !MARK).expect("ids fit in 32 bits");
        let Some(watch) = self.watches.get(key) else { return false };
        if watch.leaving {
            if !event.more {
                self.watches.remove(key);
            }
            return false;
        }
        if !event.more {
            // The kernel ends a multishot poll when completions overflow. Beginning anew reports what is signalled.
            poll(ring, borrow(&watch.fd), event.user_data);
        }
        true
    }
}

fn poll(ring: &mut Ring, fd: BorrowedFd<'_>, user_data: u64) {
    let events = u32::try_from(libc::POLLIN).expect("a small constant");
    push(ring, opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events).multi(true).build().user_data(user_data));
}

fn push(ring: &mut Ring, entry: squeue::Entry) {
    // SAFETY: polls and their removals point to no memory.
    unsafe { ring.push(entry) }
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}
