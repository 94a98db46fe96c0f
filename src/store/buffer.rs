//! Memory that a store operation reads or fills: a scatter list, and whatever keeps that memory alive.
//!
//! A [`Buffer`] is moved into an operation and comes back with its completion, so memory cannot be freed or reused
//! while the kernel may still touch it. It is either heap memory of ours (page aligned, fit for O_DIRECT) or memory of a
//! guest, which the guest may change at any time: nothing here ever forms a reference to the bytes, only raw copies.

#![allow(unsafe_code, reason = "scatter lists of guest memory are raw pointers; every block below says why it holds")]

use smallvec::SmallVec;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::sync::Arc;

/// Alignment of heap buffers: a page, which satisfies every O_DIRECT requirement we know.
pub const HEAP_ALIGN: usize = 4096;

/// Segments kept in place; longer lists go to the heap. Four covers what Linux sends for up to 16 KiB.
const SEGMENTS_INLINE: usize = 4;

/// See the module's text. `len` is the sum of the segments.
pub struct Buffer {
    segments: SmallVec<[libc::iovec; SEGMENTS_INLINE]>,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the segments point into memory that `keep` owns or keeps mapped, and `keep` is Send + Sync; access goes through
// raw copies only, so moving the list to another thread moves no reference.
unsafe impl Send for Buffer {}

struct HeapMemory {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: plain heap memory without interior references; whoever holds the Buffer decides who accesses it.
unsafe impl Send for HeapMemory {}
// SAFETY: as above; a shared HeapMemory is only ever kept alive, never read through.
unsafe impl Sync for HeapMemory {}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        // SAFETY: `base` came from alloc_zeroed with this very layout and is freed only here.
        unsafe { dealloc(self.base, self.layout) }
    }
}

