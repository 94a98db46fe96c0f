//! Sockets that another program made and passed on: `--fd N`, and systemd's socket activation.

#![allow(unsafe_code, reason = "a descriptor that is known by its number can only be owned by saying so")]

use crate::control::failure::{Failure, FailureKind};
use crate::export::{Endpoint, ExportError};
use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

#[derive(Debug)]
pub enum Inherited {
    Listener(UnixListener),
    Connection(UnixStream),
}

impl From<Inherited> for Endpoint {
    fn from(inherited: Inherited) -> Self {
        match inherited {
            Inherited::Listener(listener) => Self::Listener(listener),
            Inherited::Connection(stream) => Self::Connection(stream),
        }
    }
}

/// The socket that systemd hands over (`LISTEN_FDS`), if any.
///
/// # Errors
/// When there are several, or it is no Unix socket.
pub fn from_supervisor() -> Result<Option<Inherited>, Failure> {
    let unusable =
        |error| Failure::because(FailureKind::Usage, "cannot take the sockets of the supervisor (LISTEN_FDS)", &error);
    let mut descriptors = sd_notify::listen_fds().map_err(unusable)?;
    match (descriptors.next(), descriptors.next()) {
        (None, _) => Ok(None),
        (Some(fd), None) => Ok(Some(from_number(fd)?)),
        (Some(_), Some(_)) => Err(Failure::new(
            FailureKind::Usage,
            "the supervisor hands over several sockets (LISTEN_FDS): one is expected",
        )),
    }
}

/// The socket with this number. Must be called once per number at most, before anything else uses it.
///
/// # Errors
/// When it is not open, or not a Unix socket.
pub fn from_number(fd: RawFd) -> Result<Inherited, ExportError> {
    let bad = |reason| ExportError::BadDescriptor { fd, reason };
    // SAFETY: fcntl looks at the number only; one that is not open gives EBADF.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(bad("it is not open"));
    }
    // SAFETY: it is open, as fcntl just said, and nobody else has closed it: we are still reading our arguments.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    if !matches!(socket_domain(borrowed), Ok(AddressFamily::UNIX)) {
        return Err(bad("it is not a Unix socket"));
    }
    let listening = socket_acceptconn(borrowed).map_err(|_| bad("it cannot be asked whether it listens"))?;
    // SAFETY: the caller passed the descriptor to this process for this purpose, and we take it over once.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(if listening { Inherited::Listener(owned.into()) } else { Inherited::Connection(owned.into()) })
}
