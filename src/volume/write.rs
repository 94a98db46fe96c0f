//! Writing: in place where this volume alone has the object; otherwise into an object of its own ([`super::copy_up`]).
//!
//! Order (docs/map-format.md, "First write to a block"): claim the block; pick a name; create the object with the data; mark it
//! dirty; soft journal and entry; then the request may complete. Readers need not wait: until the entry names the object
//! they see what was there before.

use super::compose::{Extent, extents};
use super::read::part_of;
use super::{Port, VolumeError};
use crate::map::entry::VolumeIndex;
use crate::map::state::{Installed, Refusal};
use crate::map::{Entry, Map};
use crate::store::{Buffer, Durability, ObjectName, Persistence, StoreError, StoreErrorKind};
use crate::units::{BlockIndex, ByteRange, Epoch};
use futures_util::future::join_all;
use std::sync::atomic::Ordering;
use tokio::sync::futures::Notified;

/// Whether a step got its work done; if not, what it relied on has changed, and the caller looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    Done,
    LookAgain,
}

impl Port {
    /// All parts at once. Ends when every operation has ended, also when one failed (rule C13).
    pub(super) async fn write(&self, range: ByteRange, buffer: &Buffer) -> Result<(), VolumeError> {
        let parts = extents(range, self.volume().object_size).map(|extent| self.write_extent(extent, buffer));
        join_all(parts).await.into_iter().collect()
    }

    async fn write_extent(&self, extent: Extent, buffer: &Buffer) -> Result<(), VolumeError> {
        let mut missing = None;
        loop {
            let entry = self.entry(extent.block).await?;
            let step = match self.owned_object(&entry, extent) {
                Some(_) => self.write_in_place(extent, buffer, &mut missing).await?,
                None => self.write_up(extent, buffer).await?,
            };
            if step == Step::Done {
                return Ok(());
            }
        }
    }

    /// The object that this volume may write in place and that holds all granules that the extent touches.
    pub(super) fn owned_object(&self, entry: &Entry, extent: Extent) -> Option<ObjectName> {
        let map = &self.volume().map;
        let (volume, epoch) = holder(entry, extent)?;
        let top = entry.objects().next() == Some((volume, epoch));
        (top && map.owns(entry)).then(|| map.object(volume, epoch, extent.block))
    }

