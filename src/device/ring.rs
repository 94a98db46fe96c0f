//! A split virtqueue (virtio 1.2, section 2.7), seen from the device, owned by one thread.
//!
//! ```text
//!   descriptor table   16 bytes each: address, length, flags, next          written by the guest
//!   available ring     flags, idx, heads[size], used_event                  written by the guest
//!   used ring          flags, idx, {head, length}[size], avail_event        written by us
//! ```
//!
//! The three parts are translated once per memory table and then touched through raw pointers: that is what makes a
//! request cost tens of nanoseconds instead of hundreds. The guest may change what it writes at any time, so each field is
//! read once, with an atomic load, and the copy is checked.
//!
//! Ordering: the guest's stores before it raises `available.idx` are seen after our acquire load of it; our stores of data,
//! status and used entries are seen by whoever sees our release store of `used.idx`. The two decisions "must I interrupt"
//! and "may I sleep" store one index and load the other, so each has a full fence between the two.

#![allow(
    unsafe_code,
    reason = "rings lie in memory that another process changes; access is atomic, through raw pointers"
)]

use super::memory::Memory;
use std::mem::size_of;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;

/// Largest ring that virtio has.
pub(super) const RING_SIZE_MAX: u16 = 1 << 15;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 16;

/// "Do not kick me", in the used ring's flags (virtio 1.2, section 2.7.8).
const USED_F_NO_NOTIFY: u16 = 1;

/// What makes a ring unusable. It is given up until the front-end starts it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RingFault {
    #[error("the available index jumped ahead by {0}, more than the ring holds")]
    AvailableJump(u16),
    #[error("the available ring names descriptor {0}, which the table does not have")]
    HeadOutOfRange(u16),
    #[error("descriptor {0} was made available again before it was used")]
    HeadInFlight(u16),
    #[error("the chain at descriptor {0} has no byte for a status")]
    NoStatus(u16),
    #[error("the chain at descriptor {0} does not end")]
    Endless(u16),
}

/// Where a front-end says that a ring lies, in its own address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingAddress {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// Where it lies in ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingParts {
    descriptors: *const u8,
    available: *const u8,
    used: *const u8,
}

impl RingParts {
    /// `None` when a part is not wholly inside one region, or not aligned as virtio demands.
    pub(super) fn locate(memory: &Memory, address: RingAddress, size: u16) -> Option<Self> {
        let entries = u64::from(size);
        let part = |user: u64, len: u64, align: usize| {
            memory.at_user_address(user, len).filter(|host| host.addr() & (align - 1) == 0)
        };
        Some(Self {
            descriptors: part(address.descriptors, 16 * entries, 16)?,
            available: part(address.available, 6 + 2 * entries, 2)?,
            used: part(address.used, 6 + 8 * entries, 4)?,
        })
    }
}

