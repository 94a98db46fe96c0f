//! How much of a file is written space: what a write there changes is data alone, so a device flush makes it durable.

#![allow(unsafe_code, reason = "FIEMAP has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Extents asked for at once; a file that is written as a whole mostly has a few.
const EXTENTS: usize = 32;

/// Calls for one file, after which the rest counts as not written. With the extents above this covers a 16 MiB object of
/// 4 KiB fragments.
const CALLS_MAX: usize = 128;

/// `FS_IOC_FIEMAP`, `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;

/// The last extent of the file.
const EXTENT_LAST: u32 = 0x1;

/// `struct fiemap` of linux/fiemap.h with room for extents.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// The length of the part from the file's beginning that is written space throughout: no hole, nothing preallocated,
/// delayed, encoded or shared. Zero when the file system does not tell.
pub(super) fn written_len(file: impl AsFd) -> u64 {
    prefix(&file).unwrap_or(0)
}

fn prefix(file: &impl AsFd) -> io::Result<u64> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut end = 0;
    for _ in 0..CALLS_MAX {
        let map = fiemap(file, end, size.saturating_sub(end))?;
        let count = usize::try_from(map.mapped_extents).unwrap_or(0).min(EXTENTS);
        let advanced = follow(&map.extents[..count], &mut end);
        if end >= size || count == 0 || advanced == Follow::Stopped {
            break;
        }
    }
    Ok(end.min(size))
}

#[derive(PartialEq, Eq)]
enum Follow {
    Stopped,
    GoOn,
}

/// Moves `end` along the extents for as long as they are written and adjoining.
fn follow(extents: &[Extent], end: &mut u64) -> Follow {
    for extent in extents {
        // An extent may begin before the part that was asked for.
        if extent.logical > *end || extent.flags & !EXTENT_LAST != 0 {
            return Follow::Stopped;
        }
        *end = extent.logical.saturating_add(extent.length);
        if extent.flags & EXTENT_LAST != 0 {
            return Follow::Stopped;
        }
    }
    Follow::GoOn
}

fn fiemap(file: &impl AsFd, start: u64, length: u64) -> io::Result<Fiemap> {
    let extent_count = u32::try_from(EXTENTS).expect("a small constant");
    let extents = [Extent::default(); EXTENTS];
    let mut map = Fiemap { start, length, flags: 0, mapped_extents: 0, extent_count, reserved: 0, extents };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; `map` has the kernel's layout and room for the
    // `extent_count` extents that it announces.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FIEMAP, std::ptr::from_mut(&mut map)) };
    if result == 0 { Ok(map) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, length: u64, flags: u32) -> Extent {
        Extent { logical, length, flags, ..Extent::default() }
    }

    #[test]
    fn written_space_ends_at_the_first_gap_or_unwritten_extent() {
        const UNWRITTEN: u32 = 0x800;
        let cases = [
            (vec![extent(0, 8, 0), extent(8, 8, EXTENT_LAST)], 16),
            (vec![extent(0, 8, 0), extent(12, 8, EXTENT_LAST)], 8),
            (vec![extent(0, 8, 0), extent(8, 8, UNWRITTEN), extent(16, 8, EXTENT_LAST)], 8),
            (vec![extent(4, 8, EXTENT_LAST)], 0),
            (vec![], 0),
        ];
        for (extents, expected) in cases {
            let mut end = 0;
            follow(&extents, &mut end);
            assert_eq!(end, expected);
        }
    }
}
