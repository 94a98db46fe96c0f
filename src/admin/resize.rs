//! `resize`: another size, also while a guest uses the volume.

use super::branch::Opened;
use super::info::VolumeInfo;
use super::job::Job;
use crate::store::Store;
use crate::units::{VolumeName, VolumeSize};
use crate::volume::{OpenOptions, VolumeError};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct ResizeRequest {
    pub volume: VolumeName,
    pub size: VolumeSize,
    pub shrink: Shrink,
}

/// Whether data behind the new end may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrink {
    Refuse,
    Allow,
}

/// The caller tells the guest, when the volume is attached (`Device::capacity_changed`).
///
/// # Errors
/// When the volume is not there, is held elsewhere, is a snapshot, or would shrink without leave.
pub fn resize(
    _store: &Arc<dyn Store>,
    _request: &ResizeRequest,
    _opened: &dyn Opened,
    _options: &OpenOptions,
    _job: &Job,
) -> Result<VolumeInfo, VolumeError> {
    todo!()
}
