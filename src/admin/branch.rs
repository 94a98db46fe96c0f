//! `snapshot` and `clone`: a new volume that begins as another is at one moment.

use super::info::VolumeInfo;
use crate::store::Store;
use crate::units::{VolumeName, VolumeSize};
use crate::volume::{OpenOptions, Volume, VolumeError};
use std::sync::Arc;
use std::time::Duration;

/// One snapshot of a group.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    pub volume: VolumeName,
    pub name: VolumeName,
}

#[derive(Debug, Clone)]
pub struct CloneRequest {
    pub source: VolumeName,
    pub name: VolumeName,
    /// The source's size when not given; never less.
    pub size: Option<VolumeSize>,
}

#[derive(Debug, Clone)]
pub struct BranchReport {
    /// In the order of the requests.
    pub volumes: Vec<VolumeInfo>,
    /// How long writes waited.
    pub pause: Duration,
}

/// Where a verb finds a volume that it works on: open in this process, or to be opened for the occasion.
pub trait Opened {
    /// The volume, if this process has it open for writing.
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>>;
}

/// All snapshots are of the same instant, and either all of them exist afterwards or none.
///
/// # Errors
/// When a name is taken, a volume is not there or held elsewhere, or the store fails.
pub fn snapshot(
    _store: &Arc<dyn Store>,
    _requests: &[SnapshotRequest],
    _opened: &dyn Opened,
    _options: &OpenOptions,
) -> Result<BranchReport, VolumeError> {
    todo!()
}

/// # Errors
/// As [`snapshot`], and when the size is less than the source's.
pub fn clone(
    _store: &Arc<dyn Store>,
    _request: &CloneRequest,
    _opened: &dyn Opened,
    _options: &OpenOptions,
) -> Result<BranchReport, VolumeError> {
    todo!()
}
