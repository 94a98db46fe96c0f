//! Unix sockets as files: made without a moment of wrong permissions, replaced when stale, removed when done.
//!
//! Invariants: a path at which somebody listens is never taken away from them; what is not a socket is never removed; a
//! socket file is removed only while it is the one we made. Used for the sockets of attachments and for the control
//! socket.

use super::ExportError;
use rustix::fs::{FlockOperation, Gid, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// `sun_path` less its final zero.
const PATH_BYTES_MAX: usize = 107;

/// Tries to lock the directory, [`LOCK_PAUSE`] apart: others hold the lock for a few system calls.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Connections that wait while another is served.
const BACKLOG: i32 = 16;

/// Who may connect: the owner and, when given, a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketOwner {
    pub group: Option<Gid>,
}

/// A listening socket with a name in the file system, which is removed when this is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    pub listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl BoundSocket {
    /// Listens on `path`, mode 0660.
    ///
    /// # Errors
    /// When somebody listens there, something else has the name, or the directory does not allow it.
    pub fn bind(path: &Path, owner: SocketOwner) -> Result<Self, ExportError> {
        let listen_error = |source: io::Error| ExportError::Listen { path: path.to_owned(), source };
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(ExportError::PathTooLong { path: path.to_owned(), max: PATH_BYTES_MAX });
        }
        let _lock = lock_directory(path).map_err(listen_error)?;
        clear(path)?;
        let listener = bind_private(path).map_err(listen_error)?;
        let metadata = std::fs::symlink_metadata(path).map_err(listen_error)?;
        let file = SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
        open_to(path, owner).map_err(listen_error)?;
        Ok(Self { listener, file })
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// Two processes that find the same stale socket must not each remove the other's new one, so looking, removing and
/// binding happen under a lock of the directory.
fn lock_directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent)?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process keeps the directory locked"))
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> Result<(), ExportError> {
    let listen_error = |source| ExportError::Listen { path: path.to_owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(listen_error(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ExportError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
            std::fs::remove_file(path).map_err(listen_error)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(ExportError::SocketInUse(path.to_owned())),
        Err(error) => Err(listen_error(error)),
    }
}

/// The kernel gives the new file the mode of the unbound socket, so nobody else can connect before the group is set;
/// the process's umask, which all threads share, is left alone.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn open_to(path: &Path, owner: SocketOwner) -> io::Result<()> {
    if owner.group.is_some() {
        rustix::fs::chown(path, None, owner.group)?;
    }
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)?;
    Ok(())
}

/// Looks a group up by name or number.
///
/// # Errors
/// When the host has no such group.
pub fn group(name: &str) -> Result<Gid, ExportError> {
    let number = name.parse().ok().or_else(|| group_in(&std::fs::read_to_string("/etc/group").ok()?, name));
    number.map(Gid::from_raw).ok_or_else(|| ExportError::NoSuchGroup(name.to_owned()))
}

fn group_in(file: &str, name: &str) -> Option<u32> {
    let mut entries = file.lines().map(|line| line.split(':'));
    entries.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_has_its_mode_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = BoundSocket::bind(&path, SocketOwner::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let socket = BoundSocket::bind(&path, SocketOwner::default()).unwrap();
        assert!(matches!(BoundSocket::bind(&path, SocketOwner::default()), Err(ExportError::SocketInUse(_))));
        drop(socket);
    }

    #[test]
    fn what_is_not_a_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(BoundSocket::bind(&path, SocketOwner::default()), Err(ExportError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_socket_that_somebody_else_made_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = BoundSocket::bind(&path, SocketOwner::default()).unwrap();
        let other = dir.path().join("other");
        let _theirs = UnixListener::bind(&other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_no_address_can_hold_is_an_error_of_its_own() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        assert!(matches!(
            BoundSocket::bind(&path, SocketOwner::default()),
            Err(ExportError::PathTooLong { max: 107, .. })
        ));
    }

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(group_in("root:x:0:\nkvm:x:104:a,b\n", "kvm"), Some(104));
        assert_eq!(group_in("root:x:0:\n", "kvm"), None);
    }
}