/// A descriptor, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    /// Reads the descriptor at `place`, which may be anywhere: indirect tables need not be aligned.
    ///
    /// # Safety
    /// 16 bytes from `place` on must be mapped.
    #[inline]
    pub(super) unsafe fn read(place: *const u8) -> Self {
        let (address, rest) = if place.addr().is_multiple_of(size_of::<u64>()) {
            // SAFETY: mapped (caller) and aligned (just checked); the guest may write at the same time, hence atomics.
            unsafe {
                let words = place.cast::<AtomicU64>();
                ((*words).load(Ordering::Relaxed), (*words.add(1)).load(Ordering::Relaxed))
            }
        } else {
            // SAFETY: mapped (caller); volatile, so each byte is read once whatever the guest does meanwhile.
            let word = |at: usize| std::array::from_fn(|i| unsafe { place.add(at + i).read_volatile() });
            (u64::from_ne_bytes(word(0)), u64::from_ne_bytes(word(8)))
        };
        let [l0, l1, l2, l3, f0, f1, n0, n1] = rest.to_ne_bytes();
        Self {
            address: u64::from_le(address),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    #[inline]
    pub(super) fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

/// How the two sides tell each other that there is something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notification {
    /// `VIRTIO_F_EVENT_IDX`: each side names the index at which it wants to be told.
    EventIndex,
    /// Each side has a flag that says "do not tell me".
    Flags,
}

/// See the module's text. Must not outlive the memory table that its parts came from; its owner sees to that.
pub(super) struct Ring {
    parts: RingParts,
    size: u16,
    notification: Notification,
    next_available: u16,
    /// The available index as last loaded: up to here heads may be taken without looking again.
    seen_available: u16,
    next_used: u16,
    published_used: u16,
    /// `used.idx` at the last decision about an interrupt.
    decided_used: u16,
}

impl Ring {
    /// A ring that goes on where the front-end says (`next_available`) and where its used index stands.
    ///
    /// # Panics
    /// When `size` is not a power of two; the session has checked it.
    pub(super) fn new(parts: RingParts, size: u16, next_available: u16, notification: Notification) -> Self {
        assert!(size.is_power_of_two() && size <= RING_SIZE_MAX, "a ring's size is a power of two");
        let mut ring = Self {
            parts,
            size,
            notification,
            next_available,
            seen_available: next_available,
            next_used: 0,
            published_used: 0,
            decided_used: 0,
        };
        let used = u16::from_le(ring.used_u16(2).load(Ordering::Acquire));
        (ring.next_used, ring.published_used, ring.decided_used) = (used, used, used);
        ring
    }

    /// Goes on at another place of the same ring: the front-end moved its memory.
    pub(super) fn move_to(&mut self, parts: RingParts) {
        self.parts = parts;
    }

    pub(super) fn set_notification(&mut self, notification: Notification) {
        self.notification = notification;
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// The available index up to which heads were taken.
    pub(super) fn next_available(&self) -> u16 {
        self.next_available
    }

    /// The head of the next chain that the guest made available, if any.
    #[inline]
    pub(super) fn take(&mut self) -> Result<Option<u16>, RingFault> {
        if self.next_available == self.seen_available && !self.look()? {
            return Ok(None);
        }
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = u16::from_le(self.available_u16(4 + 2 * slot).load(Ordering::Relaxed));
        if head >= self.size {
            return Err(RingFault::HeadOutOfRange(head));
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(head))
    }

    /// Loads the available index. Whether there is something new.
    fn look(&mut self) -> Result<bool, RingFault> {
        let index = u16::from_le(self.available_u16(2).load(Ordering::Acquire));
        let ahead = index.wrapping_sub(self.next_available);
        if ahead > self.size {
            return Err(RingFault::AvailableJump(ahead));
        }
        self.seen_available = index;
        Ok(ahead != 0)
    }

    /// Where the descriptor table is, and how many descriptors it has.
    pub(super) fn table(&self) -> (*const u8, u16) {
        (self.parts.descriptors, self.size)
    }

    /// Puts a finished chain into the used ring; the guest sees it after [`Ring::publish`].
    #[inline]
    pub(super) fn push(&mut self, head: u16, written: u32) {
        let slot = usize::from(self.next_used & (self.size - 1));
        self.used_u32(4 + 8 * slot).store(u32::from(head).to_le(), Ordering::Relaxed);
        self.used_u32(8 + 8 * slot).store(written.to_le(), Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the guest everything pushed so far. Whether it wants an interrupt for it.
    pub(super) fn publish(&mut self) -> bool {
        if self.next_used == self.published_used {
            return false;
        }
        self.used_u16(2).store(self.next_used.to_le(), Ordering::Release);
        self.published_used = self.next_used;
        // The guest stores its wish, then looks at used.idx; we stored used.idx, now look at its wish.
        fence(Ordering::SeqCst);
        match self.notification {
            Notification::Flags => {
                let flags = u16::from_le(self.available_u16(0).load(Ordering::Relaxed));
                u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
            }
            Notification::EventIndex => {
                let before = std::mem::replace(&mut self.decided_used, self.next_used);
                let wish = 4 + 2 * usize::from(self.size);
                let event = u16::from_le(self.available_u16(wish).load(Ordering::Relaxed));
                event_passed(event, self.next_used, before)
            }
        }
    }

    /// Asks the guest not to kick while its ring is being watched anyway. With event indexes there is nothing to do: the
    /// guest kicks at the index named last, which lies behind.
    pub(super) fn refuse_kicks(&mut self) {
        if self.notification == Notification::Flags {
            self.used_u16(0).store(USED_F_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the guest to kick at the next chain, and looks once more. Whether it is safe to sleep.
    pub(super) fn ask_for_kicks(&mut self) -> Result<bool, RingFault> {
        match self.notification {
            Notification::Flags => self.used_u16(0).store(0, Ordering::Relaxed),
            Notification::EventIndex => {
                let event = self.used_u16(4 + 8 * usize::from(self.size));
                event.store(self.next_available.to_le(), Ordering::Relaxed);
            }
        }
        // We stored our wish, now look at available.idx; the guest stores that, then looks at our wish.
        fence(Ordering::SeqCst);
        self.look().map(|more| !more)
    }

    #[inline]
    fn available_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `offset` is even and at most 4 + 2 × size, within the part as located; 2-aligned; mapped for as long as
        // the owner keeps the memory table.
        unsafe { &*self.parts.available.add(offset).cast() }
    }

    #[inline]
    fn used_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `offset` is even and at most 4 + 8 × size, within the part as located; mapped as above.
        unsafe { &*self.parts.used.add(offset).cast() }
    }

    #[inline]
    fn used_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `offset` is a multiple of 4 and at most 8 × size, within the part as located; mapped as above.
        unsafe { &*self.parts.used.add(offset).cast() }
    }
}

/// Whether the index went past `event` on its way from `before` to `now` (virtio 1.2, section 2.7.10), all modulo 2¹⁶.
/// For example from 65534 to 1 it passed 65535 and 0 but not 1: an index counts as passed when the next one is reached.
fn event_passed(event: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests;