impl Buffer {
    /// Page-aligned heap memory of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), HEAP_ALIGN).expect("a page-aligned size below isize::MAX");
        // SAFETY: the layout's size is at least 1.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        let segment = libc::iovec { iov_base: base.cast(), iov_len: len };
        let segments = if len == 0 { SmallVec::new() } else { SmallVec::from_slice(&[segment]) };
        Self { segments, len, keep: Arc::new(HeapMemory { base, layout }) }
    }

    /// A heap buffer with a copy of `bytes`.
    pub fn copied_from(bytes: &[u8]) -> Self {
        let buffer = Self::zeroed(bytes.len());
        buffer.copy_in(0, bytes);
        buffer
    }

    /// A list of segments in memory that `keep` keeps mapped. Empty segments are dropped.
    ///
    /// # Safety
    /// Every segment must stay valid for reads and writes of its length for as long as `keep` lives, whoever else may
    /// change the bytes meanwhile.
    pub unsafe fn from_segments(segments: impl Iterator<Item = libc::iovec>, keep: Arc<dyn Any + Send + Sync>) -> Self {
        let segments: SmallVec<[libc::iovec; SEGMENTS_INLINE]> =
            segments.filter(|segment| segment.iov_len != 0).collect();
        let len = segments.iter().map(|segment| segment.iov_len).sum();
        Self { segments, len, keep }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The scatter list, for the kernel.
    pub fn segments(&self) -> &[libc::iovec] {
        &self.segments
    }

    /// Whether every segment begins and ends on a multiple of `align` (a power of two).
    pub fn is_aligned(&self, align: usize) -> bool {
        let ragged = |segment: &libc::iovec| (segment.iov_base as usize | segment.iov_len) & (align - 1) != 0;
        !self.segments.iter().any(ragged)
    }

    /// The part from `offset` of `len` bytes, sharing the memory.
    ///
    /// # Panics
    /// When the part does not lie within the buffer.
    pub fn slice(&self, offset: usize, len: usize) -> Buffer {
        let segments = self.cut(offset, len).collect();
        Buffer { segments, len, keep: Arc::clone(&self.keep) }
    }

    /// Copies `bytes` into the buffer from `offset` on.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let mut rest = bytes;
        for segment in self.cut(offset, bytes.len()) {
            let (now, later) = rest.split_at(segment.iov_len);
            // SAFETY: `cut` stays within our segments, which are valid for writes of their length (type invariant), and
            // `now` has exactly that length; the two cannot overlap because nobody forms a slice of buffer memory.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), segment.iov_base.cast(), now.len()) }
            rest = later;
        }
    }

    /// Copies the buffer's content from `offset` on into `bytes`, filling all of it.
    ///
    /// # Panics
    /// When the buffer is too short.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let len = bytes.len();
        let mut rest = bytes;
        for segment in self.cut(offset, len) {
            let (now, later) = rest.split_at_mut(segment.iov_len);
            // SAFETY: as in `copy_in`, with reads instead of writes.
            unsafe { std::ptr::copy_nonoverlapping(segment.iov_base.cast(), now.as_mut_ptr(), now.len()) }
            rest = later;
        }
    }

    /// Sets `len` bytes from `offset` on to zero.
    ///
    /// # Panics
    /// When the range does not lie within the buffer.
    pub fn fill_zero(&self, offset: usize, len: usize) {
        for segment in self.cut(offset, len) {
            // SAFETY: `cut` stays within our segments, valid for writes of their length.
            unsafe { std::ptr::write_bytes(segment.iov_base.cast::<u8>(), 0, segment.iov_len) }
        }
    }

    /// A copy of the whole content.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.copy_out(0, &mut bytes);
        bytes
    }

    /// The segments that cover the given part.
    fn cut(&self, offset: usize, len: usize) -> impl Iterator<Item = libc::iovec> + '_ {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a part must lie within its buffer");
        let (mut skip, mut left) = (offset, len);
        self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(segment.iov_len);
            let taken = left.min(segment.iov_len - skipped);
            skip -= skipped;
            left -= taken;
            // SAFETY: `skipped` is at most the segment's length, so the pointer stays within the same allocation.
            let base = unsafe { segment.iov_base.cast::<u8>().add(skipped) };
            (taken != 0).then(|| libc::iovec { iov_base: base.cast(), iov_len: taken })
        })
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes in {} segments)", self.len, self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered() -> Buffer {
        let whole = Buffer::zeroed(12);
        let parts = [whole.slice(0, 3), whole.slice(3, 4), whole.slice(7, 5)];
        let segments: Vec<_> = parts.iter().flat_map(|part| part.segments().to_vec()).collect();
        // SAFETY: the segments lie in the memory that `keep` owns.
        unsafe { Buffer::from_segments(segments.into_iter(), Arc::clone(&whole.keep)) }
    }

    #[test]
    fn copies_cross_segment_borders() {
        let buffer = scattered();
        buffer.copy_in(2, b"abcdefgh");
        let mut out = [0; 4];
        buffer.copy_out(4, &mut out);
        assert_eq!(&out, b"cdef");
        assert_eq!(buffer.to_vec(), b"\0\0abcdefgh\0\0");
    }

    #[test]
    fn a_slice_shares_its_buffers_memory() {
        let buffer = scattered();
        buffer.slice(6, 2).copy_in(0, b"xy");
        buffer.fill_zero(7, 1);
        assert_eq!(buffer.to_vec(), b"\0\0\0\0\0\0x\0\0\0\0\0");
    }

    #[test]
    fn heap_memory_is_page_aligned() {
        assert!(Buffer::zeroed(8192).is_aligned(HEAP_ALIGN));
        assert!(!Buffer::zeroed(8192).slice(512, 512).is_aligned(HEAP_ALIGN));
        assert!(Buffer::zeroed(0).is_empty());
    }

    #[test]
    #[should_panic(expected = "within its buffer")]
    fn a_part_outside_is_refused() {
        Buffer::zeroed(8).slice(4, 5);
    }
}
