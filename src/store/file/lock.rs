//! A volume's lock: an OFD lock on the file `lease` in the volume's directory, and the holder's record in it. Readers take a
//! read lock and leave the record alone.
//!
//! The lock belongs to the open file, not to a process or thread: it falls when the last descriptor for it is closed.
//! Rings hold one (channel.rs), so a killed process keeps the lock until its last operation in flight has ended (rule C5).
//! The record is text, followed by a line with its checksum, so that a reader never takes half a record for one.

#![allow(unsafe_code, reason = "OFD locks have no safe wrapper")]

use super::home::Home;
use super::layout::{Directory, LEASE};
use super::{list, publish, setup};
use crate::store::{Lease, LockMode, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A killed predecessor's rings end a moment after it: so long is the lock waited for.
const PATIENCE: Duration = Duration::from_millis(300);

const PAUSE: Duration = Duration::from_millis(5);

/// Longest record that is read back.
const RECORD_MAX: usize = 64 << 10;

/// A checksum's digits, with the line ends around them.
const TRAILER_LEN: usize = 18;

/// See [`Store::lock`](crate::store::Store::lock).
pub(super) fn lock(home: &Home, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
    home.make_directories(Directory::Volume(volume))?;
    let file = acquire(home, volume, mode)?;
    if mode == LockMode::Exclusive {
        write_record(&file, holder).map_err(|error| failed(error, "record the holder of", volume))?;
        publish::tidy(home, Directory::Volume(volume));
        publish::tidy(home, Directory::Names);
    }
    let locked = Arc::new(file);
    Ok(Lease { volume, keep: Arc::<OwnedFd>::clone(&locked), locked: Some(locked) })
}

fn acquire(home: &Home, volume: VolumeId, mode: LockMode) -> Result<OwnedFd, StoreError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match try_acquire(home, volume, mode) {
            Ok(Some(file)) => return Ok(file),
            // The volume's last header was removed just now, and the lock file with it.
            Ok(None) | Err(Errno::NOENT) => home.make_directories(Directory::Volume(volume))?,
            Err(Errno::AGAIN | Errno::ACCESS) if Instant::now() < give_up => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(refused(home, volume)),
            Err(error) => return Err(failed(error, "lock", volume)),
        }
        if Instant::now() >= give_up {
            return Err(failed(Errno::BUSY, "lock", volume));
        }
        thread::sleep(PAUSE);
    }
}

/// `None` when the lock was had on a file that has lost its name meanwhile.
fn try_acquire(home: &Home, volume: VolumeId, mode: LockMode) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(&home.root, Directory::Volume(volume).entry(LEASE), flags, setup::file_mode())?;
    lock_file(&file, mode)?;
    Ok((rustix::fs::fstat(&file)?.st_nlink != 0).then_some(file))
}

/// Who is in the way: the lock's holder, or readers.
fn refused(home: &Home, volume: VolumeId) -> StoreError {
    let readable = matches!(try_acquire(home, volume, LockMode::Shared), Ok(Some(_)));
    let kind = if readable { StoreErrorKind::BeingRead } else { StoreErrorKind::Held };
    StoreError::new(kind, "lock", format_args!("volume {volume}"))
}

fn lock_file(file: &OwnedFd, mode: LockMode) -> Result<(), Errno> {
    let kind = match mode {
        LockMode::Exclusive => libc::F_WRLCK,
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

fn write_record(file: &OwnedFd, holder: &[u8]) -> Result<(), Errno> {
    let mut record = holder.to_vec();
    record.extend_from_slice(trailer(holder).as_bytes());
    let mut written = 0;
    while written < record.len() {
        let offset = u64::try_from(written).expect("a length in memory fits in 64 bits");
        written += rustix::io::pwrite(file, &record[written..], offset)?;
    }
    rustix::fs::ftruncate(file, u64::try_from(record.len()).expect("as above"))?;
    rustix::fs::fdatasync(file)
}

/// The checksum's line.
fn trailer(holder: &[u8]) -> String {
    let digits = blake3::hash(holder).to_hex();
    format!("\n{}\n", &digits[..TRAILER_LEN - 2])
}

/// See [`Store::holder`](crate::store::Store::holder). A record that is just being written is read again.
pub(super) fn holder(home: &Home, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let read = read_record(home, volume).map_err(|error| failed(error, "read the holder of", volume))?;
        let Some(mut record) = read.filter(|record| !record.is_empty()) else { return Ok(None) };
        let split = record.len().saturating_sub(TRAILER_LEN);
        if record[split..] == *trailer(&record[..split]).as_bytes() {
            record.truncate(split);
            return Ok(Some(record));
        }
        if Instant::now() >= give_up {
            // A lock was had but its record never completed: nobody can be named.
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

fn read_record(home: &Home, volume: VolumeId) -> Result<Option<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = Directory::Volume(volume).entry(LEASE);
    let file = match rustix::fs::openat(&home.root, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let mut record = vec![0; RECORD_MAX];
    let len = rustix::io::pread(&file, record.as_mut_slice(), 0)?;
    record.truncate(len);
    Ok(Some(record))
}

/// Removes the directory of a volume that has no header any more, lock file included, unless other files are in it.
pub(super) fn remove_unused(home: &Home, volume: VolumeId) {
    if !matches!(list::lowest_header(home, volume), Ok(None)) {
        return;
    }
    let directory = Directory::Volume(volume);
    // While a journal or segment is left the directory stays, and with it the lock. Whoever waits for the lock notices that
    // the file has lost its name (`try_acquire`).
    if matches!(list::holds_only(home, directory, LEASE), Ok(true)) {
        let _gone_already = rustix::fs::unlinkat(&home.root, directory.entry(LEASE), AtFlags::empty());
        let _not_empty = rustix::fs::unlinkat(&home.root, directory.path(), AtFlags::REMOVEDIR);
    }
}

fn failed(error: Errno, operation: &'static str, volume: VolumeId) -> StoreError {
    StoreError::from_io(error.into(), operation, format_args!("volume {volume}"))
}
