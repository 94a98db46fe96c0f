//! Reading: each block's part from the objects that its entry names, zeros where it names none.

use super::compose::{Extent, Piece, extents, pieces};
use super::{Port, VolumeError, VolumeErrorKind};
use crate::store::{Buffer, ObjectName, StoreErrorKind};
use crate::units::{BlockIndex, ByteRange};
use futures_util::future::join_all;

impl Port {
    /// All parts at once. Ends when every operation has ended, also when one failed (rule C13).
    pub(super) async fn read(&self, range: ByteRange, buffer: &Buffer) -> Result<(), VolumeError> {
        let parts = extents(range, self.volume().object_size).map(|extent| self.read_fenced(extent, buffer));
        join_all(parts).await.into_iter().collect()
    }

    async fn read_fenced(&self, extent: Extent, buffer: &Buffer) -> Result<(), VolumeError> {
        if self.volume().unfenced.is_set() {
            self.fence(extent).await?;
        }
        self.read_extent(extent, buffer).await
    }

    /// Also of what somebody else may still write; for copying it.
    pub(super) async fn read_extent(&self, extent: Extent, buffer: &Buffer) -> Result<(), VolumeError> {
        let mut missing = None;
        loop {
            let entry = self.entry(extent.block).await?;
            let pieces = pieces(&self.volume().map, &entry, extent);
            for object in pieces.iter().filter_map(|piece| piece.object.as_ref()) {
                self.not_missing_twice(extent.block, object, &missing)?;
            }
            let ends = join_all(pieces.into_iter().map(|piece| self.read_piece(piece, buffer))).await;
            missing = None;
            for end in ends {
                missing = end?.or(missing);
            }
            if missing.is_none() {
                return Ok(());
            }
        }
    }

    /// The object, if it does not exist.
    async fn read_piece(&self, piece: Piece, buffer: &Buffer) -> Result<Option<ObjectName>, VolumeError> {
        let part = part_of(buffer, piece.extent);
        let Some(object) = piece.object else {
            part.fill_zero(0, part.len());
            return Ok(None);
        };
        match self.io().read(object.clone(), piece.extent.offset, part).await {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(Some(object)),
            Err(error) => Err(self.store_error(error)),
        }
    }

    /// An object may vanish between looking up its entry and reaching it, when a discard came in between; then the entry has
    /// changed. The same object missing twice is a lost object.
    pub(super) fn not_missing_twice(
        &self,
        block: BlockIndex,
        object: &ObjectName,
        missing: &Option<ObjectName>,
    ) -> Result<(), VolumeError> {
        if missing.as_ref() != Some(object) {
            return Ok(());
        }
        let text = format!("volume {}: block {} is in {object}, which does not exist", self.volume().name, block.0);
        Err(VolumeError::new(VolumeErrorKind::Damaged, text))
    }
}

pub(super) fn part_of(buffer: &Buffer, extent: Extent) -> Buffer {
    let place = |bytes: u64| usize::try_from(bytes).expect("within a buffer in memory");
    buffer.slice(place(extent.buffer_offset), place(extent.len))
}
