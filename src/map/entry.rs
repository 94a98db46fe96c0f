//! A map entry: which object holds a block. Eight bytes, in memory and on disk.
//!
//! ```text
//!   63..60 kind   59..40 index of a volume id   39..0 epoch
//! ```
//! In memory the index points into the map's own table ([`VolumeIds`]), where index 0 is the volume itself; on disk into the
//! table of the page or record. A block that has an overlay ([`super::overlay`]) keeps it beside its word: in memory in the leaf,
//! on disk in a list of the page or record, in which the word's index bits give its place.

use super::format::FormatError;
use super::overlay::Overlay;
use crate::units::{Epoch, VolumeId};
use rustc_hash::FxHashMap;
use std::sync::Arc;

const KIND_SHIFT: u32 = 60;
const INDEX_SHIFT: u32 = 40;
const INDEX_MASK: u64 = (1 << 20) - 1;
const EPOCH_MASK: u64 = Epoch::MAX.0;
const KIND_ZERO: u64 = 0;
const KIND_DATA: u64 = 1;
const KIND_OVERLAY: u64 = 4;

/// An entry's eight bytes. The kind, the index and the epoch of the one are never confused: it is built and taken apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(pub u64);

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing was written: reads as zeros.
    Zero,
    /// The object of that volume (by index into the table of ids), epoch, and this block.
    Data { volume: VolumeIndex, epoch: Epoch },
    /// Several objects of this block, each with some of its granules.
    Overlay(Arc<Overlay>),
}

/// Index into a table of volume ids; 20 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeIndex(pub u32);

impl VolumeIndex {
    /// In a map's table in memory: the volume itself.
    pub const OWN: VolumeIndex = VolumeIndex(0);
}

impl Word {
    pub const ZERO: Word = Word(0);
}

impl Entry {
    /// The entry's eight bytes; of an overlay, with its place in the list that goes with them.
    ///
    /// # Panics
    /// When the place does not fit into 20 bits.
    pub fn word(&self, overlay_place: u32) -> Word {
        match self {
            Self::Zero => Word::ZERO,
            Self::Data { volume, epoch } => {
                Word((KIND_DATA << KIND_SHIFT) | (u64::from(volume.0) << INDEX_SHIFT) | epoch.0)
            }
            Self::Overlay(_) => {
                assert!(u64::from(overlay_place) <= INDEX_MASK, "a list of overlays is bounded by its page or record");
                Word((KIND_OVERLAY << KIND_SHIFT) | (u64::from(overlay_place) << INDEX_SHIFT))
            }
        }
    }

    /// `overlay` gives the overlay at a place of the list that goes with the word.
    ///
    /// # Errors
    /// When the kind is unknown, bits are set that the kind does not use, or there is no such overlay.
    pub fn from_word(word: Word, overlay: impl FnOnce(u32) -> Option<Arc<Overlay>>) -> Result<Self, FormatError> {
        let index = u32::try_from((word.0 >> INDEX_SHIFT) & INDEX_MASK).expect("20 bits fit");
        let epoch = Epoch(word.0 & EPOCH_MASK);
        let refuse = |what| Err(FormatError::new("a map entry", format!("{:#018x}: {what}", word.0)));
        match word.0 >> KIND_SHIFT {
            KIND_ZERO if word == Word::ZERO => Ok(Self::Zero),
            KIND_DATA => Ok(Self::Data { volume: VolumeIndex(index), epoch }),
            KIND_OVERLAY if epoch == Epoch(0) => {
                overlay(index).map_or_else(|| refuse("there is no such overlay"), |overlay| Ok(Self::Overlay(overlay)))
            }
            _ => refuse("its kind is unknown"),
        }
    }

    /// The same with other volume indexes.
    ///
    /// # Errors
    /// What `index` returns.
    pub fn reindexed<E>(&self, mut index: impl FnMut(VolumeIndex) -> Result<VolumeIndex, E>) -> Result<Self, E> {
        match self {
            Self::Zero => Ok(Self::Zero),
            Self::Data { volume, epoch } => Ok(Self::Data { volume: index(*volume)?, epoch: *epoch }),
            Self::Overlay(overlay) => Ok(Self::Overlay(Arc::new(overlay.reindexed(index)?))),
        }
    }

