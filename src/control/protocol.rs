//! The messages of the control socket, version 1.
//!
//! JSON-RPC 2.0, one message per line. Compatible growth: new methods, new members of results. Anything else raises
//! [`PROTOCOL`]. Sizes are bytes; times are seconds. The same types are what `--json` prints, so both stay stable
//! together. docs/control-protocol.md is the manual; change both.

use super::failure::Failure;
use crate::admin::export::ExportReport;
use crate::admin::import::ImportReport;
use crate::admin::info::{VolumeInfo, VolumeState};
use crate::device::QueueStatistics;
use crate::export::{AttachmentStatus, State};
use crate::volume::{Access, VolumeError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

pub const PROTOCOL: u32 = 1;

/// Longest message, in bytes, either way but for results: room for any request, none for an attack on our memory.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// JSON-RPC's own error codes, and the one for [`Failure`]s.
pub mod code {
    pub const PARSE: i32 = -32700;
    pub const INVALID_REQUEST: i32 = -32600;
    pub const METHOD_NOT_FOUND: i32 = -32601;
    pub const INVALID_PARAMS: i32 = -32602;
    pub const FAILURE: i32 = -32000;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub jsonrpc: String,
    /// A number or a string; absent in notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    pub method: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// What the server sends: an answer, or a notification of progress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    pub jsonrpc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    pub code: i32,
    pub message: String,
    /// The failure, when the code is [`code::FAILURE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Failure>,
}

impl Reply {
    pub fn result(id: Value, result: Value) -> Self {
        Self { id: Some(id), result: Some(result), ..Self::empty() }
    }

    pub fn error(id: Value, error: ErrorObject) -> Self {
        Self { id: Some(id), error: Some(error), ..Self::empty() }
    }

    pub fn progress(progress: &ProgressParams) -> Self {
        Self { method: Some("progress".into()), params: serde_json::to_value(progress).ok(), ..Self::empty() }
    }

    fn empty() -> Self {
        Self { jsonrpc: "2.0".into(), id: None, result: None, error: None, method: None, params: None }
    }
}

impl ErrorObject {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

impl From<Failure> for ErrorObject {
    fn from(failure: Failure) -> Self {
        Self { code: code::FAILURE, message: failure.to_string(), data: Some(failure) }
    }
}

/// `hello`: the versions of both sides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelloParams {
    pub protocol: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HelloResult {
    pub protocol: u32,
    pub version: String,
    pub store: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateParams {
    pub name: String,
    /// May be left out where the store implies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size: Option<u64>,
}

/// `info`, `remove`, `export`, `detach`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameParams {
    pub name: String,
}

/// `import`: the image is a descriptor that comes with the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportParams {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachParams {
    pub name: String,
    /// Absolute.
    pub socket: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    #[serde(default)]
    pub read_only: bool,
}

/// `cancel`: the id of the request to cancel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    pub id: Value,
}

/// The notification `progress`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressParams {
    /// The id of the request whose progress this is.
    pub id: Value,
    pub done: u64,
    /// Zero while it is not known.
    pub total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    pub name: String,
    pub id: String,
    pub size: u64,
    pub object_size: u64,
    /// `closed`, `open` or `removing`.
    pub state: String,
    pub holder: Option<HolderView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub host: String,
    pub pid: u32,
}

/// One element of `list`: a volume, or why it cannot be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ListEntryView {
    Volume(VolumeView),
    Unreadable { name: String, error: Failure },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportView {
    #[serde(flatten)]
    pub volume: VolumeView,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportView {
    pub name: String,
    pub size: u64,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentView {
    pub volume: String,
    /// Absent for an inherited descriptor.
    pub socket: Option<String>,
    pub queues: u16,
    pub read_only: bool,
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
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreView {
    pub url: String,
    pub method: String,
    pub io_align: u32,
    pub persistent: bool,
}

impl From<VolumeInfo> for VolumeView {
    fn from(info: VolumeInfo) -> Self {
        let state = match info.state {
            VolumeState::Closed => "closed",
            VolumeState::Open => "open",
            VolumeState::Removing => "removing",
        };
        Self {
            name: info.name.to_string(),
            id: info.id.to_string(),
            size: info.size.bytes(),
            object_size: info.object_size.bytes(),
            state: state.into(),
            holder: info.holder.map(|holder| HolderView { host: holder.host, pid: holder.pid }),
        }
    }
}

impl ListEntryView {
    pub fn new((name, info): (crate::units::VolumeName, Result<VolumeInfo, VolumeError>)) -> Self {
        match info {
            Ok(info) => Self::Volume(info.into()),
            Err(error) => Self::Unreadable { name: name.to_string(), error: error.into() },
        }
    }
}

impl From<ImportReport> for ImportView {
    fn from(report: ImportReport) -> Self {
        Self { volume: report.volume.into(), bytes_written: report.written }
    }
}

impl ExportView {
    pub fn new(name: String, report: ExportReport) -> Self {
        Self { name, size: report.size, bytes_written: report.written }
    }
}

impl From<AttachmentStatus> for AttachmentView {
    fn from(status: AttachmentStatus) -> Self {
        let (state, reason, since) = state_view(status.state);
        Self {
            volume: status.volume.to_string(),
            socket: status.socket.map(|path| path.to_string_lossy().into_owned()),
            queues: status.queues,
            read_only: status.access == Access::ReadOnly,
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
