//! The messages of the control socket, version 1.
//!
//! JSON-RPC 2.0, one message per line. Compatible growth: new methods, new members of results, new parameters that
//! can be left out. Anything else raises [`PROTOCOL`]. Sizes are bytes; times are seconds. The same types are what `--json` prints, so both stay stable
//! together. docs/control-protocol.md is the manual; change both. Here is the envelope; what is asked for stands in
//! [`params`], what is answered in the other modules.

use super::failure::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod attachments;
pub mod branches;
pub mod holding;
pub mod params;
pub mod upkeep;
pub mod volumes;

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

impl ErrorObject {
    /// The failure, which an error of the protocol itself does not carry.
    pub fn into_failure(self) -> Failure {
        self.data.unwrap_or_else(|| Failure::new(FailureKind::Protocol, self.message))
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
