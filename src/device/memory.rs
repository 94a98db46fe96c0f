//! Guest memory: the regions that a front-end shares, mapped, and the translation of its addresses to ours.
//!
//! A [`Memory`] never changes: a new table is a new value behind an `Arc`, sharing the mappings that stay. A region is
//! unmapped when the last table that names it is gone, and every request in flight holds the table its pointers came from,
//! so no pointer outlives its mapping.
//!
//! Two kinds of address come in: guest-physical ones in descriptors, and the front-end's own ("user") ones for rings.
//! Both are checked against the regions before anything is touched; the contents may change at any time all the same.

#![allow(unsafe_code, reason = "mapping another process's memory")]

use super::sigbus::{self, Watched};
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Most regions of a device; more than the 32 slots and 256 hot-plugged modules that any VMM has.
pub(super) const REGIONS_MAX: usize = 509;

/// Most that one connection may have mapped, in its table and in old ones that requests in flight still point into: twice
/// a full table, because a new one is mapped before the old one goes.
const HELD_REGIONS_MAX: u64 = 2 * REGIONS_MAX as u64;

/// The address space has 128 TiB, and one front-end must leave room for others; the largest guests have 24 TiB.
const HELD_BYTES_MAX: u64 = 32 << 40;

const PAGE_BYTES: u64 = 4096;

/// File systems that memory may lie on (statfs(2)): tmpfs and memfd, hugetlbfs, ext2 to 4, xfs, btrfs. Whoever touches a
/// page of a file waits for its file system, and a front-end may run one of its own (FUSE) or name a dead one (NFS).
const FILE_SYSTEMS: [u32; 5] = [0x0102_1994, 0x9584_58f6, 0xef53, 0x5846_5342, 0x9123_683e];

/// Why a region is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("a memory region is empty or passes the end of the address space")]
    BadRange,
    #[error("memory regions overlap in guest-physical space")]
    Overlap,
    #[error("the shared file is shorter than the region that it should hold")]
    FileTooShort,
    #[error("more than {REGIONS_MAX} memory regions")]
    TooMany,
    #[error("more memory than one device may map")]
    TooMuch,
    #[error("memory on a file system (type {0:#x}) that may keep whoever touches it waiting")]
    FileSystem(u64),
    #[error("no such memory region")]
    NoSuchRegion,
    #[error("cannot map a memory region: {0}")]
    Map(#[source] io::Error),
}

/// A region as the front-end describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RegionAddress {
    pub(super) guest: u64,
    pub(super) user: u64,
    pub(super) size: u64,
    pub(super) file_offset: u64,
}

impl RegionAddress {
    fn check(&self) -> Result<(), MemoryError> {
        let ends = [self.guest, self.user, self.file_offset].map(|start| start.checked_add(self.size));
        let fits = ends.iter().all(Option::is_some) && self.size != 0 && isize::try_from(self.size).is_ok();
        if fits { Ok(()) } else { Err(MemoryError::BadRange) }
    }
}

/// A mapped region.
struct Region {
    address: RegionAddress,
    /// Where byte `address.guest` is in our address space.
    host: *mut u8,
    watched: Option<Watched>,
    mapping: *mut libc::c_void,
    mapping_len: usize,
    _share: Share,
}

/// What one connection has mapped at this time.
#[derive(Default)]
struct Held(Mutex<(u64, u64)>);

/// A region's part of that, until dropped.
struct Share {
    held: Arc<Held>,
    bytes: u64,
}

