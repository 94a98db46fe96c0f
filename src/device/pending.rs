//! Requests in flight of one queue: the guard that makes sure each is finished exactly once.
//!
//! A request's tag is its head, until a request with this head was answered while it was still under way: its tag
//! then stays with what is under way, and the head gets another.

#![allow(unsafe_code, reason = "the status byte lies in guest memory")]

use super::guest_bytes;
use super::request::{Kind, Status};
use super::ring::{RING_SIZE_MAX, Ring, RingFault};

/// A request that the guest waits for. Must end in [`Pending::finish`]; dropping it otherwise is a fault of ours and
/// panics. There is no way out for a guest that is gone or hostile: its memory stays mapped until here, so the answer can
/// always be written.
#[must_use]
pub(super) struct Pending {
    head: u16,
    status: *mut u8,
    /// Data bytes that the guest gets if all goes well.
    written: u32,
    /// Data bytes that move, for the counters.
    pub(super) bytes: u64,
    pub(super) kind: Kind,
    /// Which memory table `status` points into.
    pub(super) table: u64,
    finished: bool,
}

impl Pending {
    /// `status` must stay mapped until the request is finished; whoever finishes it holds the table numbered `table`.
    pub(super) fn new(head: u16, status: *mut u8, kind: Kind, table: u64) -> Self {
        Self { head, status, written: 0, bytes: 0, kind, table, finished: false }
    }

    /// How many bytes of data the guest gets if all goes well.
    #[inline]
    pub(super) fn with_written(mut self, written: u32) -> Self {
        self.written = written;
        self
    }

    /// Writes the status byte and the used entry.
    #[inline]
    pub(super) fn finish(mut self, ring: &mut Ring, status: Status) {
        self.finished = true;
        // SAFETY: the worker keeps the memory table of every pending request until it is finished.
        unsafe { guest_bytes::write_byte(self.status, status.byte()) }
        let data = if status == Status::Ok { self.written } else { 0 };
        ring.push(self.head, data + 1);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // While another panic unwinds, a second one would abort the process and hide the first.
        if !self.finished && !std::thread::panicking() {
            panic!("the guest's request at descriptor {} was dropped unfinished", self.head);
        }
    }
}

/// From one tag of a head to its next.
const TAG_STEP: u32 = RING_SIZE_MAX as u32;

/// The head of a request with this tag.
#[inline]
pub(super) fn head_of(tag: u32) -> usize {
    (tag % TAG_STEP) as usize
}

/// One place per descriptor: a head can be in flight once.
pub(super) struct PendingTable {
    slots: Vec<Slot>,
    len: usize,
}

struct Slot {
    /// Of the request in flight, or of the next.
    tag: u32,
    pending: Option<Pending>,
}

impl PendingTable {
    pub(super) fn new(ring_size: u16) -> Self {
        let slots = (0..ring_size).map(|head| Slot { tag: u32::from(head), pending: None });
        Self { slots: slots.collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the guest may make this head available.
    #[inline]
    pub(super) fn check_free(&self, head: u16) -> Result<(), RingFault> {
        match self.slots.get(usize::from(head)) {
            Some(Slot { pending: None, .. }) => Ok(()),
            Some(Slot { pending: Some(_), .. }) | None => Err(RingFault::HeadInFlight(head)),
        }
    }

    /// The tag under which the request is in flight.
    ///
    /// # Panics
    /// When the head is in flight; see [`PendingTable::check_free`].
    #[inline]
    pub(super) fn insert(&mut self, head: u16, pending: Pending) -> u32 {
        let slot = &mut self.slots[usize::from(head)];
        assert!(slot.pending.is_none(), "a head is in flight once");
        slot.pending = Some(pending);
        self.len += 1;
        slot.tag
    }

    /// The request in flight under this tag, if there is one.
    #[inline]
    pub(super) fn remove(&mut self, tag: u32) -> Option<Pending> {
        let slot = self.slots.get_mut(head_of(tag)).filter(|slot| slot.tag == tag);
        let pending = slot.and_then(|slot| slot.pending.take())?;
        self.len -= 1;
        Some(pending)
    }

    /// Gives the head of a request that is not in flight any more another tag, one that is not in use.
    pub(super) fn retire_tag(&mut self, tag: u32, in_use: impl Fn(u32) -> bool) {
        let slot = &mut self.slots[head_of(tag)];
        while in_use(slot.tag) {
            slot.tag = slot.tag.wrapping_add(TAG_STEP);
        }
    }

    /// Nobody will finish these any more: what the end of the process means, for simulations of it.
    pub(super) fn abandon(&mut self) {
        self.slots.iter_mut().filter_map(|slot| slot.pending.as_mut()).for_each(|pending| pending.finished = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ring::Notification;
    use crate::device::test_guest::{DATA, Guest, SIZE};

    fn pending(guest: &Guest) -> Pending {
        Pending::new(3, guest.memory.contiguous(DATA, 1).unwrap(), Kind::Read, 0)
    }

    #[test]
    fn a_finished_request_has_a_status_and_a_used_entry() {
        let guest = Guest::new();
        let mut ring = guest.ring(Notification::Flags);
        for (status, byte, len) in [(Status::Ok, 0, 513), (Status::IoError, 1, 1), (Status::Unsupported, 2, 1)] {
            let slot = u64::from(guest.used_index());
            pending(&guest).with_written(512).finish(&mut ring, status);
            ring.publish();
            assert_eq!((guest.get::<1>(DATA), guest.used_entry(slot)), ([byte], (3, len)));
        }
    }

    #[test]
    #[should_panic(expected = "dropped unfinished")]
    fn a_request_cannot_be_forgotten() {
        drop(pending(&Guest::new()));
    }

    #[test]
    fn a_head_in_flight_cannot_be_made_available_again() {
        let guest = Guest::new();
        let mut table = PendingTable::new(SIZE);
        assert_eq!(table.check_free(3), Ok(()));
        let tag = table.insert(3, pending(&guest));
        assert_eq!((table.check_free(3), table.len()), (Err(RingFault::HeadInFlight(3)), 1));
        table.remove(tag).unwrap().finish(&mut guest.ring(Notification::Flags), Status::Ok);
        assert_eq!((table.check_free(3), table.len()), (Ok(()), 0));
    }

    #[test]
    fn a_head_gets_tags_that_nothing_under_way_has() {
        let guest = Guest::new();
        let (mut table, mut ring) = (PendingTable::new(SIZE), guest.ring(Notification::Flags));
        let mut late = Vec::new();
        for round in 0..4 {
            let tag = table.insert(3, pending(&guest));
            assert_eq!((head_of(tag), late.contains(&tag)), (3, false), "round {round}");
            table.remove(tag).unwrap().finish(&mut ring, Status::IoError);
            late.push(tag);
            table.retire_tag(tag, |tag| late.contains(&tag));
            assert!(table.remove(tag).is_none(), "what is late is not in flight");
        }
    }
}
