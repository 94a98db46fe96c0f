//! Opening the store's directory: it is one already, it can become one, or it is left alone with a clear word why.
//!
//! A directory becomes a store only when it is empty (a new file system's `lost+found` does not count) and the caller
//! wants that. The format file is put in place atomically and first; the directories are made whenever they are missing,
//! so a crash in between is mended by the next opening.

use super::layout::Directory;
use crate::store::open::IfMissing;
use crate::store::{StoreError, StoreErrorKind};
use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The format file's name.
pub(super) const FORMAT_FILE: &CStr = c"archvhost-store";

/// A format file is this long, so that O_DIRECT can be tried on it.
const FORMAT_LEN: usize = 4096;

const FIRST_LINE: &str = "archvhost store, layout version 1\n";

const EXPLANATION: &str = "\nThis directory holds the volumes of archvhost, a file for each object.\n\
    Its files are not meant to be read or changed by hand; `archvhost --store file:DIR list` says what is there.\n";

/// Directories of a store, with everything private to the daemon's user and group.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// An opened store directory.
pub(super) struct Opened {
    pub(super) root: OwnedFd,
    /// The format file: never written, so its `fdatasync` is a device flush and nothing else.
    pub(super) format: OwnedFd,
}

/// # Errors
/// When the directory cannot be used as a store; the text says what is wrong with it.
pub(super) fn open_directory(path: &Path, if_missing: IfMissing) -> Result<Opened, StoreError> {
    let refuse = |kind, why: &str| StoreError::new(kind, "open", format_args!("store {} ({why})", path.display()));
    let failed = |error: Errno| StoreError::from_io(error.into(), "open", format_args!("store {}", path.display()));
    let root = match open_root(path) {
        Err(Errno::NOENT) if if_missing == IfMissing::Create => {
            make_root(path).map_err(|error| match error {
                Errno::NOENT => refuse(StoreErrorKind::NotFound, "nor does the directory it should be made in"),
                other => failed(other),
            })?;
            open_root(path).map_err(failed)?
        }
        Err(Errno::NOENT) => return Err(refuse(StoreErrorKind::NotFound, "there is no such directory")),
        Err(Errno::NOTDIR) => return Err(refuse(StoreErrorKind::Unsupported, "it is not a directory")),
        other => other.map_err(failed)?,
    };
    match rustix::fs::accessat(&root, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()) {
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {
            return Err(refuse(StoreErrorKind::NotWritable, "its directory is read-only for this user"));
        }
        other => other.map_err(failed)?,
    }
    if !has_format(&root).map_err(failed)? {
        match (is_empty(&root).map_err(failed)?, if_missing) {
            (false, _) => {
                let why = "the directory holds other files and no archvhost-store; give an empty or a new one";
                return Err(refuse(StoreErrorKind::Unsupported, why));
            }
            (true, IfMissing::Refuse) => return Err(refuse(StoreErrorKind::NotFound, "the directory is empty")),
            (true, IfMissing::Create) => write_format(&root).map_err(failed)?,
        }
    }
    let format =
        rustix::fs::openat(&root, FORMAT_FILE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    if !is_our_version(&format).map_err(failed)? {
        return Err(refuse(StoreErrorKind::Unsupported, "its archvhost-store file is of another version, or damaged"));
    }
    make_directories(&root).map_err(failed)?;
    Ok(Opened { root, format })
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn make_root(path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, DIRECTORY_MODE) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::fsync(open_root(parent)?)
}

fn has_format(root: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::statat(root, FORMAT_FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nothing but what a new file system brings, or what a crashed attempt of ours left.
fn is_empty(root: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(root)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b".." | b"lost+found") && !name.starts_with(b".new.") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_format(root: &OwnedFd) -> Result<(), Errno> {
    let temporary = format!(".new.{}", uuid::Uuid::new_v4().simple());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, &temporary, flags, FILE_MODE)?;
    let mut content = format!("{FIRST_LINE}{EXPLANATION}").into_bytes();
    content.resize(FORMAT_LEN, b'\n');
    let mut rest = content.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::fdatasync(&file)?;
    // Another process may be doing the same; the first one wins, with the same content.
    match rustix::fs::renameat_with(root, &temporary, root, FORMAT_FILE, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => rustix::fs::unlinkat(root, &temporary, AtFlags::empty()),
        Err(Errno::INVAL) => rustix::fs::renameat(root, &temporary, root, FORMAT_FILE),
        other => other,
    }?;
    rustix::fs::fsync(root)
}

fn is_our_version(format: &OwnedFd) -> Result<bool, Errno> {
    let mut start = [0; FIRST_LINE.len()];
    let read = rustix::io::pread(format, &mut start, 0)?;
    Ok(start[..read] == *FIRST_LINE.as_bytes())
}

/// The three directories that every store has.
fn make_directories(root: &OwnedFd) -> Result<(), Errno> {
    let mut made = false;
    for directory in [Directory::Names, Directory::Volumes, Directory::Data] {
        match make_directory(root.as_fd(), directory) {
            Ok(()) => made = true,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    if made { rustix::fs::fsync(root) } else { Ok(()) }
}

pub(super) fn open_directory_below(root: impl AsFd, directory: Directory) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(root, directory.path(), flags, Mode::empty())
}

/// Makes one directory whose parent exists.
pub(super) fn make_directory(root: impl AsFd, directory: Directory) -> Result<(), Errno> {
    rustix::fs::mkdirat(root, directory.path(), DIRECTORY_MODE)
}

/// The mode of every file that is created.
pub(super) fn file_mode() -> Mode {
    FILE_MODE
}
