//! Why a connection to a front-end, or a device, ended other than as it should.

use crate::store::StoreError;
use crate::volume::VolumeError;
use std::io;

/// Nothing here can be cured by trying again on the same connection; a front-end may connect anew.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("a device has 1 to {max} queues, not {0}", max = super::options::QUEUES_MAX)]
    QueueCount(u16),
    #[error("cannot {operation} the vhost-user connection")]
    Socket { operation: &'static str, source: io::Error },
    /// What the front-end sent makes no sense and it did not ask for an answer, or the framing is lost.
    #[error("the front-end's message {message} is refused: {reason}")]
    Protocol { message: String, reason: String },
    #[error("the front-end took away memory that it had shared (it truncated the file)")]
    MemoryLost,
    #[error("cannot start queue {queue}")]
    QueueStart { queue: u16, source: VolumeError },
    #[error("cannot watch the kick of queue {queue}")]
    Kick { queue: u16, source: StoreError },
    #[error("cannot start a thread for queue {queue}")]
    Thread { queue: u16, source: io::Error },
    #[error("the thread of queue {queue} ended by a fault of archvhost's own")]
    QueueDied { queue: u16 },
    #[error("another front-end is connected to this device")]
    Busy,
}
