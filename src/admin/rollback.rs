//! `rollback`: a volume becomes again what one of its snapshots is.

use super::info::VolumeInfo;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::{OpenOptions, VolumeError};
use std::sync::Arc;

/// The volume must not be open anywhere, and the snapshot must be its own, or the one that it was cloned from.
///
/// # Errors
/// When one of the two is not there, the volume is in use, or they do not belong together.
pub fn rollback(
    _store: &Arc<dyn Store>,
    _volume: &VolumeName,
    _snapshot: &VolumeName,
    _options: &OpenOptions,
) -> Result<VolumeInfo, VolumeError> {
    todo!()
}
