//! What can go wrong with a volume.

use crate::store::{StoreError, StoreErrorKind};
use std::fmt;

/// Callers match on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VolumeErrorKind {
    /// No volume has that name.
    NotFound,
    /// The name is taken.
    Exists,
    /// The range leaves the volume, or is not a multiple of 512 bytes.
    OutOfRange,
    /// A write to a volume that is open read-only.
    ReadOnly,
    /// The store is full; space must be freed, after which writes go on.
    NoSpace,
    /// Something stored does not parse, or is missing; the text names it.
    Damaged,
    /// Another process or host holds the lease.
    Held,
    /// Another host took the lease over: this one must stop.
    Superseded,
    /// An earlier sync failed, so what is durable is unknown; the volume serves no writes until it is opened again.
    Failed,
    /// The volume is in use, or in a state that does not allow this.
    Busy,
    /// Whoever asked for it did not want it any more, and it was not complete.
    Interrupted,
    /// The store failed.
    Store,
}

/// Displayed as one line; [`std::error::Error::source`] has the cause.
///
/// One pointer wide, as [`StoreError`] is, and for the same reason.
#[derive(Debug, Clone)]
pub struct VolumeError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    kind: VolumeErrorKind,
    text: String,
    source: Option<StoreError>,
}

impl VolumeError {
    /// `text` names the volume or the thing in it, and says what to do if anything can be done.
    pub fn new(kind: VolumeErrorKind, text: impl Into<String>) -> Self {
        Self(Box::new(Details { kind, text: text.into(), source: None }))
    }

    /// A store's error, seen while doing what `text` says.
    pub fn from_store(source: StoreError, text: impl Into<String>) -> Self {
        let kind = match source.kind() {
            StoreErrorKind::NoSpace => VolumeErrorKind::NoSpace,
            StoreErrorKind::Held | StoreErrorKind::BeingRead => VolumeErrorKind::Held,
            StoreErrorKind::Lost => VolumeErrorKind::Superseded,
            StoreErrorKind::Damaged => VolumeErrorKind::Damaged,
            _ => VolumeErrorKind::Store,
        };
        Self(Box::new(Details { kind, text: text.into(), source: Some(source) }))
    }

    /// A store's error after which it is not known what is durable.
    pub fn failed(source: StoreError, text: impl Into<String>) -> Self {
        Self(Box::new(Details { kind: VolumeErrorKind::Failed, text: text.into(), source: Some(source) }))
    }

    pub fn kind(&self) -> VolumeErrorKind {
        self.0.kind
    }
}

impl From<StoreError> for VolumeError {
    fn from(source: StoreError) -> Self {
        Self::from_store(source, "the store failed")
    }
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for VolumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as &dyn std::error::Error)
    }
}
