//! Bytes of the map's structures. docs/map-format.md is the specification; nothing here does I/O.
//!
//! Encoding is total; decoding takes bytes that may be anything and answers with a [`FormatError`] that names the
//! structure and the field. No decoder allocates more than its input's length.

pub mod bytes;
pub mod header;
pub mod journal;
pub mod name;
pub mod overlay;
pub mod page;
pub mod segment;

/// A structure that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{structure} is damaged: {problem}")]
pub struct FormatError {
    pub structure: &'static str,
    pub problem: String,
}

impl FormatError {
    pub(crate) fn new(structure: &'static str, problem: impl Into<String>) -> Self {
        Self { structure, problem: problem.into() }
    }
}
