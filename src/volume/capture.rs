//! Capturing volumes at one instant, and amending what a header says of an open volume. What snapshots, clones and resizing
//! are made of.

use super::{Volume, VolumeError};
use crate::map::format::header::{Header, Limits, Receiving};
use crate::units::{VolumeId, VolumeSize};
use std::sync::Arc;
use std::time::Duration;

/// A volume as of one instant: `header` has the root, and is durable. Until this is dropped the volume's keeper makes no
/// checkpoint, so the root stays named by that header: make the header of what descends from it durable first.
pub struct Captured {
    pub header: Header,
    /// How long writes in place had to wait.
    pub pause: Duration,
}

/// A change of what the header says; durable when [`Volume::amend`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendment {
    /// Nothing: a checkpoint, after which the persisted map names all that was written before.
    Checkpoint,
    Size(VolumeSize),
    Limits(Limits),
    /// Nothing of it lies in another volume's objects any more.
    NoParent,
    /// Nothing of it lies in objects that somebody else may still write (rule C4).
    NoUnfenced,
    /// Whose bytes it has.
    Content {
        content: Option<VolumeId>,
        receiving: Option<Receiving>,
    },
}

impl Volume {
    /// Captures open volumes, all at the same instant (rule C8): no write in place is under way at it, whatever completed before
    /// is in it, and everything that the maps name then is never written in place again. The guest waits only for that
    /// instant; then data, pages and headers are made durable while it goes on.
    ///
    /// # Errors
    /// When one of them is open read-only, failed, or cannot be made durable; nothing but some sharing has happened then.
    pub async fn capture(_volumes: &[Arc<Volume>]) -> Result<Vec<Captured>, VolumeError> {
        todo!()
    }

    /// Changes what the header says, with a checkpoint. Size and limits take effect for requests from now on.
    ///
    /// # Errors
    /// As a flush; also when the volume is open read-only.
    pub async fn amend(&self, _amendment: Amendment) -> Result<(), VolumeError> {
        todo!()
    }
}
