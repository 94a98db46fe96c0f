//! What the daemon serves, and how it is.

use super::holding::HeldView;
use crate::device::QueueStatistics;
use crate::export::{AttachmentStatus, State};
use crate::volume::Access;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentView {
    pub volume: String,
    /// Absent for an inherited descriptor.
    pub socket: Option<String>,
    pub queues: u16,
    pub read_only: bool,
    /// Seconds that requests wait for the store; 0 is for ever.
    #[serde(default)]
    pub request_timeout: u64,
    /// `opening`, `listening`, `connected`, `failed` or `stopping`.
    pub state: String,
    /// Why it failed, or how the last connection ended if badly.
    pub reason: Option<String>,
    /// When the front-end connected, in seconds since 1970.
    pub connected_since: Option<u64>,
    pub size: Option<u64>,
    pub connections: u64,
    pub counters: CountersView,
}

/// Sums over the queues, since the attachment was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub errors: u64,
    pub notifications: u64,
    pub in_flight: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    pub version: String,
    pub protocol: u32,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub store: StoreView,
    pub attachments: Vec<AttachmentView>,
    /// Volumes that `open` and `lock` took.
    #[serde(default)]
    pub held: Vec<HeldView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreView {
    pub url: String,
    pub method: String,
    pub io_align: u32,
    pub persistent: bool,
}

impl From<AttachmentStatus> for AttachmentView {
    fn from(status: AttachmentStatus) -> Self {
        let (state, reason, since) = state_view(status.state);
        Self {
            volume: status.volume.to_string(),
            socket: status.socket.map(|path| path.to_string_lossy().into_owned()),
            queues: status.queues,
            read_only: status.access == Access::ReadOnly,
            request_timeout: status.request_timeout.duration().map_or(0, |time| time.as_secs()),
            state: state.into(),
            reason,
            connected_since: since.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs()),
            size: status.size.map(|size| size.bytes()),
            connections: status.connections,
            counters: CountersView::sum(&status.statistics),
        }
    }
}

fn state_view(state: State) -> (&'static str, Option<String>, Option<SystemTime>) {
    match state {
        State::Opening => ("opening", None, None),
        State::Listening { last_error } => ("listening", last_error, None),
        State::Connected { since } => ("connected", None, Some(since)),
        State::Failed { reason } => ("failed", Some(reason), None),
        State::Stopping => ("stopping", None, None),
    }
}

impl CountersView {
    fn sum(queues: &[QueueStatistics]) -> Self {
        queues.iter().fold(Self::default(), |sum, queue| Self {
            reads: sum.reads.wrapping_add(queue.reads),
            writes: sum.writes.wrapping_add(queue.writes),
            flushes: sum.flushes.wrapping_add(queue.flushes),
            discards: sum.discards.wrapping_add(queue.discards),
            bytes_read: sum.bytes_read.wrapping_add(queue.bytes_read),
            bytes_written: sum.bytes_written.wrapping_add(queue.bytes_written),
            errors: sum.errors.wrapping_add(queue.errors),
            notifications: sum.notifications.wrapping_add(queue.notifications),
            in_flight: sum.in_flight.wrapping_add(queue.in_flight),
        })
    }
}
