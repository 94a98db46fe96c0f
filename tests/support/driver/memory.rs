//! The guest's memory: one memfd mapping that the device maps too. Used by the driver's queues only.
//!
//! The device writes it at any time, so it is never lent out as a slice; bytes are copied in and out by offset.
#![allow(unsafe_code, reason = "memory that another process writes cannot be a safe slice")]

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

pub struct GuestMemory {
    file: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread, and every access copies through raw pointers; who may touch which bytes is
// settled by the slots, each of which belongs to one queue.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    pub fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("guest-memory", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, u64::try_from(len).map_err(io::Error::other)?)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice replaces nothing.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(GuestMemory { file, base, len })
    }

    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Where `len` bytes at `offset` are; panics when they are not all inside.
    pub fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "{len} bytes at {offset} leave guest memory");
        // SAFETY: the offset is inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.pointer(offset, bytes.len());
        // SAFETY: both ranges are valid for that length, and a Rust slice never lies inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.pointer(offset, bytes.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no pointer into it outlives the queues that hold this value.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
