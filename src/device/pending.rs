//! Requests in flight of one queue: the guard that makes sure each is finished exactly once.

#![allow(unsafe_code, reason = "the status byte lies in guest memory")]

use super::guest_bytes;
use super::request::{Kind, Status};
use super::ring::{Ring, RingFault};

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

/// One place per descriptor: a head can be in flight once.
pub(super) struct PendingTable {
    slots: Vec<Option<Pending>>,
    len: usize,
}

impl PendingTable {
    pub(super) fn new(ring_size: u16) -> Self {
        Self { slots: (0..ring_size).map(|_| None).collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the guest may make this head available.
    #[inline]
    pub(super) fn check_free(&self, head: u16) -> Result<(), RingFault> {
        match self.slots.get(usize::from(head)) {
            Some(None) => Ok(()),
            Some(Some(_)) | None => Err(RingFault::HeadInFlight(head)),
        }
    }

    /// # Panics
    /// When the head is in flight; see [`PendingTable::check_free`].
    #[inline]
    pub(super) fn insert(&mut self, head: u16, pending: Pending) {
        let slot = &mut self.slots[usize::from(head)];
        assert!(slot.is_none(), "a head is in flight once");
        *slot = Some(pending);
        self.len += 1;
    }

    /// # Panics
    /// When nothing is in flight under this tag: the volume reported a request twice.
    #[inline]
    pub(super) fn remove(&mut self, tag: u32) -> Pending {
        let slot = usize::try_from(tag).ok().and_then(|tag| self.slots.get_mut(tag));
        let pending = slot.and_then(Option::take).expect("the volume finishes each request once");
        self.len -= 1;
        pending
    }

    /// Nobody will finish these any more: what the end of the process means, for simulations of it.
    pub(super) fn abandon(&mut self) {
        self.slots.iter_mut().flatten().for_each(|pending| pending.finished = true);
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
        table.insert(3, pending(&guest));
        assert_eq!((table.check_free(3), table.len()), (Err(RingFault::HeadInFlight(3)), 1));
        table.remove(3).finish(&mut guest.ring(Notification::Flags), Status::Ok);
        assert_eq!((table.check_free(3), table.len()), (Ok(()), 0));
    }
}
