//! Whole objects, atomically and durably: written under a temporary name, synced, then given their name.
//!
//! A temporary file is locked by whoever writes it. One that nobody has locked was left by a process that died, and is
//! removed when its directory is tidied.

use super::home::{Home, failed};
use super::layout::{self, Directory};
use super::transfer::{self, Direction};
use super::{open_file::OpenFile, sync};
use super::{reserve, setup};
use crate::store::{Buffer, Durability, ObjectName, PublishMode, Room, StoreError, StoreErrorKind};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

const TEMPORARY: &str = ".new.";

/// Attempts to make a temporary file: a tidying process may take a new one for a dead one before it is locked.
const ATTEMPTS: usize = 16;

/// Where a temporary file comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    New,
    /// It is a piece of the reserve, with content that does not matter and blocks that are there.
    Reserve,
}

impl Origin {
    pub(super) fn file(self, home: &Home, path: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match self {
            Self::New => rustix::fs::openat(&home.root, path, flags, setup::file_mode()),
            Self::Reserve => reserve::take(home, path),
        }
    }
}

/// Runs [`Op::Publish`](crate::store::Op::Publish). Blocks for two device flushes.
pub(super) fn publish(
    home: &Arc<Home>,
    name: &ObjectName,
    content: &Buffer,
    (mode, room): (PublishMode, Room),
) -> Result<(), StoreError> {
    let place = |origin| place(home, name, content, mode, origin);
    match room {
        Room::Ordinary => place(Origin::New)?,
        Room::Reserve => reserve::spend(home, place)?,
    }
    home.directories.changed(Directory::of(name));
    home.forget(name);
    if room == Room::Reserve {
        // What was replaced has left its space.
        reserve::refill(home);
    }
    // The name is there already: whatever the reason, this is no failure that left everything as it was.
    sync::settle(home, name).map_err(|error| error.with_kind(StoreErrorKind::Io))
}

/// Writes a file and gives it the object's name.
fn place(
    home: &Arc<Home>,
    name: &ObjectName,
    content: &Buffer,
    mode: PublishMode,
    origin: Origin,
) -> Result<(), StoreError> {
    let directory = Directory::of(name);
    let (file, temporary) = match make_temporary(home, directory, origin) {
        Err(Errno::NOENT) => {
            home.make_directories(directory)?;
            make_temporary(home, directory, origin)
        }
        other => other,
    }
    .map_err(|error| failed(error, "publish", name))?;
    let published = fill(home, name, file, content).and_then(|file| {
        give_name(home, &temporary, &layout::path(name), mode).map_err(|error| failed(error, "publish", name))?;
        // The lock is held until here, so nobody can take the file for a leftover.
        drop(file);
        Ok(())
    });
    if published.is_err() {
        // What cannot be removed now is removed when the directory is tidied.
        let _leftover = rustix::fs::unlinkat(&home.root, &temporary, AtFlags::empty());
    }
    published
}

pub(super) fn make_temporary(home: &Home, directory: Directory, origin: Origin) -> Result<(OwnedFd, CString), Errno> {
    for _ in 0..ATTEMPTS {
        let path = directory.entry(format_args!("{TEMPORARY}{}", uuid::Uuid::new_v4().simple()));
        let file = origin.file(home, &path)?;
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        match locked {
            // Not every file system has locks; without one nobody tidies either.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK) if rustix::fs::fstat(&file)?.st_nlink != 0 => {
                return Ok((file, path));
            }
            _ => {}
        }
    }
    Err(Errno::BUSY)
}

fn fill(home: &Arc<Home>, name: &ObjectName, file: OwnedFd, content: &Buffer) -> Result<OpenFile, StoreError> {
    let file = OpenFile::new(name.clone(), file, false);
    transfer::run(home, &file, Direction::Write(Durability::Cached), 0, content)?;
    // One from the reserve may have been longer.
    let len = u64::try_from(content.len()).expect("a length in memory fits in 64 bits");
    rustix::fs::ftruncate(file.fd(), len).map_err(|error| failed(error, "publish", name))?;
    file.sync().map_err(|error| failed(error, "publish", name))?;
    Ok(file)
}

pub(super) fn give_name(home: &Home, temporary: &CStr, path: &CStr, mode: PublishMode) -> Result<(), Errno> {
    let root = &home.root;
    match mode {
        PublishMode::Replace => rustix::fs::renameat(root, temporary, root, path),
        PublishMode::Exclusive => {
            match rustix::fs::renameat_with(root, temporary, root, path, RenameFlags::NOREPLACE) {
                // NFS and some others: a link is exclusive everywhere.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::linkat(root, temporary, root, path, AtFlags::empty())?;
                    rustix::fs::unlinkat(root, temporary, AtFlags::empty())
                }
                other => other,
            }
        }
    }
}

/// Removes what processes that died while publishing left in a directory. What cannot be removed stays.
pub(super) fn tidy(home: &Home, directory: Directory) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(entries) = rustix::fs::openat(&home.root, directory.path(), flags, Mode::empty()).and_then(Dir::new) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
            let path = directory.entry(entry.file_name().to_string_lossy());
            let _still_locked = remove_if_dead(home, &path);
        }
    }
}

fn remove_if_dead(home: &Home, path: &CStr) -> Result<(), Errno> {
    let file = rustix::fs::openat(&home.root, path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::unlinkat(&home.root, path, AtFlags::empty())
}
