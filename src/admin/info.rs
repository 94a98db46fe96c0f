//! `info` and `list`: what is known of volumes without opening them.
use crate::store::Store;
use crate::units::{ObjectSize, VolumeId, VolumeName, VolumeSize};
use crate::volume::VolumeError;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub name: VolumeName,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
    /// "closed", "open" (a holder has it or died with it) …
    pub state: VolumeState,
    /// Who has, or last had, the lease.
    pub holder: Option<HolderInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// Nobody has it; it was closed in order.
    Closed,
    /// A holder has it, or died with it.
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderInfo {
    pub host: String,
    pub pid: u32,
}

/// # Errors
/// When there is no such volume or its header is damaged.
pub fn info(_store: &Arc<dyn Store>, _name: &VolumeName) -> Result<VolumeInfo, VolumeError> {
    todo!()
}

/// All names in the store in ascending order, each with what could be read of it: one damaged volume hides no other.
///
/// # Errors
/// When the store cannot be listed.
pub fn list(_store: &Arc<dyn Store>) -> Result<Vec<(VolumeName, Result<VolumeInfo, VolumeError>)>, VolumeError> {
    todo!()
}
