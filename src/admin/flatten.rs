//! `flatten`: a clone gets copies of all that it shares with its parent, and needs it no more.

use super::branch::Opened;
use super::job::Job;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::{OpenOptions, VolumeError};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlattenReport {
    /// Bytes copied.
    pub copied: u64,
    /// False when the job was cancelled: what was copied stays, and doing it again goes on.
    pub finished: bool,
}

/// # Errors
/// When the volume is not there, is held elsewhere, is a snapshot, or the store fails.
pub fn flatten(
    _store: &Arc<dyn Store>,
    _name: &VolumeName,
    _opened: &dyn Opened,
    _options: &OpenOptions,
    _job: &Job,
) -> Result<FlattenReport, VolumeError> {
    todo!()
}
