//! A descriptor chain turned into two lists of host memory: what the guest lets us read, and what it lets us write.
//!
//! Nothing is believed: addresses are translated and checked, loops end, tables have limits. A chain that is wrong but
//! still has a byte for the status is *broken*: it will be answered with an error. One without is a [`RingFault`].

#![allow(unsafe_code, reason = "descriptor tables are guest memory")]

use super::config_space::SEGMENTS_MAX;
use super::guest_bytes;
use super::memory::Memory;
use super::ring::{DESCRIPTOR_BYTES, Descriptor, Ring, RingFault};
use libc::iovec;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

/// Longest indirect table: what QEMU allows. A conforming driver stays within the ring's size.
const INDIRECT_MAX: u32 = 1024;

/// Most pieces of host memory in one chain that is not broken, so that any store can take them in one call (IOV_MAX is 1024).
const PIECES_MAX: usize = 1000;

/// Descriptors with content: data, header, status.
const DESCRIPTORS_MAX: u32 = SEGMENTS_MAX + 2;

/// Scratch space of a queue, used for one chain after the other so that nothing is allocated per request.
#[derive(Default)]
pub(super) struct Chain {
    pub(super) readable: Vec<iovec>,
    /// Without the status byte, once collected.
    pub(super) writable: Vec<iovec>,
    /// What is wrong with the chain, if anything.
    pub(super) broken: Option<&'static str>,
    filled: u32,
    status_known: bool,
}

/// The table being walked.
struct Table {
    base: *const u8,
    entries: u32,
    indirect: bool,
}

impl Chain {
    /// Collects the chain at `head`, which the ring has checked. Returns where its status byte goes.
    pub(super) fn collect(&mut self, ring: &Ring, memory: &Memory, head: u16) -> Result<*mut u8, RingFault> {
        self.clear();
        self.walk(ring, memory, head)?;
        let status = if self.status_known { guest_bytes::take_last(&mut self.writable) } else { None };
        status.ok_or(RingFault::NoStatus(head))
    }

    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.broken = None;
        self.filled = 0;
        self.status_known = false;
    }

    fn walk(&mut self, ring: &Ring, memory: &Memory, head: u16) -> Result<(), RingFault> {
        let (base, size) = ring.table();
        let mut table = Table { base, entries: u32::from(size), indirect: false };
        let mut index = head;
        let mut left = table.entries;
        while left != 0 {
            left -= 1;
            // SAFETY: `index` is below the number of entries (checked for the head by the ring, for others below), and the
            // table has that many, mapped.
            let descriptor = unsafe { Descriptor::read(table.base.add(usize::from(index) * DESCRIPTOR_BYTES)) };
            if descriptor.has(VRING_DESC_F_INDIRECT) && !table.indirect {
                table = self.enter(memory, descriptor).ok_or(RingFault::NoStatus(head))?;
                (index, left) = (0, table.entries);
                continue;
            }
            self.add(memory, descriptor);
            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            if u32::from(descriptor.next) >= table.entries {
                self.broken = Some("a descriptor's successor is outside the table");
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(RingFault::Endless(head))
    }

    /// The indirect table that a descriptor names. `None` when it cannot be one.
    fn enter(&mut self, memory: &Memory, descriptor: Descriptor) -> Option<Table> {
        let entries = descriptor.len / 16;
        let valid = descriptor.len.is_multiple_of(16) && (1..=INDIRECT_MAX).contains(&entries);
        let base = memory.contiguous(descriptor.address, u64::from(descriptor.len)).filter(|_| valid)?;
        if descriptor.has(VRING_DESC_F_NEXT) {
            self.broken = Some("an indirect descriptor has a successor");
        }
        Some(Table { base, entries, indirect: true })
    }

    #[inline]
    fn add(&mut self, memory: &Memory, descriptor: Descriptor) {
        if descriptor.has(VRING_DESC_F_INDIRECT) {
            self.broken = Some("an indirect table names another");
            return;
        }
        if descriptor.len == 0 {
            return;
        }
        self.filled += 1;
        let pieces = self.readable.len() + self.writable.len();
        if self.filled > DESCRIPTORS_MAX || pieces >= PIECES_MAX {
            self.broken = Some("more segments than seg_max");
            // The status comes last, so keep the last writable segment only.
            self.readable.clear();
            self.writable.clear();
        }
        if descriptor.has(VRING_DESC_F_WRITE) {
            self.add_writable(memory, descriptor);
        } else {
            self.add_readable(memory, descriptor);
        }
        // One descriptor may be cut into as many pieces as there are regions.
        if self.readable.len() + self.writable.len() > PIECES_MAX {
            self.broken = Some("more pieces than a store takes at once");
        }
    }

    #[inline]
    fn add_writable(&mut self, memory: &Memory, descriptor: Descriptor) {
        let before = self.writable.len();
        let writable = &mut self.writable;
        self.status_known = memory.pieces(descriptor.address, descriptor.len, |piece| writable.push(piece));
        if !self.status_known {
            self.writable.truncate(before);
            self.broken = Some("an address outside the guest's memory");
        }
    }

    #[inline]
    fn add_readable(&mut self, memory: &Memory, descriptor: Descriptor) {
        if !self.writable.is_empty() {
            self.broken = Some("a readable descriptor after a writable one");
            return;
        }
        let readable = &mut self.readable;
        if !memory.pieces(descriptor.address, descriptor.len, |piece| readable.push(piece)) {
            self.broken = Some("an address outside the guest's memory");
        }
    }
}

#[cfg(test)]
mod tests;