impl Share {
    fn take(held: &Arc<Held>, bytes: u64) -> Result<Self, MemoryError> {
        let mut sums = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (sums.0 + 1, sums.1.saturating_add(bytes));
        if new.0 > HELD_REGIONS_MAX || new.1 > HELD_BYTES_MAX {
            return Err(MemoryError::TooMuch);
        }
        *sums = new;
        Ok(Self { held: Arc::clone(held), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut sums = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sums = (sums.0 - 1, sums.1 - self.bytes);
    }
}

// SAFETY: the pointers name a mapping that lives as long as the Region; access to it is by atomics, volatile operations and
// raw copies only, as for memory that another process changes anyway.
unsafe impl Send for Region {}
// SAFETY: as above; nothing here changes after construction.
unsafe impl Sync for Region {}

impl Region {
    fn map(address: RegionAddress, file: &OwnedFd, held: &Arc<Held>) -> Result<Self, MemoryError> {
        address.check()?;
        let share = Share::take(held, address.size)?;
        let map_error = |error: rustix::io::Errno| MemoryError::Map(error.into());
        let stat = fstat(file).map_err(map_error)?;
        let file_system = file_system(file).map_err(map_error)?;
        if !FILE_SYSTEMS.iter().any(|known| u64::from(*known) == file_system) {
            return Err(MemoryError::FileSystem(file_system));
        }
        let end = address.file_offset + address.size;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular && u64::try_from(stat.st_size).is_ok_and(|size| size < end) {
            return Err(MemoryError::FileTooShort);
        }
        // Huge page file systems report their page size here, and map whole pages only.
        let page = u64::try_from(stat.st_blksize).unwrap_or(0).clamp(PAGE_BYTES, 1 << 30).next_power_of_two();
        let start = address.file_offset & !(page - 1);
        let whole = (end - start).checked_next_multiple_of(page).ok_or(MemoryError::BadRange)?;
        let mapping_len = usize::try_from(whole).map_err(|_| MemoryError::BadRange)?;
        let skipped = usize::try_from(address.file_offset - start).map_err(|_| MemoryError::BadRange)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let mapping =
            unsafe { mmap(std::ptr::null_mut(), mapping_len, protection, flags, file, start) }.map_err(map_error)?;
        // SAFETY: `skipped` is less than a page of the mapping just made.
        let host = unsafe { mapping.cast::<u8>().add(skipped) };
        let mut region = Self { address, host, watched: None, mapping, mapping_len, _share: share };
        region.watched = Some(sigbus::watch(mapping.expose_provenance(), mapping_len).map_err(MemoryError::Map)?);
        Ok(region)
    }
}

fn file_system(file: &OwnedFd) -> Result<u64, rustix::io::Errno> {
    // A magic number of 32 bits, which some platforms give with its sign.
    fstatfs(file).map(|stat| stat.f_type.cast_unsigned() & u64::from(u32::MAX))
}

impl Drop for Region {
    fn drop(&mut self) {
        self.watched = None;
        // SAFETY: the mapping is ours, made with this very length, and no table names the region any more, so no pointer
        // into it is left. An error would mean that it is not mapped.
        let _ = unsafe { munmap(self.mapping, self.mapping_len) };
    }
}

/// All that the translation looks at, close together.
#[derive(Clone, Copy)]
struct Span {
    guest: u64,
    size: u64,
    host: *mut u8,
}

/// A table of regions, ordered by guest address. See the module's text.
#[derive(Default)]
pub(super) struct Memory {
    spans: Vec<Span>,
    regions: Vec<Arc<Region>>,
    held: Arc<Held>,
}

// SAFETY: the pointers in `spans` are those of `regions`, which are Send and Sync for the reasons given there.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// A table of new mappings, of a front-end that has no other.
    ///
    /// # Errors
    /// As for [`Memory::replacement`].
    pub(super) fn map(regions: impl Iterator<Item = (RegionAddress, OwnedFd)>) -> Result<Self, MemoryError> {
        Self::default().replacement(regions)
    }

    /// A table of new mappings, of the same front-end.
    ///
    /// # Errors
    /// When the regions overlap, are too large or cannot be mapped; none of them stays mapped then.
    pub(super) fn replacement(
        &self,
        regions: impl Iterator<Item = (RegionAddress, OwnedFd)>,
    ) -> Result<Self, MemoryError> {
        let mut memory = self.of(Vec::new());
        for (address, file) in regions {
            memory = memory.with(address, &file)?;
        }
        Ok(memory)
    }

    /// This table and one more region.
    ///
    /// # Errors
    /// When it overlaps another, is one too many, or cannot be mapped.
    pub(super) fn with(&self, address: RegionAddress, file: &OwnedFd) -> Result<Self, MemoryError> {
        address.check()?;
        if self.regions.len() >= REGIONS_MAX {
            return Err(MemoryError::TooMany);
        }
        let overlaps =
            |other: &Span| address.guest < other.guest + other.size && other.guest < address.guest + address.size;
        if self.spans.iter().any(overlaps) {
            return Err(MemoryError::Overlap);
        }
        let mut regions = self.regions.clone();
        regions.push(Arc::new(Region::map(address, file, &self.held)?));
        Ok(self.of(regions))
    }

    /// This table without the region at these addresses.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn without(&self, address: RegionAddress) -> Result<Self, MemoryError> {
        let same = |region: &Arc<Region>| {
            let other = region.address;
            (other.guest, other.user, other.size) == (address.guest, address.user, address.size)
        };
        let place = self.regions.iter().position(same).ok_or(MemoryError::NoSuchRegion)?;
        let mut regions = self.regions.clone();
        regions.remove(place);
        Ok(self.of(regions))
    }

