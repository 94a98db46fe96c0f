//! A guest with 32 read requests ready in its ring: made once, shown again and again by moving the available index.
//!
//! | address | content |
//! |---|---|
//! | 0 | descriptor table, 128 entries |
//! | 0x1000, 0x2000 | available ring, used ring |
//! | 0x3000 | 32 headers of 16 bytes |
//! | 0x4000 | 32 status bytes |
//! | 0x10000 | 32 data pages |

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::OwnedFd;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) const RING_SIZE: u16 = 128;
pub(crate) const BATCH: u16 = 32;
pub(crate) const MEMORY_BYTES: u64 = 1 << 20;

pub(crate) const DESCRIPTORS: u64 = 0;
pub(crate) const AVAILABLE: u64 = 0x1000;
pub(crate) const USED: u64 = 0x2000;
const HEADERS: u64 = 0x3000;
const STATUSES: u64 = 0x4000;
const DATA: u64 = 0x10000;
pub(crate) const DATA_BYTES: u32 = 4096;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

pub(crate) struct Guest {
    pub(crate) memory: GuestMemoryMmap,
    file: File,
    available: u16,
}

impl Guest {
    pub(crate) fn new() -> Guest {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd_create"));
        file.set_len(MEMORY_BYTES).expect("resize the memory file");
        let shared = FileOffset::new(file.try_clone().expect("duplicate a descriptor"), 0);
        let len = usize::try_from(MEMORY_BYTES).expect("fits");
        let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), len, Some(shared))]);
        let guest = Guest { memory: memory.expect("map the memory file"), file, available: 0 };
        (0..BATCH).for_each(|request| guest.put_request(request));
        for slot in 0..RING_SIZE {
            guest.put(AVAILABLE + 4 + 2 * u64::from(slot), 3 * (slot % BATCH));
        }
        guest
    }

    /// The memory file, for who maps it by itself.
    pub(crate) fn file(&self) -> OwnedFd {
        self.file.try_clone().expect("duplicate a descriptor").into()
    }

    /// Makes all requests available once more.
    pub(crate) fn submit(&mut self) {
        self.available = self.available.wrapping_add(BATCH);
        self.put(AVAILABLE + 2, self.available);
    }

    /// The available index.
    pub(crate) fn available(&self) -> u16 {
        self.available
    }

    /// The used index.
    pub(crate) fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).expect("inside the guest's memory")
    }

    fn put_request(&self, request: u16) {
        let (first, place) = (3 * request, u64::from(request));
        // Type 0, a read, and a sector.
        self.put(HEADERS + 16 * place + 8, 8 * place);
        self.put_descriptor(first, HEADERS + 16 * place, 16, NEXT);
        self.put_descriptor(first + 1, DATA + u64::from(DATA_BYTES) * place, DATA_BYTES, NEXT | WRITE);
        self.put_descriptor(first + 2, STATUSES + place, 1, WRITE);
    }

    fn put_descriptor(&self, index: u16, address: u64, len: u32, flags: u16) {
        let place = DESCRIPTORS + 16 * u64::from(index);
        self.put(place, address);
        self.put(place + 8, len);
        self.put(place + 12, flags);
        self.put(place + 14, index + 1);
    }

    fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).expect("inside the guest's memory");
    }
}
