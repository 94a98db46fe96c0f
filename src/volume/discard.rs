//! Discarding and zeroing. A whole block's entry becomes Zero and its object goes later (rule C6); a part of a block becomes
//! a hole in the volume's own object. A part that lies in a shared object is not discarded, and is zeroed by copy-up.

use super::compose::{Extent, extents};
use super::copy_up::extent_of;
use super::write::Step;
use super::{Port, VolumeError};
use crate::map::Entry;
use crate::map::overlay::{GranuleRange, Mask};
use crate::store::{ObjectName, Space, StoreErrorKind};
use crate::units::{BlockIndex, ByteRange};

/// Blocks handled before other tasks of the thread get their turn: a request may cover thousands.
const BLOCKS_PER_TURN: usize = 64;

impl Port {
    pub(super) async fn discard(&self, range: ByteRange) -> Result<(), VolumeError> {
        for (count, extent) in (1..).zip(extents(range, self.volume().object_size)) {
            let part = match self.is_whole(extent) {
                true => self.drop_block(extent.block).await,
                false => self.discard_part(extent).await,
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
    pub(super) fn is_whole(&self, extent: Extent) -> bool {
        let object_bytes = self.volume().object_size.bytes();
        // Nothing, when the volume has shrunk since.
        let behind_block = self.volume().size().bytes().saturating_sub(extent.block.0 * object_bytes);
        extent.offset == 0 && extent.len == object_bytes.min(behind_block)
    }

    /// The block reads as zeros from now on; its object is removed once that is durable.
    pub(super) async fn drop_block(&self, block: BlockIndex) -> Result<(), VolumeError> {
        if self.entry(block).await? == Entry::Zero {
            return Ok(());
        }
        let volume = self.volume();
        let _claim = volume.claims.claim(block, GranuleRange::WHOLE).await;
        if self.entry(block).await? == Entry::Zero {
            return Ok(());
        }
        match self.change(block, |map| map.zero(block)).await? {
            Step::Done => Ok(()),
            Step::LookAgain => unreachable!("anything may become Zero"),
        }
    }

    /// Makes holes where the volume's own object is; what is shared stays as it is.
    async fn discard_part(&self, extent: Extent) -> Result<(), VolumeError> {
        let _pass = self.pass().await;
        let entry = match self.entry_at_hand(extent.block) {
            Some(entry) => entry,
            None => self.entry(extent.block).await?,
        };
        let map = &self.volume().map;
        let Some((volume, epoch)) = entry.objects().next().filter(|_| map.owns(&entry)) else { return Ok(()) };
        let object = map.object(volume, epoch, extent.block);
        let parts = match &entry {
            Entry::Zero | Entry::Data { .. } => vec![extent],
            Entry::Overlay(overlay) => {
                let covered = Mask::of(overlay.granules().covered(extent.offset, extent.len));
                let held = covered.without(&covered.without(&overlay.top().mask));
                held.runs().map(|run| extent_of(extent.block, overlay.granules(), run)).collect()
            }
        };
        for part in parts {
            match self.zero_object(&object, part, Space::Free).await {
                Ok(()) => {}
                // Discarded whole beside this.
                Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                Err(error) => return Err(self.store_error(error)),
            }
        }
        Ok(())
    }

    pub(super) async fn zero_part(&self, extent: Extent, space: Space) -> Result<(), VolumeError> {
        let (mut at, end) = (extent.offset, extent.offset + extent.len);
        let mut missing = None;
        while at < end {
            let rest = Extent { offset: at, len: end - at, ..extent };
            let entry = self.entry(extent.block).await?;
            if entry == Entry::Zero {
                return Ok(());
            }
            let owned = |part| self.owned_object(&entry, part).is_some();
            let part = if owned(rest) { rest } else { self.first_part(&entry, rest) };
            let step = if owned(part) {
                self.zero_in_place(part, space, &mut missing).await?
            } else {
                self.zero_up(part, space).await?
            };
            if step == Step::Done {
                at += part.len;
            }
        }
        Ok(())
    }

    /// `missing` is the object that was found missing the last time.
    async fn zero_in_place(
        &self,
        extent: Extent,
        space: Space,
        missing: &mut Option<ObjectName>,
    ) -> Result<Step, VolumeError> {
        let _pass = self.pass().await;
        let Some(entry) = self.entry_at_hand(extent.block) else { return Ok(Step::LookAgain) };
        let Some(object) = self.owned_object(&entry, extent) else { return Ok(Step::LookAgain) };
        self.not_missing_twice(extent.block, &object, missing)?;
        match self.zero_object(&object, extent, space).await {
            Ok(()) => Ok(Step::Done),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                *missing = Some(object);
                Ok(Step::LookAgain)
            }
            Err(error) => Err(self.store_error(error)),
        }
    }
}

pub(super) async fn give_way(count: usize) {
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
