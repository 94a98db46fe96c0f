//! Writing: in place where this volume alone has the object; otherwise a new object is made first.
//!
//! Order (docs/map-format.md, "First write to a block"): claim the block; pick a name; create the object with the data; mark it
//! dirty; soft journal and entry; then the request may complete. Readers need not wait: until the entry names the object
//! they see what was there before.

use super::compose::{Extent, extents};
use super::read::part_of;
use super::{Port, VolumeError, VolumeErrorKind};
use crate::map::state::Refusal;
use crate::map::{Entry, Map};
use crate::store::{Buffer, Durability, ObjectName, Persistence, StoreErrorKind};
use crate::units::{BlockIndex, ByteRange, Epoch};
use futures_util::future::join_all;
use std::sync::atomic::Ordering;
use tokio::sync::futures::Notified;

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
            match self.volume().map.object(entry, extent.block) {
                None => {
                    if self.create(extent, buffer).await? {
                        return Ok(());
                    }
                }
                Some(object) if self.volume().map.owns(entry) => {
                    self.not_missing_twice(extent.block, &object, &mut missing)?;
                    let (offset, part) = (extent.offset, part_of(buffer, extent));
                    match self.io().write(object.clone(), offset, part, Durability::Cached).await {
                        Ok(persistence) => {
                            self.volume().dirty.mark(persistence, &object);
                            return Ok(());
                        }
                        Err(error) if error.kind() == StoreErrorKind::NotFound => missing = Some(object),
                        Err(error) => {
                            // It may have filled a hole, which an overwrite beside it must not take for durable.
                            self.volume().dirty.mark(Persistence::Object, &object);
                            return Err(self.store_error(error));
                        }
                    }
                }
                Some(object) => return Err(self.not_ours(&object)),
            }
        }
    }

    /// First write to a block. False when somebody else made its object meanwhile.
    async fn create(&self, extent: Extent, buffer: &Buffer) -> Result<bool, VolumeError> {
        let volume = self.volume();
        let _claim = volume.claims.claim(extent.block).await;
        if self.entry(extent.block).await? != Entry::Zero {
            return Ok(false);
        }
        let creation = self.begin_creation(extent.block).await?;
        let object = creation.object();
        let (offset, part) = (extent.offset, part_of(buffer, extent));
        let created = self.io().create(object.clone(), offset, part, volume.object_size.bytes()).await;
        let persistence = created.map_err(|error| {
            if error.kind() == StoreErrorKind::Exists {
                tracing::error!(%object, "a new object's name was in use: a defect, please report it");
            }
            self.store_error(error)
        })?;
        volume.dirty.mark(persistence, &object);
        self.install(creation).await?;
        if volume.map.wants_commit() {
            volume.rounds.commit();
        }
        Ok(true)
    }

    async fn begin_creation(&self, block: BlockIndex) -> Result<Creation<'_>, VolumeError> {
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

    async fn install(&self, mut creation: Creation<'_>) -> Result<(), VolumeError> {
        let patience = self.patience();
        loop {
            let room = creation.map.room();
            match creation.map.install(creation.block, creation.epoch) {
                Ok(()) => {
                    creation.installed = true;
                    return Ok(());
                }
                Err(Refusal::NotLoaded) => self.load(creation.block).await?,
                Err(Refusal::NoRoom) => self.wait_for_room(room, patience).await?,
            }
        }
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

    pub(super) fn not_ours(&self, object: &ObjectName) -> VolumeError {
        let text = format!("volume {}: {object} is shared, and this version cannot copy it up", self.volume().name);
        VolumeError::new(VolumeErrorKind::Damaged, text)
    }
}

/// After so many checkpoints, a lack of space is an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    checkpoints: u64,
}

/// A name that is being made into an object. Dropped before it is installed, the name is given up for good.
struct Creation<'a> {
    map: &'a Map,
    block: BlockIndex,
    epoch: Epoch,
    installed: bool,
}

impl Creation<'_> {
    fn object(&self) -> ObjectName {
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
