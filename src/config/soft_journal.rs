//! Where soft journals live: a directory on a memory file system of this host.
//!
//! A soft journal takes every change of a map before the guest hears of it, so that the death of the daemon loses
//! nothing. It must outlive the process but not the boot: a memory file system does exactly that, and a disk would make
//! every first write wait. All processes that may open the same volumes must use the same directory, so the default
//! depends only on the user and the host.

use rustix::fs::{self, Mode};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// statfs types of file systems that are memory (linux/magic.h).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

#[derive(Debug, thiserror::Error)]
pub enum SoftJournalError {
    #[error("cannot make the soft journal directory {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("the soft journal directory {} is not on a memory file system (tmpfs): choose another with --soft-journal-dir", .0.display())]
    NotMemory(PathBuf),
    #[error("the soft journal directory {} belongs to user {owner}, not to user {us} who runs this: remove it or choose another with --soft-journal-dir", path.display())]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error("the soft journal directory {} can be written by other users: run `chmod 700` on it", .0.display())]
    Open(PathBuf),
}

/// Makes the directory if need be, and checks it.
///
/// # Errors
/// When it cannot be made, is not memory, belongs to another user, or others may write to it.
pub fn prepare(chosen: Option<&Path>) -> Result<PathBuf, SoftJournalError> {
    let path = directory(chosen);
    let create_error = |source| SoftJournalError::Create { path: path.clone(), source };
    match fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(create_error(error.into())),
    }
    if !is_memory(&path) {
        return Err(SoftJournalError::NotMemory(path));
    }
    let metadata = std::fs::symlink_metadata(&path).map_err(create_error)?;
    let us = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() {
        return Err(create_error(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    if metadata.uid() != us {
        return Err(SoftJournalError::Foreign { path, owner: metadata.uid(), us });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(SoftJournalError::Open(path));
    }
    Ok(path)
}

/// Which directory it is, made or not.
pub fn directory(chosen: Option<&Path>) -> PathBuf {
    chosen.map_or_else(default_dir, Path::to_owned)
}

/// `/run/archvhost` for root, where that is memory; otherwise `/dev/shm/archvhost-UID`. Never a directory that a login's end
/// removes, or that one environment has and another has not.
fn default_dir() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() && is_memory(Path::new("/run")) {
        PathBuf::from("/run/archvhost")
    } else {
        PathBuf::from(format!("/dev/shm/archvhost-{}", user.as_raw()))
    }
}

fn is_memory(path: &Path) -> bool {
    fs::statfs(path).is_ok_and(|stat| matches!(stat.f_type, TMPFS_MAGIC | RAMFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_directory_is_made_for_its_owner_only() {
        let parent = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = prepare(Some(&parent.path().join("journals"))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(prepare(Some(&path)).unwrap(), path, "an existing directory is accepted");
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(prepare(Some(dir.path())), Err(SoftJournalError::Open(_))));
    }

    #[test]
    fn a_disk_is_refused() {
        assert!(matches!(prepare(Some(Path::new("/"))), Err(SoftJournalError::NotMemory(_))));
    }
}
