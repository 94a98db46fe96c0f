//! `remove`: a volume and everything that is only its own.
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::VolumeError;
use std::sync::Arc;

/// # Errors
/// When there is no such volume, or it is held.
pub fn remove(_store: &Arc<dyn Store>, _name: &VolumeName, _progress: &mut dyn FnMut(u64)) -> Result<(), VolumeError> {
    todo!()
}
