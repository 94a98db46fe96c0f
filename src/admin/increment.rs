//! Streams: what `export --from OLD NEW` writes and `import` reads; docs/stream-format.md has the bytes.

use super::export::ExportReport;
use super::job::Job;
use super::transfer::TransferError;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::OpenOptions;
use std::fs::File;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// What is exported: a snapshot.
    pub name: VolumeName,
    /// The snapshot that the other side has already; all of `name` is exported without one.
    pub from: Option<VolumeName>,
    /// As an interrupted import told it: where to go on.
    pub resume: Option<String>,
}

/// # Errors
/// As [`super::export::export`], and when the two are not snapshots of one line.
pub fn export_stream(
    _store: &Arc<dyn Store>,
    _request: &StreamRequest,
    _options: &OpenOptions,
    _target: File,
    _job: &Job,
) -> Result<ExportReport, TransferError> {
    todo!()
}
