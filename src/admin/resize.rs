//! `resize`: another size, also while a guest uses the volume.
//!
//! Growing is one header. Shrinking is in [`crate::volume::shrink`]: what lay behind the new end is gone for good.

use super::branch::{Opened, Source};
use super::create::refuse_too_large;
use super::increment::received::before_resizing;
use super::info::{VolumeInfo, info};
use super::job::Job;
use crate::store::Store;
use crate::units::{ByteSize, VolumeName, VolumeSize};
use crate::volume::shrink::{Patience, Resized};
use crate::volume::{OpenOptions, Port, Volume, VolumeError, VolumeErrorKind};
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

impl Patience for Job {
    fn reached(&self, blocks: u64) -> bool {
        self.reached(blocks);
        !self.is_cancelled()
    }
}

/// The caller tells the guest, when the volume is attached (`Device::capacity_changed`). The job counts blocks dropped.
///
/// # Errors
/// When the volume is not there, is held elsewhere, is a snapshot, or would shrink without leave; also when the job was
/// cancelled, and then the size is as before.
pub fn resize(
    store: &Arc<dyn Store>,
    request: &ResizeRequest,
    opened: &dyn Opened,
    options: &OpenOptions,
    job: &Job,
) -> Result<VolumeInfo, VolumeError> {
    let source = Source::open(store, &request.volume, opened, options)?;
    let resized = resize_open(store, &source.volume, request, job);
    let closed = source.close();
    resized?;
    closed?;
    info(store, &request.volume)
}

fn resize_open(
    store: &Arc<dyn Store>,
    volume: &Arc<Volume>,
    request: &ResizeRequest,
    job: &Job,
) -> Result<(), VolumeError> {
    let ResizeRequest { volume: name, size, shrink } = request;
    refuse_too_large(*size, volume.object_size())?;
    let before = volume.size();
    let port = Port::open(volume)?;
    let resized = match (size.bytes().cmp(&before.bytes()), shrink) {
        (std::cmp::Ordering::Equal, _) => return Ok(()),
        (std::cmp::Ordering::Greater, _) => {
            before_resizing(store, volume)?;
            port.block_on(volume.grow(*size))?
        }
        (std::cmp::Ordering::Less, Shrink::Refuse) => {
            let (before, size) = (ByteSize(before.bytes()), ByteSize(size.bytes()));
            let text =
                format!("volume {name} has {before}: with {size} it would lose what lies behind; --shrink allows that");
            return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text));
        }
        (std::cmp::Ordering::Less, Shrink::Allow) => {
            before_resizing(store, volume)?;
            port.block_on(port.shrink(*size, job))?
        }
    };
    match resized {
        Resized::Done => Ok(()),
        Resized::Larger | Resized::Smaller => {
            let text = format!("volume {name} got another size at the same time: look, and try again");
            Err(VolumeError::new(VolumeErrorKind::Busy, text))
        }
        Resized::Interrupted => {
            let text =
                format!("shrinking volume {name} was interrupted: its size is as before, and its end has lost data");
            Err(VolumeError::new(VolumeErrorKind::Interrupted, text))
        }
    }
}