    fn of(&self, mut regions: Vec<Arc<Region>>) -> Self {
        regions.sort_by_key(|region| region.address.guest);
        let span =
            |region: &Arc<Region>| Span { guest: region.address.guest, size: region.address.size, host: region.host };
        Self { spans: regions.iter().map(span).collect(), regions, held: Arc::clone(&self.held) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether the front-end took any of this memory away.
    pub(super) fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.watched.as_ref().is_some_and(Watched::is_lost))
    }

    /// Where `len` bytes at guest-physical `guest` are, in as many pieces as the regions cut them into. `false` when any
    /// byte lies outside; some pieces may have been reported then.
    #[inline]
    pub(super) fn pieces(&self, guest: u64, len: u32, mut piece: impl FnMut(libc::iovec)) -> bool {
        let (mut guest, mut left) = (guest, u64::from(len));
        while left != 0 {
            let Some((host, room)) = self.find(guest) else { return false };
            let now = room.min(left);
            // A piece is at most `len`, which came as 32 bits.
            #[allow(clippy::cast_possible_truncation, reason = "at most `len`, which has 32 bits")]
            piece(libc::iovec { iov_base: host.cast(), iov_len: now as usize });
            left -= now;
            // Cannot overflow: `guest + now` is at most the region's end, which was checked.
            guest += now;
        }
        true
    }

    /// Where `len` bytes at guest-physical `guest` are if one region holds them all.
    pub(super) fn contiguous(&self, guest: u64, len: u64) -> Option<*mut u8> {
        self.find(guest).filter(|(_, room)| *room >= len).map(|(host, _)| host)
    }

    /// Where `len` bytes at the front-end's own address `user` are, if one region holds them all.
    pub(super) fn at_user_address(&self, user: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.address.user)?;
            let fits = offset.checked_add(len).is_some_and(|end| end <= region.address.size);
            let offset = usize::try_from(offset).ok().filter(|_| fits)?;
            // SAFETY: `offset` lies within the region, which is mapped from `host` on.
            Some(unsafe { region.host.add(offset) })
        })
    }

    /// The host address of a guest byte, and how many bytes its region has from there on.
    #[inline]
    fn find(&self, guest: u64) -> Option<(*mut u8, u64)> {
        let behind = self.spans.partition_point(|span| span.guest <= guest);
        let span = self.spans.get(behind.checked_sub(1)?)?;
        let offset = guest - span.guest;
        let room = span.size.checked_sub(offset).filter(|room| *room != 0)?;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "regions are no larger than isize::MAX, checked when mapped"
        )]
        let offset = offset as usize;
        // SAFETY: `offset` is less than the region's size, and the region is mapped from `host` on.
        Some((unsafe { span.host.add(offset) }, room))
    }
}

#[cfg(test)]
mod tests;
