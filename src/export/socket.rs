//! Unix sockets as files: made without a moment of wrong permissions, replaced when stale, removed when done.
//!
//! Invariants: a path at which somebody listens is never taken away from them; what is not a socket is never removed; a
//! socket file is removed only while it is the one we made. The directory may belong to somebody whom we do not trust: it
//! is opened once, everything after goes by that descriptor, and no link in it is followed, so that its owner can hinder
//! us, but not turn our rights on a file of somebody else. Needs `/proc`. Used for the sockets of attachments and for the
//! control socket.

use super::ExportError;
use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
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

/// The mode of a socket file until the group is set: nobody else can connect.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

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
    place: Place,
    identity: (u64, u64),
}

/// A name in a directory that is held open.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
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
        let place = Place::find(path).map_err(listen_error)?;
        let lock = place.lock().map_err(listen_error)?;
        place.clear()?;
        let listener = bind_private(path).map_err(listen_error)?;
        let identity = place.open_to(owner).map_err(listen_error)?;
        drop(lock);
        Ok(Self { listener, file: SocketFile { place, identity } })
    }

    pub fn path(&self) -> &Path {
        &self.file.place.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.place.stat().is_ok_and(|now| identity(&now) == self.identity);
        if ours && let Err(error) = self.place.remove() {
            tracing::warn!(path = %self.place.path.display(), %error, "cannot remove the socket file");
        }
    }
}

impl Place {
    fn find(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(Errno::ISDIR)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // NONBLOCK: what is no directory must not make us wait before it is refused.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), directory, name })
    }

    /// Two processes that find the same stale socket must not each remove the other's new one, so looking, removing and
    /// binding happen under a lock of the directory.
    fn lock(&self) -> io::Result<Lock<'_>> {
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(self.directory.as_fd())),
                Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "another process keeps the directory locked"))
    }

    /// Removes a socket that nobody listens on any more.
    fn clear(&self) -> Result<(), ExportError> {
        let listen_error = |error: Errno| ExportError::Listen { path: self.path.clone(), source: error.into() };
        let file = match self.open() {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(listen_error(error)),
        };
        let found = rustix::fs::fstat(&file).map_err(listen_error)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(ExportError::NotASocket(self.path.clone()));
        }
        match connect(&file) {
            Err(Errno::CONNREFUSED) => {
                tracing::info!(path = %self.path.display(), "replacing the socket of a process that is gone");
                self.remove().map_err(listen_error)
            }
            // A full queue of connections is somebody's who listens.
            Ok(()) | Err(Errno::AGAIN) => Err(ExportError::SocketInUse(self.path.clone())),
            Err(error) => Err(listen_error(error)),
        }
    }

    /// Lets the owner in to the socket that was bound here just now; returns the file's identity.
    fn open_to(&self, owner: SocketOwner) -> io::Result<(u64, u64)> {
        let file = self.open()?;
        let found = rustix::fs::fstat(&file)?;
        if !is_fresh_socket(&found) {
            return Err(io::Error::other("somebody put something else in the socket's place"));
        }
        if owner.group.is_some() {
            rustix::fs::chownat(&file, "", None, owner.group, AtFlags::EMPTY_PATH)?;
        }
        rustix::fs::chmod(by_descriptor(&file), PRIVATE | Mode::RGRP | Mode::WGRP)?;
        Ok(identity(&found))
    }

    /// The file itself, whatever it is; a link is not followed, nor is anything done to what it names.
    fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())
    }

    fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn remove(&self) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())
    }
}

/// Given back when dropped; the directory stays open.
struct Lock<'a>(BorrowedFd<'a>);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(self.0, FlockOperation::Unlock) {
            tracing::warn!(%error, "cannot unlock the directory of a socket");
        }
    }
}

/// The kernel gives the new file the mode of the unbound socket, so nobody else can connect before the group is set;
/// the process's umask, which all threads share, is left alone.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = unbound(SocketFlags::CLOEXEC)?;
    rustix::fs::fchmod(&socket, PRIVATE)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Never waits: a listener that does not accept may have no room for us, for ever.
fn connect(file: &OwnedFd) -> rustix::io::Result<()> {
    let socket = unbound(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(by_descriptor(file))?)
}

fn unbound(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// As [`bind_private`] leaves it. A second link would be a file that lives elsewhere too.
fn is_fresh_socket(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Socket
        && Mode::from_raw_mode(found.st_mode).difference(PRIVATE).is_empty()
        && found.st_uid == rustix::process::geteuid().as_raw()
        && found.st_nlink == 1
}

fn by_descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
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
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixStream;

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
    fn a_link_in_the_sockets_place_leaves_the_file_it_names_alone() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "secret").unwrap();
        std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
        let path = dir.path().join("s");
        let place = Place::find(&path).unwrap();
        let _listener = bind_private(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert!(place.open_to(SocketOwner::default()).is_err());
        assert_eq!(std::fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn another_directory_in_the_place_of_ours_loses_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        std::fs::create_dir(&ours).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        let socket = BoundSocket::bind(&ours.join("s"), SocketOwner::default()).unwrap();
        std::fs::hard_link(ours.join("s"), theirs.join("s")).unwrap();
        std::fs::rename(&ours, dir.path().join("moved")).unwrap();
        symlink(&theirs, &ours).unwrap();
        drop(socket);
        assert!(theirs.join("s").exists());
        assert!(!dir.path().join("moved/s").exists());
    }

    #[test]
    fn a_listener_that_accepts_nobody_makes_nobody_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = bind_private(&path).unwrap();
        let place = Place::find(&path).unwrap();
        let file = place.open().unwrap();
        let waiting = std::iter::from_fn(|| {
            let socket = unbound(SocketFlags::NONBLOCK).unwrap();
            rustix::net::connect(&socket, &SocketAddrUnix::new(by_descriptor(&file)).unwrap()).ok().map(|()| socket)
        });
        let _waiting: Vec<_> = waiting.collect();
        assert!(matches!(BoundSocket::bind(&path, SocketOwner::default()), Err(ExportError::SocketInUse(_))));
    }

    #[test]
    fn a_pipe_in_the_directorys_place_makes_nobody_wait() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, PRIVATE, 0).unwrap();
        assert!(matches!(BoundSocket::bind(&pipe.join("s"), SocketOwner::default()), Err(ExportError::Listen { .. })));
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
