//! What can go wrong in a store: a kind that callers match on, what was being done, to which object, and the cause.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Callers match on this. Only [`StoreErrorKind::Unavailable`] may go away by itself; the drivers' own retries are over
/// when an error is returned, and no layer above retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The object does not exist.
    NotFound,
    /// An exclusive creation found the object in place.
    Exists,
    /// The store is full, or over quota.
    NoSpace,
    /// The store cannot be written: read-only file system, missing permission.
    NotWritable,
    /// Another process holds the volume's lock for itself.
    Held,
    /// Readers hold the volume's lock.
    BeingRead,
    /// The volume's lock is not ours any more.
    Lost,
    /// The store cannot do this at all (wrong kind of file system, missing kernel feature).
    Unsupported,
    /// What the store itself keeps about the object is damaged, or of a later version.
    Damaged,
    /// The store, or its server, is not there.
    Unavailable,
    /// Anything else the device or kernel reports. Whether a failed write happened is unknown.
    Io,
}

/// Displayed as one line without the cause; [`std::error::Error::source`] has the cause.
///
/// One pointer wide: results travel through every layer of the fast path, and errors are rare.
#[derive(Debug, Clone)]
pub struct StoreError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    kind: StoreErrorKind,
    operation: &'static str,
    target: String,
    source: Option<Arc<io::Error>>,
}

impl StoreError {
    /// `operation` is a present-tense verb ("read"), `target` what it was done to.
    pub fn new(kind: StoreErrorKind, operation: &'static str, target: impl fmt::Display) -> Self {
        Self(Box::new(Details { kind, operation, target: target.to_string(), source: None }))
    }

    /// The kind follows from the error number.
    pub fn from_io(error: io::Error, operation: &'static str, target: impl fmt::Display) -> Self {
        let kind = kind_of(&error);
        Self(Box::new(Details { kind, operation, target: target.to_string(), source: Some(Arc::new(error)) }))
    }

    /// The same error, to be treated as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: StoreErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error, with what the operation was for.
    #[must_use]
    pub fn wanted_for(mut self, what: impl fmt::Display) -> Self {
        self.0.target = format!("{}, for {what}", self.0.target);
        self
    }

    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind
    }
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.raw_os_error() {
        Some(libc::ENOENT) => StoreErrorKind::NotFound,
        Some(libc::EEXIST) => StoreErrorKind::Exists,
        Some(libc::ENOSPC | libc::EDQUOT) => StoreErrorKind::NoSpace,
        Some(libc::EROFS | libc::EACCES | libc::EPERM) => StoreErrorKind::NotWritable,
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => StoreErrorKind::Unsupported,
        _ => StoreErrorKind::Io,
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.0.kind {
            StoreErrorKind::NotFound => "it does not exist",
            StoreErrorKind::Exists => "it exists already",
            StoreErrorKind::NoSpace => "the store is full",
            StoreErrorKind::NotWritable => "the store may not be written",
            StoreErrorKind::Held => "another process holds it",
            StoreErrorKind::BeingRead => "it is being read",
            StoreErrorKind::Lost => "another process has taken it over, or the store lost it",
            StoreErrorKind::Unsupported => "the store cannot do that",
            StoreErrorKind::Damaged => "it is damaged, or of a later version",
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Io => "input/output error",
        };
        write!(f, "cannot {} {}: {reason}", self.0.operation, self.0.target)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &dyn std::error::Error)
    }
}
