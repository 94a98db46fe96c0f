//! Why a volume cannot be attached or detached.

use crate::device::DeviceError;
use crate::units::VolumeName;
use crate::volume::VolumeError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("volume {volume} is attached already, at {endpoint}: detach it first")]
    Attached { volume: VolumeName, endpoint: String },
    #[error("the socket {path} belongs to the attachment of volume {volume}: choose another path")]
    SocketTaken { path: String, volume: VolumeName },
    #[error("volume {0} is not attached: `archvhost attachments` lists what is")]
    NotAttached(VolumeName),
    #[error("cannot listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot listen on {}: the path is longer than the {max} bytes of a socket address", path.display())]
    PathTooLong { path: PathBuf, max: usize },
    #[error("cannot listen on {}: another process listens there", .0.display())]
    SocketInUse(PathBuf),
    #[error("cannot listen on {}: something that is not a socket has that name", .0.display())]
    NotASocket(PathBuf),
    #[error("there is no group {0:?} on this host")]
    NoSuchGroup(String),
    #[error("file descriptor {fd} cannot be served: {reason}")]
    BadDescriptor { fd: i32, reason: &'static str },
    #[error("cannot start a thread for volume {volume}")]
    Thread { volume: VolumeName, source: io::Error },
    #[error("volume {0} is not held open here")]
    NotOpen(VolumeName),
    #[error("volume {0} is not locked here (`--force` cuts off whoever else has it)")]
    NotLocked(VolumeName),
    #[error("volume {0} is held open by this daemon: close it first")]
    HeldOpen(VolumeName),
    #[error("volume {0} is locked by this daemon: unlock it first")]
    Locked(VolumeName),
    #[error("volume {0} is being opened, locked or closed at this moment")]
    Changing(VolumeName),
    #[error("the daemon is stopping")]
    Stopping,
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}
