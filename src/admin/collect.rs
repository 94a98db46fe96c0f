//! `gc`: removes what no volume names (design §10, rule C10).

use super::branch::Opened;
use super::job::Job;
use crate::store::Store;
use crate::volume::VolumeError;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Only says what would be removed.
    pub dry_run: bool,
    /// Memory for the marks, in bytes; what does not fit goes to `spill_dir`.
    pub memory_bytes: u64,
    pub spill_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectReport {
    pub volumes: u64,
    pub objects_kept: u64,
    /// Objects and segments removed, or to be removed, and their bytes.
    pub objects_removed: u64,
    pub bytes_removed: u64,
    /// Removed volumes of which nothing is left now.
    pub volumes_forgotten: u64,
    pub cancelled: bool,
}

/// # Errors
/// When another collection runs, something cannot be read (then nothing was removed), or not be removed.
pub fn collect(
    _store: &Arc<dyn Store>,
    _opened: &dyn Opened,
    _options: &CollectOptions,
    _job: &Job,
) -> Result<CollectReport, VolumeError> {
    todo!()
}
