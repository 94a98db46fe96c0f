//! `tree`: who descends from whom.

use super::info::VolumeInfo;
use crate::store::Store;
use crate::units::VolumeId;
use crate::volume::VolumeError;
use std::sync::Arc;

/// A volume with those that were made from it, oldest first.
#[derive(Debug, Clone)]
pub struct TreeNode {
    pub id: VolumeId,
    /// `None` when it was removed and only its descendants are left.
    pub volume: Option<VolumeInfo>,
    pub children: Vec<TreeNode>,
}

/// # Errors
/// When the store cannot be listed. A damaged volume is left out, and logged.
pub fn tree(_store: &Arc<dyn Store>) -> Result<Vec<TreeNode>, VolumeError> {
    todo!()
}
