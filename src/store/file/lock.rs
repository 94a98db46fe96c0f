//! A volume's lock: OFD locks on numbered files in the volume's directory.
//!
//! ```text
//!   lease.7   the highest number is the volume's lock; it holds the record of whoever made it
//!   lock:     lock 7 ─► write lease.new.X, lock it ─► name it lease.8, exclusively ─► remove 7
//!   read:     lock 7, shared ─► there is still no 8
//!   seize:                write lease.new.X, lock it ─► name it lease.8, exclusively ─► remove 7
//! ```
//! The exclusive naming decides every race: between two that lock, between two that seize, and between one that seizes and the
//! orderly end of what it wanted to seize, because each needs 8 for itself. A number is never used twice and its record is
//! whole before it has its name. Whoever was cut off sees that 8 is there, or that its own 7 is gone ([`confirm`]).
//!
//! An OFD lock belongs to the open file, not to a process or thread: it falls when the last descriptor for it is closed. Rings
//! hold one (channel.rs), so a killed process keeps the lock until its last operation in flight has ended (rule C5).

mod files;
mod record;

use super::home::Home;
use super::layout::{self, Directory};
use super::{list, publish, reserve};
use crate::store::{Lease, LockMode, Room, Seized, StoreError, StoreErrorKind, WHOLE_STORE};
use crate::units::VolumeId;
use files::Made;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A killed predecessor's rings end a moment after it: so long is the lock waited for.
const PATIENCE: Duration = Duration::from_millis(300);

const PAUSE: Duration = Duration::from_millis(5);

/// What a lease of this driver keeps.
struct Held {
    number: u64,
    file: Arc<OwnedFd>,
    /// As the file has it; readers leave none.
    record: Mutex<Option<Vec<u8>>>,
    /// What the number below had.
    replaced: Option<Vec<u8>>,
}

/// See [`Store::lock`](crate::store::Store::lock).
pub(super) fn lock(home: &Home, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        home.make_directories(Directory::Volume(volume))?;
        let attempt = match mode {
            LockMode::Exclusive => exclusive(home, volume, (holder, Room::Ordinary)),
            LockMode::ExclusiveToFree => exclusive(home, volume, (holder, Room::Reserve)),
            LockMode::Shared => shared(home, volume),
        };
        let late = Instant::now() >= give_up;
        match attempt {
            Ok(Some(held)) => {
                if mode != LockMode::Shared {
                    publish::tidy(home, Directory::Volume(volume));
                    publish::tidy(home, Directory::Names);
                }
                return Ok(lease(volume, held));
            }
            // Somebody else's lock, or the volume's removal, came in between.
            Ok(None) | Err(Errno::NOENT) if !late => {}
            Ok(None) => return Err(failed(Errno::BUSY, "lock", volume)),
            Err(Errno::AGAIN | Errno::ACCESS) if !late => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(refused(home, volume)),
            Err(error) => return Err(failed(error, "lock", volume)),
        }
        thread::sleep(PAUSE);
    }
}

/// Makes what taking this lock for the first time would need new space for.
pub(super) fn make_ready(home: &Home, volume: VolumeId) -> Result<(), StoreError> {
    home.make_directories(Directory::Volume(volume))?;
    files::make_first_if_none(home, volume).map_err(|error| failed(error, "make the lock of", volume))
}

/// `None` when another one was quicker.
fn exclusive(home: &Home, volume: VolumeId, record: (&[u8], Room)) -> Result<Option<Held>, Errno> {
    files::make_first_if_none(home, volume)?;
    let Some(highest) = files::highest(home, volume)? else { return Ok(None) };
    // Held until the next number is there: nobody reads meanwhile, and nobody else gets that far.
    let below = files::open(home, volume, highest)?;
    files::lock(&below, LockMode::Exclusive)?;
    next(home, volume, (highest, &below), record)
}

/// The lock of the number after the highest, whoever has that one. `None` when another one was quicker.
fn next(
    home: &Home,
    volume: VolumeId,
    (highest, below): (u64, &OwnedFd),
    record: (&[u8], Room),
) -> Result<Option<Held>, Errno> {
    let number = highest + 1;
    let Made::Ours(file) = files::make(home, volume, number, record)? else { return Ok(None) };
    // Lower numbers go in ascending order: while the one below has its name, ours had not come and gone before.
    let first_of_its_number = rustix::fs::fstat(below)?.st_nlink != 0;
    if !first_of_its_number || files::highest(home, volume)? != Some(number) {
        files::remove(home, volume, number);
        return Ok(None);
    }
    // Read now: until ours had its name, its holder could write it again.
    let replaced = record::read(below)?;
    files::remove_below(home, volume, number);
    reserve::refill(home);
    Ok(Some(Held { number, file: Arc::new(file), record: Mutex::new(Some(record.0.to_vec())), replaced }))
}

/// `None` when somebody took the lock for itself meanwhile.
fn shared(home: &Home, volume: VolumeId) -> Result<Option<Held>, Errno> {
    files::make_first_if_none(home, volume)?;
    let Some(number) = files::highest(home, volume)? else { return Ok(None) };
    let file = files::open(home, volume, number)?;
    files::lock(&file, LockMode::Shared)?;
    let current = files::is_current(home, volume, number, &file)?;
    Ok(current.then(|| Held { number, file: Arc::new(file), record: Mutex::new(None), replaced: None }))
}

/// Who is in the way: the lock's holder, or readers.
fn refused(home: &Home, volume: VolumeId) -> StoreError {
    let readable = matches!(shared(home, volume), Ok(Some(_)));
    let kind = if readable { StoreErrorKind::BeingRead } else { StoreErrorKind::Held };
    StoreError::new(kind, "lock", format_args!("volume {volume}"))
}

