//! Discarding and zeroing. A whole block's entry becomes Zero and its object goes later (rule C6); a part of a block becomes
//! a hole in its object.

use super::compose::{Extent, extents};
use super::{Port, VolumeError};
use crate::map::Entry;
use crate::map::state::Refusal;
use crate::store::{Persistence, Space, StoreErrorKind};
use crate::units::{BlockIndex, ByteRange};

/// Blocks handled before other tasks of the thread get their turn: a request may cover thousands.
const BLOCKS_PER_TURN: usize = 64;

impl Port {
    pub(super) async fn discard(&self, range: ByteRange) -> Result<(), VolumeError> {
        for (count, extent) in (1..).zip(extents(range, self.volume().object_size)) {
            let part = match self.is_whole(extent) {
                true => self.drop_block(extent.block).await,
                // What is discarded is of no interest: where no hole can be made, nothing is lost.
                false => self.zero_part(extent, Space::Free).await.map(drop),
            };
            part?;
            give_way(count).await;
        }
        // Whoever discards wants the space back, with or without a flush behind it.
        self.volume().rounds.commit();
        Ok(())
    }

    pub(super) async fn write_zeroes(&self, range: ByteRange, space: Space) -> Result<(), VolumeError> {
        for (count, extent) in (1..).zip(extents(range, self.volume().object_size)) {
            match (self.is_whole(extent), space) {
                (true, Space::Free) => self.drop_block(extent.block).await?,
                (false, _) | (true, Space::Keep) => self.zero_part(extent, space).await?,
            }
            give_way(count).await;
        }
        Ok(())
    }

    /// Whether the extent is all that the volume has of the block.
    fn is_whole(&self, extent: Extent) -> bool {
        let object_bytes = self.volume().object_size.bytes();
        let behind_block = self.volume().size().bytes() - extent.block.0 * object_bytes;
        extent.offset == 0 && extent.len == object_bytes.min(behind_block)
    }

    /// The block reads as zeros from now on; its object is removed once that is durable.
    async fn drop_block(&self, block: BlockIndex) -> Result<(), VolumeError> {
        if self.entry(block).await? == Entry::Zero {
            return Ok(());
        }
        let volume = self.volume();
        let _claim = volume.claims.claim(block).await;
        if self.entry(block).await? == Entry::Zero {
            return Ok(());
        }
        let patience = self.patience();
        loop {
            let room = volume.map.room();
            match volume.map.change(block, Entry::Zero) {
                Ok(()) => return Ok(()),
                Err(Refusal::NotLoaded) => self.load(block).await?,
                Err(Refusal::NoRoom) => self.wait_for_room(room, patience).await?,
            }
        }
    }

    async fn zero_part(&self, extent: Extent, space: Space) -> Result<(), VolumeError> {
        let mut missing = None;
        loop {
            let entry = self.entry(extent.block).await?;
            let Some(object) = self.volume().map.object(entry, extent.block) else { return Ok(()) };
            if !self.volume().map.owns(entry) {
                return Err(self.not_ours(&object));
            }
            self.not_missing_twice(extent.block, &object, &mut missing)?;
            match self.io().zero(object.clone(), extent.offset, extent.len, space).await {
                Ok(persistence) => {
                    self.volume().dirty.mark(persistence, &object);
                    return Ok(());
                }
                Err(error) if error.kind() == StoreErrorKind::NotFound => missing = Some(object),
                Err(error) => {
                    self.volume().dirty.mark(Persistence::Object, &object);
                    return Err(self.store_error(error));
                }
            }
        }
    }
}

async fn give_way(count: usize) {
    if count.is_multiple_of(BLOCKS_PER_TURN) {
        let mut waited = false;
        std::future::poll_fn(|context| {
            if waited {
                return std::task::Poll::Ready(());
            }
            waited = true;
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }
}
