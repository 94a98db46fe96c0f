//! A guest for unit tests: a memory file with one ring in it, written by hand, so that it can be as wrong as a test wants.

#![allow(unsafe_code, reason = "the guest's side of shared memory")]

use super::memory::{Memory, RegionAddress};
use super::ring::{Notification, Ring, RingAddress, RingParts};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::sync::Arc;

pub(super) const SIZE: u16 = 8;
pub(super) const MEMORY_BYTES: u64 = 4 << 20;
/// Where tests may put data, headers and indirect tables.
pub(super) const DATA: u64 = 0x10000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const USER_BASE: u64 = 0x7000_0000_0000;

pub(super) struct Guest {
    pub(super) memory: Arc<Memory>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY_BYTES).unwrap();
        let region = RegionAddress { guest: 0, user: USER_BASE, size: MEMORY_BYTES, file_offset: 0 };
        Self { memory: Arc::new(Memory::map([(region, file)].into_iter()).unwrap()) }
    }

    pub(super) fn address() -> RingAddress {
        let [descriptors, available, used] = [DESCRIPTORS, AVAILABLE, USED].map(|offset| USER_BASE + offset);
        RingAddress { descriptors, available, used }
    }

    pub(super) fn ring(&self, notification: Notification) -> Ring {
        let parts = RingParts::locate(&self.memory, Self::address(), SIZE).unwrap();
        Ring::new(parts, SIZE, 0, notification)
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        let host = self.memory.contiguous(address, bytes.len() as u64).unwrap();
        // SAFETY: that many bytes are mapped there.
        unsafe { host.copy_from(bytes.as_ptr(), bytes.len()) }
    }

    pub(super) fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        let host = self.memory.contiguous(address, N as u64).unwrap();
        // SAFETY: that many bytes are mapped there.
        unsafe { host.cast::<[u8; N]>().read_unaligned() }
    }

    pub(super) fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.descriptor_at(DESCRIPTORS + 16 * u64::from(index), address, len, flags, next);
    }

    pub(super) fn descriptor_at(&self, place: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.put(place, &address.to_le_bytes());
        self.put(place + 8, &len.to_le_bytes());
        self.put(place + 12, &flags.to_le_bytes());
        self.put(place + 14, &next.to_le_bytes());
    }

    /// Links these (address, length, flags) into the table from descriptor 0 on.
    pub(super) fn chain(&self, parts: &[(u64, u32, u16)]) {
        for (index, (address, len, flags)) in (0..).zip(parts) {
            let next = if usize::from(index) + 1 < parts.len() { NEXT } else { 0 };
            self.descriptor(index, *address, *len, flags | next, index + 1);
        }
    }

    pub(super) fn header(&self, kind: u32, sector: u64) {
        self.put(DATA, &kind.to_le_bytes());
        self.put(DATA + 8, &sector.to_le_bytes());
    }

    pub(super) fn make_available(&self, head: u16) {
        let index = u16::from_le_bytes(self.get(AVAILABLE + 2));
        self.put(AVAILABLE + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        self.set_available_index(index.wrapping_add(1));
    }

    pub(super) fn set_available_index(&self, index: u16) {
        self.put(AVAILABLE + 2, &index.to_le_bytes());
    }

    pub(super) fn set_available_flags(&self, flags: u16) {
        self.put(AVAILABLE, &flags.to_le_bytes());
    }

    pub(super) fn set_used_event(&self, index: u16) {
        self.put(AVAILABLE + 4 + 2 * u64::from(SIZE), &index.to_le_bytes());
    }

    pub(super) fn used_index(&self) -> u16 {
        u16::from_le_bytes(self.get(USED + 2))
    }

    pub(super) fn set_used_index(&self, index: u16) {
        self.put(USED + 2, &index.to_le_bytes());
    }

    pub(super) fn used_flags(&self) -> u16 {
        u16::from_le_bytes(self.get(USED))
    }

    pub(super) fn used_entry(&self, slot: u64) -> (u32, u32) {
        let place = USED + 4 + 8 * slot;
        (u32::from_le_bytes(self.get(place)), u32::from_le_bytes(self.get(place + 4)))
    }

    pub(super) fn available_event(&self) -> u16 {
        u16::from_le_bytes(self.get(USED + 4 + 8 * u64::from(SIZE)))
    }
}