/// See [`Store::seize`](crate::store::Store::seize).
pub(super) fn seize(home: &Home, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
    let error = |error| failed(error, "seize the lock of", volume);
    home.make_directories(Directory::Volume(volume))?;
    let changed = || StoreError::new(StoreErrorKind::Held, "seize the lock of", format_args!("volume {volume}"));
    files::make_first_if_none(home, volume).map_err(error)?;
    let highest = files::highest(home, volume).map_err(error)?.ok_or_else(changed)?;
    let below = files::open(home, volume, highest).map_err(error)?;
    if record::read(&below).map_err(error)?.as_deref() != from {
        return Err(changed());
    }
    let held = next(home, volume, (highest, &below), (holder, Room::Reserve)).map_err(error)?;
    let lease = lease(volume, held.ok_or_else(changed)?);
    Ok(Seized { lease, fenced: false })
}

fn lease(volume: VolumeId, mut held: Held) -> Lease {
    let locked = Arc::clone(&held.file);
    let replaced = held.replaced.take();
    Lease { volume, keep: Arc::new(held), replaced, locked: Some(locked) }
}

/// See [`Store::confirm`](crate::store::Store::confirm). Where other hosts may use the store, the record is written again through the very
/// descriptor that has the lock: a lock that the server has forgotten shows there as an error (rule C17).
pub(super) fn confirm(home: &Home, lease: &Lease) -> Result<(), StoreError> {
    let (held, volume) = (held(lease), lease.volume);
    // A full server, say, tells nothing of the lock.
    let lost = |error: Errno| {
        let told = failed(error, "keep the lock of", volume);
        let gone = matches!(error, Errno::IO | Errno::STALE | Errno::BADF | Errno::NOLCK);
        if gone { told.with_kind(StoreErrorKind::Lost) } else { told }
    };
    if !files::is_current(home, volume, held.number, &held.file).map_err(|error| failed(error, "look at", volume))? {
        return Err(StoreError::new(StoreErrorKind::Lost, "keep the lock of", format_args!("volume {volume}")));
    }
    let record = held.record.lock().unwrap_or_else(PoisonError::into_inner);
    match record.as_ref().filter(|_| !home.file_system.local) {
        Some(record) => record::write(&held.file, record).map_err(lost),
        None => Ok(()),
    }
}

/// See [`Store::record`](crate::store::Store::record).
pub(super) fn record(lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
    let held = held(lease);
    let mut record = held.record.lock().unwrap_or_else(PoisonError::into_inner);
    record::write(&held.file, holder).map_err(|error| failed(error, "record the holder of", lease.volume))?;
    *record = Some(holder.to_vec());
    Ok(())
}

fn held(lease: &Lease) -> &Held {
    lease.keep.downcast_ref().expect("a lease goes back to the driver that gave it")
}

/// See [`Store::holder`](crate::store::Store::holder). A record that is just being written is read again.
pub(super) fn holder(home: &Home, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
    let error = |error| failed(error, "read the holder of", volume);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let Some(number) = files::highest(home, volume).map_err(error)? else { return Ok(None) };
        match files::open(home, volume, number).and_then(|file| record::read(&file)) {
            Err(Errno::NOENT) if Instant::now() < give_up => thread::sleep(PAUSE),
            other => return other.map_err(error),
        }
    }
}

/// Removes the directory of a volume that has no header any more, lock files included, unless other files are in it.
pub(super) fn remove_unused(home: &Home, volume: VolumeId) {
    if !matches!(list::lowest_header(home, volume), Ok(None)) {
        return;
    }
    let directory = Directory::Volume(volume);
    // While a journal or segment is left the directory stays, and with it the lock. Whoever waits for the lock finds no file to
    // lock, and begins again.
    if matches!(list::holds_only(home, directory, files::is_lock_file), Ok(true)) {
        files::remove_below(home, volume, u64::MAX);
        let _not_empty = rustix::fs::unlinkat(&home.root, directory.path(), AtFlags::REMOVEDIR);
    }
}

/// Removes the directories in which nothing but a lock is left that can be had: whoever made them died before there was a header. One who
/// lives, and comes too late for the lock, finds no directory and makes it again.
pub(super) fn remove_abandoned(home: &Home) -> Result<(), StoreError> {
    let volumes = list::entries(home, Directory::Volumes, layout::parse_volume);
    let volumes = volumes.map_err(|error| StoreError::from_io(error.into(), "list", "volumes"))?;
    // That one was made ready to be had on a full store.
    for volume in volumes.into_iter().filter(|volume| *volume != WHOLE_STORE) {
        let _held_or_gone = remove_if_abandoned(home, volume);
    }
    Ok(())
}

fn remove_if_abandoned(home: &Home, volume: VolumeId) -> Result<(), Errno> {
    if list::lowest_header(home, volume)?.is_some() {
        return Ok(());
    }
    // There may be none: a process that died made the directory only.
    files::make_first_if_none(home, volume)?;
    let Some(number) = files::highest(home, volume)? else { return Ok(()) };
    let held = files::open(home, volume, number)?;
    files::lock(&held, LockMode::Exclusive)?;
    // Otherwise somebody was here before us, and has another one now.
    if !files::is_current(home, volume, number, &held)? || list::lowest_header(home, volume)?.is_some() {
        return Ok(());
    }
    publish::tidy(home, Directory::Volume(volume));
    remove_unused(home, volume);
    Ok(())
}

fn failed(error: Errno, operation: &'static str, volume: VolumeId) -> StoreError {
    StoreError::from_io(error.into(), operation, format_args!("volume {volume}"))
}
