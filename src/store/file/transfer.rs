//! Reads and writes by blocking calls: on helper threads, for what the ring does not do and where there is no ring.

#![allow(unsafe_code, reason = "buffers are scatter lists of raw memory, which no safe wrapper takes")]

use super::file_system::DirectIo;
use super::home::{Home, failed};
use super::open_file::OpenFile;
use crate::store::{Buffer, Durability, ObjectName, StoreError};
use crate::units::ByteRange;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// What the kernel takes in one call (IOV_MAX); longer lists are moved in several.
pub(super) const SEGMENTS_MAX: usize = 1024;

/// Attempts at a transfer that the kernel asks to repeat.
pub(super) const ATTEMPTS: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write(Durability),
}

/// How a transfer fits O_DIRECT's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Direct,
    /// The memory does not, the place in the file does: through a heap buffer.
    Bounce,
    /// The place in the file does not: through the page cache.
    Buffered,
}

/// How this transfer can be done on this file.
pub(super) fn fit(file: &OpenFile, rules: Option<DirectIo>, offset: u64, buffer: &Buffer) -> Fit {
    let Some(rules) = rules.filter(|_| file.direct) else { return Fit::Direct };
    let align = u64::try_from(rules.offset_align).expect("an alignment fits in 64 bits");
    if !offset.is_multiple_of(align) || !buffer.len().is_multiple_of(rules.offset_align) {
        return Fit::Buffered;
    }
    let ragged = |segment: &libc::iovec| {
        !segment.iov_base.addr().is_multiple_of(rules.memory_align)
            || !segment.iov_len.is_multiple_of(rules.offset_align)
    };
    if buffer.segments().iter().any(ragged) { Fit::Bounce } else { Fit::Direct }
}

/// The range of an object that a buffer covers.
pub(super) fn range(offset: u64, buffer: &Buffer) -> ByteRange {
    ByteRange::new(offset, u64::try_from(buffer.len()).expect("a length in memory fits in 64 bits"))
}

/// Moves the whole buffer. What lies past the file's end is read as zeros.
pub(super) fn run(
    home: &Arc<Home>,
    file: &OpenFile,
    direction: Direction,
    offset: u64,
    buffer: &Buffer,
) -> Result<(), StoreError> {
    let name = &file.name;
    let moved = match fit(file, home.file_system.direct, offset, buffer) {
        Fit::Direct => move_all(file.fd(), direction, offset, buffer),
        Fit::Bounce => bounce(direction, buffer, |bounced| move_all(file.fd(), direction, offset, bounced)),
        Fit::Buffered => {
            let fd = file.buffered(|| home.open_buffered(name));
            fd.and_then(|fd| move_all(fd, direction, offset, buffer))
        }
    };
    moved.map_err(|error| failed(error, verb(direction), name))
}

/// Runs the transfer on a copy of the buffer in aligned memory.
fn bounce(
    direction: Direction,
    buffer: &Buffer,
    transfer: impl FnOnce(&Buffer) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let bounced = bounce_for(direction, buffer);
    transfer(&bounced)?;
    if direction == Direction::Read {
        copy(&bounced, buffer);
    }
    Ok(())
}

/// Aligned memory that holds what is to be written, or has room for what is to be read.
pub(super) fn bounce_for(direction: Direction, buffer: &Buffer) -> Buffer {
    let bounced = Buffer::zeroed(buffer.len());
    if direction != Direction::Read {
        copy(buffer, &bounced);
    }
    bounced
}

/// Copies one buffer's content to another of the same length.
pub(super) fn copy(from: &Buffer, to: &Buffer) {
    const CHUNK: usize = 4096;
    let mut chunk = [0; CHUNK];
    for start in (0..from.len()).step_by(CHUNK) {
        let part = &mut chunk[..CHUNK.min(from.len() - start)];
        from.copy_out(start, part);
        to.copy_in(start, part);
    }
}

fn move_all(fd: BorrowedFd<'_>, direction: Direction, offset: u64, buffer: &Buffer) -> Result<(), Errno> {
    let mut moved = 0;
    let mut attempts = 0;
    while moved < buffer.len() {
        let at = offset.checked_add(u64::try_from(moved).expect("fits in 64 bits")).ok_or(Errno::FBIG)?;
        match move_some(fd, direction, at, &buffer.slice(moved, buffer.len() - moved)) {
            Ok(0) if direction == Direction::Read => {
                buffer.fill_zero(moved, buffer.len() - moved);
                break;
            }
            Ok(0) => return Err(Errno::IO),
            Ok(count) => moved += count,
            Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => attempts += 1,
            // What is left after a direct read of a ragged tail is past the end.
            Err(Errno::INVAL) if direction == Direction::Read && moved != 0 => {
                buffer.fill_zero(moved, buffer.len() - moved);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn move_some(fd: BorrowedFd<'_>, direction: Direction, offset: u64, buffer: &Buffer) -> Result<usize, Errno> {
    let segments = &buffer.segments()[..buffer.segments().len().min(SEGMENTS_MAX)];
    let count = i32::try_from(segments.len()).expect("bounded just now");
    let offset = i64::try_from(offset).map_err(|_| Errno::FBIG)?;
    let moved = match direction {
        // SAFETY: the segments are valid for writes of their lengths for as long as `buffer` lives.
        Direction::Read => unsafe { libc::preadv(fd.as_raw_fd(), segments.as_ptr(), count, offset) },
        Direction::Write(durability) => {
            let flags = if durability == Durability::Durable { libc::RWF_DSYNC } else { 0 };
            // SAFETY: as above, for reads.
            unsafe { libc::pwritev2(fd.as_raw_fd(), segments.as_ptr(), count, offset, flags) }
        }
    };
    usize::try_from(moved).map_err(|_| last_error())
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

pub(super) fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Read => "read",
        Direction::Write(_) => "write",
    }
}

/// Whether an object is one of those that a write could have left without a durable name.
pub(super) fn has_settled_name(home: &Home, name: &ObjectName) -> bool {
    home.directories.unsettled(super::layout::Directory::of(name)).is_empty()
}
