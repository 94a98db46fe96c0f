//! What the file system under a store can do, found out once when the store is opened.

#![allow(unsafe_code, reason = "a direct read goes through the raw scatter list of a buffer")]

use crate::store::Buffer;
use crate::store::FreeLock;
use crate::store::buffer::HEAP_ALIGN;
use crate::store::open::{CacheMode, StoreOptions};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const EXT4_MAGIC: u64 = 0xEF53;
const XFS_MAGIC: u64 = 0x5846_5342;
const BTRFS_MAGIC: u64 = 0x9123_683E;
const ZFS_MAGIC: u64 = 0x2FC1_2FC1;
const F2FS_MAGIC: u64 = 0xF2F5_2010;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// See the module's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSystem {
    /// Data goes past the page cache, under these constraints.
    pub(super) direct: Option<DirectIo>,
    /// An overwrite of written space needs nothing but a device flush, and `fdatasync` of any file flushes the device,
    /// clean or not (docs/decisions/0002). Known for ext4 and XFS.
    pub(super) one_flush: bool,
    /// `syncfs` writes back everything and tells errors. Known for ext4, XFS and btrfs; FUSE's does not reach its server.
    pub(super) syncfs: bool,
    /// Mounted by one host at a time, so that a lock that nobody has proves that whoever had it is gone. Everything that is not
    /// known to be such counts as shared.
    pub(super) local: bool,
}

/// What O_DIRECT demands, in bytes; powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectIo {
    pub(super) memory_align: usize,
    pub(super) offset_align: usize,
    /// Whether the file system said so itself; otherwise it is a careful guess and nothing else may be built on it.
    pub(super) stated: bool,
}

impl FileSystem {
    /// Looks at the file system by means of a file on it that is at least a page long.
    pub(super) fn probe(root: &OwnedFd, file: &CStr, options: &StoreOptions) -> rustix::io::Result<Self> {
        let magic = u64::try_from(rustix::fs::fstatfs(root)?.f_type).unwrap_or(0);
        let direct = match options.cache {
            CacheMode::None => direct_io(root, file),
            CacheMode::Writeback => None,
        };
        let stated = direct.is_some_and(|direct| direct.stated);
        Ok(Self {
            direct,
            one_flush: stated && matches!(magic, EXT4_MAGIC | XFS_MAGIC),
            syncfs: matches!(magic, EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC),
            local: match options.free_lock {
                Some(free_lock) => free_lock == FreeLock::ProvesTheEnd,
                None => {
                    matches!(magic, EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC | ZFS_MAGIC | F2FS_MAGIC | TMPFS_MAGIC)
                }
            },
        })
    }
}

/// `None` when O_DIRECT cannot be had. A mount that would quietly fall back to the page cache (ext4 with data=journal)
/// states alignments of zero.
fn direct_io(root: &OwnedFd, file: &CStr) -> Option<DirectIo> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(root, file, flags, Mode::empty()).ok()?;
    let status = rustix::fs::statx(&opened, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let guess = DirectIo { memory_align: HEAP_ALIGN, offset_align: HEAP_ALIGN, stated: false };
    let direct = if StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::DIOALIGN) {
        let memory_align = usize::try_from(status.stx_dio_mem_align).ok()?;
        let offset_align = usize::try_from(status.stx_dio_offset_align).ok()?;
        DirectIo { memory_align, offset_align, stated: true }
    } else {
        guess
    };
    let sane = direct.memory_align.is_power_of_two() && direct.offset_align.is_power_of_two();
    (sane && reads(&opened)).then_some(direct)
}

/// Some file systems accept the flag at opening and refuse it at the first transfer.
fn reads(file: &OwnedFd) -> bool {
    let buffer = Buffer::zeroed(HEAP_ALIGN);
    let segment = &buffer.segments()[0];
    // SAFETY: the segment is writable memory of the given length, owned by `buffer` for the whole call.
    let read = unsafe { libc::pread(file.as_fd().as_raw_fd(), segment.iov_base, segment.iov_len, 0) };
    usize::try_from(read) == Ok(HEAP_ALIGN)
}
