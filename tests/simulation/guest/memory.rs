//! The guest's memory: a file that the device maps too, as it maps a VMM's.

#![allow(unsafe_code, reason = "memory shared with the device is reached through raw copies")]

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where the memory begins in the guest's physical address space.
pub const GUEST_BASE: u64 = 1 << 32;

/// Where it would begin in a VMM's address space.
pub const USER_BASE: u64 = 1 << 44;

pub struct GuestMemory {
    file: OwnedFd,
    base: *mut u8,
    len: usize,
}

impl GuestMemory {
    pub fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("simulated guest", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, u64::try_from(len).expect("a length fits in 64 bits"))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place that the kernel picks touches nothing that exists.
        let base = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &file, 0)? };
        Ok(Self { file, base: base.cast(), len })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    /// When the bytes do not lie within the memory.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let place = self.place(at, bytes.len());
        // SAFETY: `place` checked that the bytes lie within the mapping; nobody holds references into it, and the device
        // runs on this very thread, so nothing writes at the same time.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
    }

    /// # Panics
    /// As [`GuestMemory::write`].
    pub fn read(&self, at: u64, bytes: &mut [u8]) {
        let place = self.place(at, bytes.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) }
    }

    pub fn write_u16(&self, at: u64, value: u16) {
        self.write(at, &value.to_le_bytes());
    }

    pub fn read_u16(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    pub fn read_u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// The address of a byte of the guest's physical memory in this process.
    fn place(&self, at: u64, len: usize) -> *mut u8 {
        let offset = at.checked_sub(GUEST_BASE).and_then(|offset| usize::try_from(offset).ok());
        let offset = offset.filter(|offset| offset.checked_add(len).is_some_and(|end| end <= self.len));
        let offset = offset.expect("the guest touches its own memory only");
        // SAFETY: just checked to lie within the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the very mapping made in `new`; no pointer into it is kept.
        let unmapped = unsafe { munmap(self.base.cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped");
    }
}
