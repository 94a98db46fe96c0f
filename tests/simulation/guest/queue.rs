//! The driver's side of one split virtqueue (virtio 1.2, section 2.7), written for this simulation alone.
//!
//! ```text
//!   descriptor table | available ring | used ring | slots: header, status, indirect table, data
//! ```
//! Each request has a slot, and each slot its own run of descriptors, so nothing needs to be allocated.

use super::chain::{self, DESCRIPTORS_MAX, Direction, Part, Places};
use super::memory::GuestMemory;
use crate::rng::Rng;
use crate::workload::Asked;

/// Entries of the ring: room for every slot's longest chain.
pub const RING_SIZE: u16 = 128;

/// Requests that one queue can have in flight.
pub const SLOTS: usize = 8;

const DESCRIPTOR_BYTES: u64 = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

/// A status that no device answers.
const STATUS_UNANSWERED: u8 = 0xee;
const STATUS_OK: u8 = 0;

/// Space for the longest request's data.
const DATA_BYTES: u64 = 512 << 10;
const SLOT_BYTES: u64 = DATA_BYTES + 4096;

/// Bytes of guest memory that a queue needs.
pub const QUEUE_BYTES: u64 = 4096 + SLOTS_U64 * SLOT_BYTES;
const SLOTS_U64: u64 = 8;

const _: () = assert!(SLOTS * DESCRIPTORS_MAX <= RING_SIZE as usize && SLOTS_U64 == SLOTS as u64);

/// Guest-physical addresses of the ring's parts.
#[derive(Debug, Clone, Copy)]
pub struct RingPlaces {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

pub struct GuestQueue {
    ring: RingPlaces,
    slots_at: u64,
    available: u16,
    used: u16,
    slots: [Option<Slot>; SLOTS],
}

#[derive(Debug)]
struct Slot {
    tag: u32,
    bytes_in: u64,
}

/// What the device answered.
#[derive(Debug)]
pub struct Answered {
    pub tag: u32,
    /// The data of a read that succeeded.
    pub result: Result<Vec<u8>, u8>,
}

impl GuestQueue {
    /// A fresh queue in the memory from `at` on.
    pub fn new(memory: &GuestMemory, at: u64) -> Self {
        let ring = RingPlaces { descriptors: at, available: at + 2048, used: at + 2560 };
        memory.write(at, &[0; 4096]);
        Self { ring, slots_at: at + 4096, available: 0, used: 0, slots: std::array::from_fn(|_| None) }
    }

    pub fn ring(&self) -> RingPlaces {
        self.ring
    }

    /// Makes a request available to the device.
    ///
    /// # Panics
    /// When all slots are in use.
    pub fn submit(&mut self, memory: &GuestMemory, rng: &mut Rng, tag: u32, asked: &Asked, content: &[u8]) {
        let slot = self.slots.iter().position(Option::is_none).expect("a free slot");
        let places = self.places(slot);
        let (header, payload) = chain::header_and_payload(asked, content);
        memory.write(places.header, &header);
        memory.write(places.data, &payload);
        memory.write(places.status, &[STATUS_UNANSWERED]);
        let bytes_in = chain::bytes_in(asked);
        let payload_len = u64::try_from(payload.len()).expect("a small request");
        let parts = chain::layout(rng, places, payload_len, bytes_in);
        let first = u16::try_from(slot * DESCRIPTORS_MAX).expect("within the ring");
        if rng.one_in(2) {
            let table = places.header + 512;
            write_chain(memory, table, 0, &parts);
            let len = u32::try_from(parts.len()).expect("a short chain") * 16;
            write_descriptor(memory, self.descriptor(first), table, len, FLAG_INDIRECT, 0);
        } else {
            write_chain(memory, self.ring.descriptors, first, &parts);
        }
        self.slots[slot] = Some(Slot { tag, bytes_in });
        let entry = self.ring.available + 4 + 2 * u64::from(self.available % RING_SIZE);
        memory.write_u16(entry, first);
        self.available = self.available.wrapping_add(1);
        memory.write_u16(self.ring.available + 2, self.available);
    }

    /// Collects what the device has put into the used ring.
    ///
    /// # Errors
    /// When the used ring names a chain that is not in flight, or the device wrote less than it says.
    pub fn collect(&mut self, memory: &GuestMemory, answers: &mut Vec<Answered>) -> Result<(), String> {
        while memory.read_u16(self.ring.used + 2) != self.used {
            let entry = self.ring.used + 4 + 8 * u64::from(self.used % RING_SIZE);
            let (head, written) = (memory.read_u32(entry), u64::from(memory.read_u32(entry + 4)));
            self.used = self.used.wrapping_add(1);
            answers.push(self.answered(memory, head, written)?);
        }
        Ok(())
    }

    fn answered(&mut self, memory: &GuestMemory, head: u32, written: u64) -> Result<Answered, String> {
        let head = usize::try_from(head).map_err(|_| "a head beyond the ring")?;
        let slot = self.slots.get_mut(head / DESCRIPTORS_MAX).filter(|_| head % DESCRIPTORS_MAX == 0);
        let slot = slot.and_then(Option::take);
        let Slot { tag, bytes_in } = slot.ok_or(format!("invariant 5: chain {head} is used, and is not in flight"))?;
        let places = self.places(head / DESCRIPTORS_MAX);
        let mut status = [0];
        memory.read(places.status, &mut status);
        if status[0] != STATUS_OK {
            let answered = status[0] != STATUS_UNANSWERED;
            return if answered { Ok(Answered { tag, result: Err(status[0]) }) } else { Err("no status".to_owned()) };
        }
        if written != bytes_in + 1 {
            return Err(format!("the device says that it wrote {written} bytes, not {}", bytes_in + 1));
        }
        let mut data = vec![0; usize::try_from(bytes_in).expect("small")];
        memory.read(places.data, &mut data);
        Ok(Answered { tag, result: Ok(data) })
    }

    fn places(&self, slot: usize) -> Places {
        let at = self.slots_at + SLOT_BYTES * u64::try_from(slot).expect("a small index");
        Places { header: at, status: at + 64, data: at + 4096 }
    }

    fn descriptor(&self, index: u16) -> u64 {
        self.ring.descriptors + DESCRIPTOR_BYTES * u64::from(index)
    }
}

fn write_chain(memory: &GuestMemory, table: u64, first: u16, parts: &[Part]) {
    for (index, part) in (first..).zip(parts) {
        let is_last = usize::from(index - first) + 1 == parts.len();
        let direction = if part.direction == Direction::In { FLAG_WRITE } else { 0 };
        let (next_flag, next) = if is_last { (0, 0) } else { (FLAG_NEXT, index + 1) };
        let len = u32::try_from(part.len).expect("a small request");
        let at = table + DESCRIPTOR_BYTES * u64::from(index);
        write_descriptor(memory, at, part.address, len, direction | next_flag, next);
    }
}

fn write_descriptor(memory: &GuestMemory, at: u64, address: u64, len: u32, flags: u16, next: u16) {
    memory.write(at, &address.to_le_bytes());
    memory.write(at + 8, &len.to_le_bytes());
    memory.write_u16(at + 12, flags);
    memory.write_u16(at + 14, next);
}
