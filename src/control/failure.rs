//! An error as it leaves the process: a kind for programs, one line for people, and its causes.
//!
//! All errors of the layers below end here, on the daemon's side as on the command line's, so both tell the same story.

use crate::admin::transfer::TransferError;
use crate::config::ConfigError;
use crate::config::soft_journal::SoftJournalError;
use crate::daemon::DaemonError;
use crate::export::ExportError;
use crate::store::{StoreError, StoreErrorKind};
use crate::units::UnitError;
use crate::volume::{VolumeError, VolumeErrorKind};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// What programs match on; part of the protocol, and of the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request makes no sense, whatever the state of things.
    Usage,
    /// No volume, attachment or file has that name.
    NotFound,
    /// The name is taken.
    Exists,
    /// Another process or host uses the volume.
    Held,
    /// The volume, or the socket, is in use here.
    Busy,
    /// Something stored does not parse or is missing.
    Damaged,
    NoSpace,
    /// The store cannot be opened, read or written.
    Store,
    /// The caller may not do this.
    Denied,
    /// No daemon answers.
    Unreachable,
    /// The two sides do not understand each other.
    Protocol,
    Cancelled,
    /// Anything else; also a kind that a newer daemon has and we do not know.
    #[serde(other)]
    Failed,
}

/// See the module's text. `causes` go from the nearest to the deepest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    #[serde(default)]
    pub causes: Vec<String>,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new() }
    }

    /// `error` with its causes, each once: a message that contains its cause already does not repeat it.
    pub fn from_error(kind: FailureKind, error: &dyn Error) -> Self {
        let mut failure = Self::new(kind, error.to_string());
        failure.add_causes(error);
        failure
    }

    /// `message`, because of `cause`.
    pub fn because(kind: FailureKind, message: impl Into<String>, cause: &dyn Error) -> Self {
        let mut failure = Self::new(kind, message);
        failure.causes.push(cause.to_string());
        failure.add_causes(cause);
        failure
    }

    fn add_causes(&mut self, error: &dyn Error) {
        let mut said = self.causes.last().cloned().unwrap_or_else(|| self.message.clone());
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                self.causes.push(text.clone());
                said = text;
            }
            next = cause.source();
        }
    }
}

impl fmt::Display for Failure {
    /// One line: the message, then the causes, each behind a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let kind = match &error {
            DaemonError::Volume(error) => of_volume(error.kind()),
            DaemonError::Store(error) => of_store(error.kind()),
            DaemonError::Export(error) => of_export(error),
            DaemonError::Transfer(error) => of_transfer(error),
            DaemonError::InUse { .. } => FailureKind::Busy,
            DaemonError::HalfRemoved(_) => FailureKind::Cancelled,
            DaemonError::NotFrozen(_) | DaemonError::ThawedEarly(_) | DaemonError::SnapshotLeft { .. } => {
                FailureKind::Failed
            }
        };
        Self::from_error(kind, &error)
    }
}

impl From<VolumeError> for Failure {
    fn from(error: VolumeError) -> Self {
        DaemonError::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        DaemonError::from(error).into()
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        DaemonError::from(error).into()
    }
}

impl From<UnitError> for Failure {
    fn from(error: UnitError) -> Self {
        Self::from_error(FailureKind::Usage, &error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from_error(FailureKind::Usage, &error)
    }
}

impl From<SoftJournalError> for Failure {
    fn from(error: SoftJournalError) -> Self {
        Self::from_error(FailureKind::Failed, &error)
    }
}

fn of_volume(kind: VolumeErrorKind) -> FailureKind {
    match kind {
        VolumeErrorKind::NotFound => FailureKind::NotFound,
        VolumeErrorKind::Exists => FailureKind::Exists,
        VolumeErrorKind::OutOfRange | VolumeErrorKind::ReadOnly => FailureKind::Usage,
        VolumeErrorKind::NoSpace => FailureKind::NoSpace,
        VolumeErrorKind::Damaged => FailureKind::Damaged,
        VolumeErrorKind::Held | VolumeErrorKind::Superseded => FailureKind::Held,
        VolumeErrorKind::Busy => FailureKind::Busy,
        VolumeErrorKind::Interrupted => FailureKind::Cancelled,
        VolumeErrorKind::Store => FailureKind::Store,
        VolumeErrorKind::Failed => FailureKind::Failed,
    }
}

fn of_store(kind: StoreErrorKind) -> FailureKind {
    match kind {
        StoreErrorKind::NoSpace => FailureKind::NoSpace,
        StoreErrorKind::Damaged => FailureKind::Damaged,
        StoreErrorKind::Held | StoreErrorKind::BeingRead | StoreErrorKind::Lost => FailureKind::Held,
        StoreErrorKind::NotFound
        | StoreErrorKind::Exists
        | StoreErrorKind::NotWritable
        | StoreErrorKind::Unsupported
        | StoreErrorKind::Unavailable
        | StoreErrorKind::Io => FailureKind::Store,
    }
}

fn of_export(error: &ExportError) -> FailureKind {
    match error {
        ExportError::Attached { .. }
        | ExportError::SocketTaken { .. }
        | ExportError::SocketInUse(_)
        | ExportError::HeldOpen(_)
        | ExportError::Locked(_)
        | ExportError::Changing(_) => FailureKind::Busy,
        ExportError::NotAttached(_) | ExportError::NotOpen(_) | ExportError::NotLocked(_) => FailureKind::NotFound,
        ExportError::PathTooLong { .. } | ExportError::NoSuchGroup(_) | ExportError::BadDescriptor { .. } => {
            FailureKind::Usage
        }
        ExportError::Listen { .. }
        | ExportError::NotASocket(_)
        | ExportError::Thread { .. }
        | ExportError::Stopping
        | ExportError::Device(_) => FailureKind::Failed,
        ExportError::Volume(error) => of_volume(error.kind()),
    }
}

fn of_transfer(error: &TransferError) -> FailureKind {
    match error {
        TransferError::Volume(error) => of_volume(error.kind()),
        TransferError::LeftBehind { failure, .. } | TransferError::Interrupted { failure, .. } => of_transfer(failure),
        TransferError::Stream(_) => FailureKind::Damaged,
        TransferError::Token(_) | TransferError::OtherToken(_) => FailureKind::Usage,
        TransferError::Cancelled => FailureKind::Cancelled,
        TransferError::SizeUnknown | TransferError::ImageEmpty | TransferError::ImageTooLarge(_) => FailureKind::Usage,
        TransferError::ReadImage(_)
        | TransferError::WriteImage(_)
        | TransferError::TargetTooSmall { .. }
        | TransferError::NoFileSoLarge(_) => FailureKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = StoreError::from_io(std::io::Error::from_raw_os_error(libc::EACCES), "open", "/srv");
        let failure = Failure::from(VolumeError::from_store(cause, "cannot read volume web1"));
        let text = failure.to_string();
        assert_eq!(text.matches("may not be written").count(), 1, "{text}");
        assert!(text.contains("Permission denied"), "{text}");
    }

    #[test]
    fn a_kind_from_the_future_is_a_failure() {
        let kind: FailureKind = serde_json::from_str("\"melted\"").unwrap();
        assert_eq!(kind, FailureKind::Failed);
    }
}
