//! Small copies between guest memory and ours, for headers and such. Data itself never passes here: it goes from store to
//! guest by the store's hand.

#![allow(
    unsafe_code,
    reason = "guest memory is touched through raw pointers only, because the guest changes it at will"
)]

use libc::iovec;

/// Takes `N` bytes off the front of the segments. `None`, with nothing taken, when they hold fewer. Each byte is read once.
#[inline]
pub(super) fn take_front<const N: usize>(segments: &mut [iovec]) -> Option<[u8; N]> {
    match segments.first_mut() {
        Some(first) if first.iov_len >= N => Some(take_whole(first)),
        Some(_) | None => take_scattered(segments),
    }
}

/// What nearly every driver sends: a header in one piece. One wide load, because putting the header together from bytes
/// and then reading it by words costs more than all else that is done to it.
#[inline]
fn take_whole<const N: usize>(segment: &mut iovec) -> [u8; N] {
    // SAFETY: the segment is mapped guest memory of at least `N` bytes (the caller checked); volatile, so each is read once.
    let bytes = unsafe { segment.iov_base.cast::<[u8; N]>().read_volatile() };
    // SAFETY: `N` is at most the segment's length.
    segment.iov_base = unsafe { segment.iov_base.cast::<u8>().add(N) }.cast();
    segment.iov_len -= N;
    bytes
}

fn take_scattered<const N: usize>(segments: &mut [iovec]) -> Option<[u8; N]> {
    let available: usize = segments.iter().map(|segment| segment.iov_len).sum();
    if available < N {
        return None;
    }
    let mut bytes = [0; N];
    let mut rest = &mut bytes[..];
    for segment in segments {
        let now = rest.len().min(segment.iov_len);
        let (part, later) = rest.split_at_mut(now);
        for (i, byte) in part.iter_mut().enumerate() {
            // SAFETY: `i` is below the segment's length, and segments are mapped guest memory.
            *byte = unsafe { segment.iov_base.cast::<u8>().add(i).read_volatile() };
        }
        // SAFETY: `now` is at most the segment's length.
        segment.iov_base = unsafe { segment.iov_base.cast::<u8>().add(now) }.cast();
        segment.iov_len -= now;
        if later.is_empty() {
            break;
        }
        rest = later;
    }
    Some(bytes)
}

/// Takes the last byte of the segments away and says where it is. `None` when there is none.
pub(super) fn take_last(segments: &mut [iovec]) -> Option<*mut u8> {
    let last = segments.iter_mut().rev().find(|segment| segment.iov_len != 0)?;
    last.iov_len -= 1;
    // SAFETY: within the segment, whose length was at least one.
    Some(unsafe { last.iov_base.cast::<u8>().add(last.iov_len) })
}

/// Fills the segments' front with as much of `bytes` as fits; returns how much that was.
pub(super) fn fill_front(segments: &[iovec], bytes: &[u8]) -> usize {
    let mut rest = bytes;
    for segment in segments {
        let (part, later) = rest.split_at(rest.len().min(segment.iov_len));
        for (i, byte) in part.iter().enumerate() {
            // SAFETY: `i` is below the segment's length, and segments are mapped guest memory.
            unsafe { segment.iov_base.cast::<u8>().add(i).write_volatile(*byte) }
        }
        rest = later;
    }
    bytes.len() - rest.len()
}

/// Writes one byte of guest memory.
///
/// # Safety
/// `place` must be mapped and writable.
pub(super) unsafe fn write_byte(place: *mut u8, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { place.write_volatile(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(parts: &mut [&mut [u8]]) -> Vec<iovec> {
        parts.iter_mut().map(|part| iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect()
    }

    #[test]
    fn a_header_may_be_split_anywhere() {
        let (mut a, mut b, mut c) = (*b"ab", *b"", *b"cdef");
        let mut parts = [&mut a[..], &mut b[..], &mut c[..]];
        let mut list = segments(&mut parts);
        assert_eq!(take_front::<5>(&mut list), Some(*b"abcde"));
        assert_eq!(list.iter().map(|part| part.iov_len).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(take_front::<2>(&mut list), None);
        assert_eq!(take_front::<1>(&mut list), Some(*b"f"));
    }

    #[test]
    fn the_last_byte_is_that_of_the_last_segment_that_has_any() {
        let (mut a, mut b) = (*b"xy", *b"");
        let place = a.as_mut_ptr().wrapping_add(1);
        let mut parts = [&mut a[..], &mut b[..]];
        let mut list = segments(&mut parts);
        assert_eq!(take_last(&mut list), Some(place));
        assert_eq!(list[0].iov_len, 1);
        assert_eq!(take_last(&mut []), None);
    }

    #[test]
    fn filling_stops_where_the_room_ends() {
        let (mut a, mut b) = (*b"..", *b"...");
        let mut parts = [&mut a[..], &mut b[..]];
        let list = segments(&mut parts);
        assert_eq!(fill_front(&list, b"1234567"), 5);
        assert_eq!((&a, &b), (b"12", b"345"));
    }
}