    /// `missing` is the object that was found missing the last time.
    async fn write_in_place(
        &self,
        extent: Extent,
        buffer: &Buffer,
        missing: &mut Option<ObjectName>,
    ) -> Result<Step, VolumeError> {
        let _pass = self.pass().await;
        // Only now it is sure to stay ours until the write has ended.
        let Some(entry) = self.entry_at_hand(extent.block) else { return Ok(Step::LookAgain) };
        let Some(object) = self.owned_object(&entry, extent) else { return Ok(Step::LookAgain) };
        self.not_missing_twice(extent.block, &object, missing)?;
        match self.write_object(&object, extent.offset, part_of(buffer, extent)).await {
            Ok(()) => Ok(Step::Done),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                *missing = Some(object);
                Ok(Step::LookAgain)
            }
            Err(error) => Err(self.store_error(error)),
        }
    }

    /// Writes into an object of this volume's own and marks it dirty, whatever comes of it.
    pub(super) async fn write_object(&self, object: &ObjectName, offset: u64, data: Buffer) -> Result<(), StoreError> {
        let dirty = &self.volume().dirty;
        match self.io().write(object.clone(), offset, data, Durability::Cached).await {
            Ok(persistence) => {
                dirty.mark(persistence, object);
                Ok(())
            }
            Err(error) => {
                // It may have filled a hole, which an overwrite beside it must not take for durable.
                if error.kind() != StoreErrorKind::NotFound {
                    dirty.mark(Persistence::Object, object);
                }
                Err(error)
            }
        }
    }

    /// Makes the object of a creation, with its first data.
    pub(super) async fn create_object(
        &self,
        creation: &Creation<'_>,
        offset: u64,
        data: Buffer,
    ) -> Result<ObjectName, VolumeError> {
        let object = creation.object();
        let created = self.io().create(object.clone(), offset, data, self.volume().object_size.bytes()).await;
        let persistence = created.map_err(|error| {
            if error.kind() == StoreErrorKind::Exists {
                tracing::error!(%object, "a new object's name was in use: a defect, please report it");
            }
            self.store_error(error)
        })?;
        self.volume().dirty.mark(persistence, &object);
        Ok(object)
    }

    pub(super) async fn begin_creation(&self, block: BlockIndex) -> Result<Creation<'_>, VolumeError> {
        let volume = self.volume();
        let patience = self.patience();
        loop {
            let room = volume.map.room();
            if !volume.out_of_space.load(Ordering::Acquire)
                && let Ok(epoch) = volume.map.begin_creation()
            {
                return Ok(Creation { map: &volume.map, block, epoch, installed: false });
            }
            self.wait_for_room(room, patience).await?;
        }
    }

    /// Ends a creation; its block must be claimed whole.
    pub(super) async fn install(&self, mut creation: Creation<'_>, how: Installed) -> Result<(), VolumeError> {
        let (block, epoch) = (creation.block, creation.epoch);
        let result = self.change(block, |map| map.install(block, epoch, how)).await;
        match result? {
            Step::Done => creation.installed = true,
            Step::LookAgain => unreachable!("an installation asks nobody whose the entry is"),
        }
        Ok(())
    }

    /// Makes a change of the block's entry as soon as there is room for it.
    pub(super) async fn change(
        &self,
        block: BlockIndex,
        mut change: impl FnMut(&Map) -> Result<(), Refusal>,
    ) -> Result<Step, VolumeError> {
        let volume = self.volume();
        let patience = self.patience();
        let step = loop {
            let room = volume.map.room();
            match change(&volume.map) {
                Ok(()) => break Step::Done,
                Err(Refusal::Shared) => break Step::LookAgain,
                Err(Refusal::NotLoaded) => self.load(block).await?,
                Err(Refusal::NoRoom) => self.wait_for_room(room, patience).await?,
            }
        };
        if volume.map.wants_commit() {
            volume.rounds.commit();
        }
        Ok(step)
    }

    /// For [`Port::wait_for_room`]: how long to wait from now on.
    pub(super) fn patience(&self) -> Patience {
        // One checkpoint may be under way, and may have met a lack of space that is over; the one after it counts.
        Patience { checkpoints: self.volume().checkpoints.load(Ordering::Acquire) + 2 }
    }

    /// Has the keeper make room, and waits for any news. There may be none yet: the caller looks again.
    pub(super) async fn wait_for_room(&self, room: Notified<'_>, patience: Patience) -> Result<(), VolumeError> {
        let volume = self.volume();
        // `room` exists already, so a failure after this look ends the wait.
        volume.check_writable()?;
        volume.rounds.ring();
        room.await;
        volume.check_writable()?;
        let tried = volume.checkpoints.load(Ordering::Acquire) >= patience.checkpoints;
        if tried && volume.out_of_space.load(Ordering::Acquire) { Err(volume.no_space()) } else { Ok(()) }
    }
}

/// The object that holds all granules of the extent, if it is one.
pub(super) fn holder(entry: &Entry, extent: Extent) -> Option<(VolumeIndex, Epoch)> {
    let Entry::Overlay(overlay) = entry else { return entry.objects().next() };
    let touched = overlay.granules().touched(extent.offset, extent.len);
    let layer = overlay.layer_of(touched.first);
    layer.mask.contains_all(touched).then_some((layer.volume, layer.epoch))
}

/// After so many checkpoints, a lack of space is an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    checkpoints: u64,
}

/// A name that is being made into an object. Dropped before it is installed, the name is given up for good.
pub(super) struct Creation<'a> {
    map: &'a Map,
    block: BlockIndex,
    epoch: Epoch,
    installed: bool,
}

impl Creation<'_> {
    pub(super) fn object(&self) -> ObjectName {
        ObjectName::Data { volume: self.map.volume(), epoch: self.epoch, block: self.block }
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        if !self.installed {
            self.map.abandon(self.block, self.epoch);
        }
    }
}
