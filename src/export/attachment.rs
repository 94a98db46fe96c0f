//! What an attachment is asked to be, and what it is.

use super::socket::SocketOwner;
use crate::device::{QueueStatistics, RequestTimeout};
use crate::units::{VolumeName, VolumeSize};
use crate::volume::Access;
use std::fmt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where front-ends come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket that we make.
    Path { path: PathBuf, owner: SocketOwner },
    /// A listening socket that somebody gave us.
    Listener(UnixListener),
    /// One front-end that is connected already; the attachment ends with it.
    Connection(UnixStream),
}

/// A volume to serve.
#[derive(Debug)]
pub struct AttachRequest {
    pub volume: VolumeName,
    pub endpoint: Endpoint,
    pub queues: u16,
    pub access: Access,
    /// `None`: as the daemon's other attachments.
    pub request_timeout: Option<RequestTimeout>,
}

impl Endpoint {
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path { path, .. } => Some(path),
            Self::Listener(_) | Self::Connection(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, .. } => write!(f, "{}", path.display()),
            Self::Listener(_) => f.write_str("an inherited listening socket"),
            Self::Connection(_) => f.write_str("an inherited connection"),
        }
    }
}

/// The life of an attachment; the module's drawing has the transitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The volume is being opened.
    Opening,
    /// Waiting for a front-end. `last_error` tells how the last one ended, if badly.
    Listening {
        last_error: Option<String>,
    },
    Connected {
        since: SystemTime,
    },
    /// Serves nobody until it is detached and attached again.
    Failed {
        reason: String,
    },
    /// On its way out: requests in flight are being finished.
    Stopping,
}

/// An attachment at one moment.
#[derive(Debug, Clone)]
pub struct AttachmentStatus {
    pub volume: VolumeName,
    /// `None` for an inherited descriptor.
    pub socket: Option<PathBuf>,
    /// What it listens on, for people.
    pub endpoint: String,
    pub queues: u16,
    pub access: Access,
    pub request_timeout: RequestTimeout,
    pub state: State,
    /// `None` until the volume is open.
    pub size: Option<VolumeSize>,
    /// By queue index, counted since the attachment was made.
    pub statistics: Vec<QueueStatistics>,
    pub connections: u64,
}