    /// The objects that hold the block, by volume and epoch; an overlay's top first.
    pub fn objects(&self) -> impl Iterator<Item = (VolumeIndex, Epoch)> + '_ {
        let (data, overlay) = match self {
            Self::Zero => (None, None),
            Self::Data { volume, epoch } => (Some((*volume, *epoch)), None),
            Self::Overlay(overlay) => (None, Some(overlay)),
        };
        let layers = overlay.into_iter().flat_map(|overlay| overlay.layers());
        data.into_iter().chain(layers.map(|layer| (layer.volume, layer.epoch)))
    }
}

/// A table of volume ids that entries point into: one id per volume whose objects a map names.
#[derive(Debug, Clone, Default)]
pub struct VolumeIds {
    list: Vec<VolumeId>,
    /// Where each id is; only made for tables that are searched and not small.
    places: FxHashMap<VolumeId, u32>,
}

/// Tables up to this length are searched one by one.
const SMALL: usize = 16;

impl PartialEq for VolumeIds {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for VolumeIds {}

impl VolumeIds {
    pub fn new(own: VolumeId) -> Self {
        Self::from_vec(vec![own])
    }

    /// The id at `index`, if there is one.
    pub fn get(&self, index: VolumeIndex) -> Option<VolumeId> {
        self.list.get(usize::try_from(index.0).ok()?).copied()
    }

    /// The id's index, added at the end if it is new.
    ///
    /// # Errors
    /// When the table is full (2^20 ids).
    pub fn intern(&mut self, id: VolumeId) -> Result<VolumeIndex, FormatError> {
        if let Some(index) = self.find(id) {
            return Ok(index);
        }
        let index = u32::try_from(self.list.len()).ok().filter(|index| u64::from(*index) <= INDEX_MASK);
        let index = index.ok_or_else(|| FormatError::new("a map", "it names objects of more than 2^20 volumes"))?;
        self.list.push(id);
        if self.list.len() > SMALL {
            self.places.insert(id, index);
        }
        Ok(VolumeIndex(index))
    }

    fn find(&mut self, id: VolumeId) -> Option<VolumeIndex> {
        if self.list.len() <= SMALL {
            let place = self.list.iter().position(|known| *known == id)?;
            return u32::try_from(place).ok().map(VolumeIndex);
        }
        if self.places.len() != self.list.len() {
            self.places = self.list.iter().copied().zip(0..).collect();
        }
        self.places.get(&id).copied().map(VolumeIndex)
    }

    pub fn as_slice(&self) -> &[VolumeId] {
        &self.list
    }

    /// Each id once.
    pub fn from_vec(ids: Vec<VolumeId>) -> Self {
        Self { list: ids, places: FxHashMap::default() }
    }

    /// The same entry with its index pointing into `target`, which gets the id if it lacks it.
    ///
    /// # Errors
    /// When the index is in no table, or `target` is full.
    pub fn translate(&self, entry: &Entry, target: &mut VolumeIds) -> Result<Entry, FormatError> {
        let reindex = |volume| {
            let id = self.get(volume);
            let id = id.ok_or_else(|| FormatError::new("a map entry", "its volume is not in the table of ids"))?;
            target.intern(id)
        };
        entry.reindexed(reindex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_word() {
        let largest = Entry::Data { volume: VolumeIndex((1 << 20) - 1), epoch: Epoch::MAX };
        for entry in [Entry::Zero, Entry::Data { volume: VolumeIndex::OWN, epoch: Epoch(0) }, largest] {
            assert_eq!(Entry::from_word(entry.word(0), |_| None), Ok(entry));
        }
    }

    #[test]
    fn unknown_kinds_are_errors() {
        for word in [1, 2 << 60, 3 << 60, 4 << 60, 4 << 60 | 1, 15 << 60, u64::MAX] {
            assert!(Entry::from_word(Word(word), |_| None).is_err(), "{word:#x}");
        }
    }

    #[test]
    fn entries_move_between_tables_by_id() {
        let (own, other) = (VolumeId([1; 16]), VolumeId([2; 16]));
        let mut map = VolumeIds::new(own);
        let page = VolumeIds::from_vec(vec![other, own]);
        let foreign = Entry::Data { volume: VolumeIndex(0), epoch: Epoch(7) };
        let moved = page.translate(&foreign, &mut map);
        assert_eq!(moved, Ok(Entry::Data { volume: VolumeIndex(1), epoch: Epoch(7) }));
        assert_eq!(map.as_slice(), [own, other]);
        assert!(page.translate(&Entry::Data { volume: VolumeIndex(2), epoch: Epoch(7) }, &mut map).is_err());
    }
}
