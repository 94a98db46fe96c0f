//! The lock files of a volume: their names, how one comes to be, OFD locks on them.

#![allow(unsafe_code, reason = "OFD locks have no safe wrapper")]

use super::record;
use crate::store::file::home::Home;
use crate::store::file::layout::{self, Directory};
use crate::store::file::publish::{self, Origin};
use crate::store::file::{list, reserve, setup};
use crate::store::{LockMode, PublishMode, Room};
use crate::units::VolumeId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

const TEMPORARY: &str = "lease.new.";

/// Attempts to make a temporary file: whoever tidies up may take a new one for a dead one before it is locked.
const ATTEMPTS: usize = 16;

pub(super) enum Made {
    Ours(OwnedFd),
    /// The number is in use.
    Taken,
}

pub(in crate::store::file) fn is_lock_file(entry: &str) -> bool {
    layout::parse_lease(entry).is_some() || entry.starts_with(TEMPORARY)
}

fn path(volume: VolumeId, number: u64) -> CString {
    Directory::Volume(volume).entry(layout::lease(number))
}

/// The number of the volume's lock.
pub(super) fn highest(home: &Home, volume: VolumeId) -> Result<Option<u64>, Errno> {
    Ok(list::entries(home, Directory::Volume(volume), layout::parse_lease)?.into_iter().max())
}

pub(super) fn open(home: &Home, volume: VolumeId, number: u64) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(&home.root, path(volume, number), flags, Mode::empty())
}

/// Whether this number is still the volume's lock. Lower numbers are removed in ascending order, so a file that still has its
/// name has no number above the next.
pub(super) fn is_current(home: &Home, volume: VolumeId, number: u64, file: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::statat(&home.root, path(volume, number + 1), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(rustix::fs::fstat(file)?.st_nlink != 0),
        other => other.map(|_| false),
    }
}

/// Makes a first lock file that nobody holds, if there is none, so that there is something to lock.
pub(super) fn make_first_if_none(home: &Home, volume: VolumeId) -> Result<(), Errno> {
    if highest(home, volume)?.is_some() {
        return Ok(());
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(&home.root, path(volume, 1), flags, setup::file_mode()) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the lock file of a number: locked, and with its record, before it has its name.
pub(super) fn make(home: &Home, volume: VolumeId, number: u64, (holder, room): (&[u8], Room)) -> Result<Made, Errno> {
    let make = |origin| make_from(home, volume, number, holder, origin);
    match room {
        Room::Ordinary => make(Origin::New),
        Room::Reserve => reserve::spend(home, make),
    }
}

fn make_from(home: &Home, volume: VolumeId, number: u64, holder: &[u8], origin: Origin) -> Result<Made, Errno> {
    let (file, temporary) = make_temporary(home, volume, origin)?;
    let named = record::write(&file, holder).and_then(|()| {
        match publish::give_name(home, &temporary, &path(volume, number), PublishMode::Exclusive) {
            // A link that was asked for twice, because the server's first answer was lost, is ours all the same.
            Err(Errno::EXIST) if rustix::fs::fstat(&file)?.st_nlink == 2 => Ok(Made::Ours(file)),
            Err(Errno::EXIST) => Ok(Made::Taken),
            Err(error) => Err(error),
            Ok(()) => Ok(Made::Ours(file)),
        }
    });
    if !matches!(named, Ok(Made::Ours(_))) {
        let _leftover = rustix::fs::unlinkat(&home.root, &temporary, AtFlags::empty());
    }
    named
}

fn make_temporary(home: &Home, volume: VolumeId, origin: Origin) -> Result<(OwnedFd, CString), Errno> {
    for _ in 0..ATTEMPTS {
        let entry = format_args!("{TEMPORARY}{}", uuid::Uuid::new_v4().simple()).to_string();
        let path = Directory::Volume(volume).entry(entry);
        let file = origin.file(home, &path)?;
        if lock(&file, LockMode::Exclusive).is_ok() && rustix::fs::fstat(&file)?.st_nlink != 0 {
            return Ok((file, path));
        }
    }
    Err(Errno::BUSY)
}

/// What cannot be removed stays until the next time.
pub(super) fn remove(home: &Home, volume: VolumeId, number: u64) {
    let _gone_already = rustix::fs::unlinkat(&home.root, path(volume, number), AtFlags::empty());
}

/// Removes the lock files of lower numbers, the lowest first, and what dead processes left of others.
pub(super) fn remove_below(home: &Home, volume: VolumeId, number: u64) {
    let directory = Directory::Volume(volume);
    let mut numbers = list::entries(home, directory, layout::parse_lease).unwrap_or_default();
    numbers.sort_unstable();
    for lower in numbers.into_iter().filter(|lower| *lower < number) {
        remove(home, volume, lower);
    }
    let temporary = |entry: &str| entry.starts_with(TEMPORARY).then(|| directory.entry(entry));
    for path in list::entries(home, directory, temporary).unwrap_or_default() {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&home.root, &path, flags, Mode::empty());
        if file.is_ok_and(|file| lock(&file, LockMode::Exclusive).is_ok()) {
            let _gone_already = rustix::fs::unlinkat(&home.root, &path, AtFlags::empty());
        }
    }
}

/// [`Errno::AGAIN`] or [`Errno::ACCESS`] when somebody has it.
pub(super) fn lock(file: &OwnedFd, mode: LockMode) -> Result<(), Errno> {
    let kind = match mode {
        LockMode::Exclusive | LockMode::ExclusiveToFree => libc::F_WRLCK,
        LockMode::Shared => libc::F_RDLCK,
    };
    let whole = libc::flock {
        l_type: i16::try_from(kind).expect("a small constant"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small constant"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and `whole` is a valid flock structure that the kernel only reads.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
