//! `create`: a new, empty volume.
use super::info::VolumeInfo;
use crate::store::Store;
use crate::units::{ObjectSize, VolumeName, VolumeSize};
use crate::volume::VolumeError;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub name: VolumeName,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
}

/// # Errors
/// When the name is taken or the store cannot be written.
pub fn create(_store: &Arc<dyn Store>, _request: &CreateRequest) -> Result<VolumeInfo, VolumeError> {
    todo!()
}
