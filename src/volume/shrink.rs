//! Growing and shrinking, one at a time. What lies behind a new end is gone for good, also when the volume grows again (rule
//! C19).
//!
//! Order of shrinking: the new size in memory, so that no new request reaches behind it; all changes that may be under way have ended; the
//! entries behind the end are dropped and the last block's tail is zeroed; then the header says the new size. A crash in
//! between leaves the old size, and behind the new end data or zeros.

use super::capture::Amendment;
use super::compose::Extent;
use super::discard::give_way;
use super::open::tree_error;
use super::{Port, Volume, VolumeError};
use crate::store::Space;
use crate::units::{BlockIndex, VolumeSize};
use std::sync::atomic::Ordering;

/// What a long work asks whoever wants it, now and then.
pub trait Patience {
    /// So many blocks are done; false when the work is not wanted any more.
    fn reached(&self, blocks: u64) -> bool;
}

/// What became of a wish for another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resized {
    Done,
    /// It is larger than that by now, and was to grow.
    Larger,
    /// It is smaller than that by now, and was to shrink.
    Smaller,
    /// It was not wanted any more: the size is as before, and some of what lies behind the new end is gone.
    Interrupted,
}

impl Volume {
    /// Makes the volume larger.
    ///
    /// # Errors
    /// As [`Volume::amend`].
    pub async fn grow(&self, size: VolumeSize) -> Result<Resized, VolumeError> {
        let _one_at_a_time = self.resizing.lock().await;
        if size.bytes() < self.size().bytes() {
            return Ok(Resized::Larger);
        }
        self.amend(Amendment::Size(size)).await.map(|()| Resized::Done)
    }
}

impl Port {
    /// Makes the volume smaller.
    ///
    /// # Errors
    /// When the volume is not writable, or the store fails; the size is as before then.
    pub async fn shrink(&self, size: VolumeSize, patience: &dyn Patience) -> Result<Resized, VolumeError> {
        let volume = self.volume();
        let _one_at_a_time = volume.resizing.lock().await;
        volume.check_writable()?;
        let before = volume.size();
        if size.bytes() > before.bytes() {
            return Ok(Resized::Smaller);
        }
        volume.size.store(size.bytes(), Ordering::Release);
        drop(volume.changes.close().await);
        drop(volume.gate.close().await);
        let dropped = self.drop_behind(size, patience).await;
        let result = match dropped {
            Ok(true) => volume.amend(Amendment::Size(size)).await.map(|()| Resized::Done),
            Ok(false) => Ok(Resized::Interrupted),
            Err(error) => Err(error),
        };
        if !matches!(result, Ok(Resized::Done)) {
            volume.size.store(before.bytes(), Ordering::Release);
        }
        result
    }

    async fn drop_behind(&self, size: VolumeSize, patience: &dyn Patience) -> Result<bool, VolumeError> {
        let volume = self.volume();
        let object_size = volume.object_size();
        let mut block = BlockIndex(object_size.blocks_in(size));
        let mut blocks = 0;
        loop {
            let next = volume.map.next_allocated(self.io(), block).await;
            let Some(next) = next.map_err(|error| tree_error(&volume.name, error))? else { break };
            if !patience.reached(blocks) {
                return Ok(false);
            }
            self.drop_block(next).await?;
            block = BlockIndex(next.0 + 1);
            blocks += 1;
            give_way(usize::try_from(blocks).unwrap_or(usize::MAX)).await;
        }
        let offset = object_size.offset_in_block(size.bytes());
        if offset != 0 {
            let block = object_size.block_of(size.bytes());
            let tail = Extent { block, offset, len: object_size.bytes() - offset, buffer_offset: 0 };
            self.zero_part(tail, Space::Free).await?;
        }
        Ok(true)
    }
}
