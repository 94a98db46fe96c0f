//! A leaf in memory: 1024 entries that workers read without a lock, and each worker's short list of leaves.
//!
//! An entry is a word; one that has an overlay keeps it in a table beside the words, under a lock that is held for the copy of a
//! pointer, so a reader gets all of an overlay as of one moment. Entries are only changed under the map's lock. A leaf that a checkpoint has frozen is not changed any more: the map puts a
//! copy in its place and marks the old one *superseded*, before the copy changes; whoever still has the old one looks at
//! that mark on every lookup and fetches the new one.

use super::entry::{Entry, Word};
use super::format::page::LEAF_SLOTS;
use super::overlay::{Layer, Overlay};
use crate::units::BlockIndex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Memory of one leaf with its place in the tables, in bytes: what the cache's limit is divided by. Every leaf is counted with a
/// table of overlays.
pub const LEAF_MEMORY_BYTES: u64 = (LEAF_SLOTS as u64) * 16 + 256;

/// Memory of one layer of an overlay. An overlay is counted as one more layer than it has, which is what it takes itself.
pub const LAYER_MEMORY_BYTES: u64 = size_of::<Layer>() as u64;

/// Leaves that one worker keeps at hand, at least and at most; with 4 MiB objects 256 of them cover 1 TiB.
const WORKER_LEAVES_MIN: usize = 16;
const WORKER_LEAVES_MAX: usize = 256;

#[derive(Debug)]
pub struct Leaf {
    words: Box<[AtomicU64]>,
    /// By slot; without a table when no entry has one.
    overlays: RwLock<Table>,
    /// Of all overlays, as they are counted.
    layers: AtomicUsize,
    superseded: AtomicBool,
    /// Set at use, cleared by the eviction's clock.
    used: AtomicBool,
}

type Table = Option<Box<[Option<Arc<Overlay>>]>>;

/// Index of a leaf among leaves.
pub fn leaf_of(block: BlockIndex) -> u64 {
    block.0 / LEAF_SLOTS as u64
}

/// The block's slot in its leaf.
pub fn slot_of(block: BlockIndex) -> usize {
    usize::try_from(block.0 % LEAF_SLOTS as u64).expect("a slot is below 1024")
}

impl Leaf {
    pub fn zero() -> Self {
        Self {
            words: (0..LEAF_SLOTS).map(|_| AtomicU64::new(Word::ZERO.0)).collect(),
            overlays: RwLock::new(None),
            layers: AtomicUsize::new(0),
            superseded: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    /// A copy that lives on in this one's place.
    pub fn copy(&self) -> Self {
        let words = self.words.iter().map(|word| AtomicU64::new(word.load(Ordering::Acquire))).collect();
        let (overlays, layers) = (self.read().clone(), self.layers());
        Self {
            words,
            overlays: RwLock::new(overlays),
            layers: AtomicUsize::new(layers),
            superseded: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..LEAF_SLOTS).map(|slot| self.at(slot))
    }

    pub fn entry(&self, block: BlockIndex) -> Entry {
        self.at(slot_of(block))
    }

    pub fn is_zero(&self, block: BlockIndex) -> bool {
        self.words[slot_of(block)].load(Ordering::Acquire) == Word::ZERO.0
    }

    /// Layers of all overlays, and one more for each.
    pub fn layers(&self) -> usize {
        self.layers.load(Ordering::Relaxed)
    }

    fn at(&self, slot: usize) -> Entry {
        loop {
            let word = Word(self.words[slot].load(Ordering::Acquire));
            let overlay = |_| self.read().as_ref()?[slot].clone();
            // Without its overlay it was set again this moment: look once more.
            if let Ok(entry) = Entry::from_word(word, overlay) {
                return entry;
            }
            std::hint::spin_loop();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.overlays.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.overlays.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only under the map's lock, or before anybody else has the leaf.
    pub(super) fn set(&self, block: BlockIndex, entry: &Entry) {
        let slot = slot_of(block);
        let word = entry.word(0).0;
        match entry {
            Entry::Overlay(overlay) => {
                let mut table = self.write();
                let table = table.get_or_insert_with(|| vec![None; LEAF_SLOTS].into());
                let gone = table[slot].replace(Arc::clone(overlay));
                self.layers.fetch_add(counted(overlay), Ordering::Relaxed);
                self.layers.fetch_sub(gone.map_or(0, |gone| counted(&gone)), Ordering::Relaxed);
                self.words[slot].store(word, Ordering::Release);
            }
            Entry::Zero | Entry::Data { .. } => {
                self.words[slot].store(word, Ordering::Release);
                if self.layers() != 0 {
                    let gone = self.write().as_mut().and_then(|table| table[slot].take());
                    self.layers.fetch_sub(gone.map_or(0, |gone| counted(&gone)), Ordering::Relaxed);
                }
            }
        }
    }

    /// Only under the map's lock, before the copy changes.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    fn is_current(&self) -> bool {
        !self.superseded.load(Ordering::Acquire)
    }

    fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

fn counted(overlay: &Overlay) -> usize {
    overlay.layers().len() + 1
}

/// A leaf with its index.
type Held = (u64, Arc<Leaf>);

/// One worker's leaves by their index modulo a power of two. What it holds is never evicted from the map.
#[derive(Debug)]
pub struct WorkerLeaves {
    leaves: Box<[Option<Held>]>,
}

impl WorkerLeaves {
    /// For a map that keeps at most `leaves_max` in memory: a worker pins a small share of them.
    pub fn new(leaves_max: usize) -> Self {
        let places = (leaves_max / 16).clamp(WORKER_LEAVES_MIN, WORKER_LEAVES_MAX).next_power_of_two();
        Self { leaves: vec![None; places].into() }
    }

    /// The block's entry, if its leaf is at hand and current.
    pub fn get(&self, block: BlockIndex) -> Option<Entry> {
        let (index, leaf) = self.leaves[self.place(leaf_of(block))].as_ref()?;
        if *index != leaf_of(block) || !leaf.is_current() {
            return None;
        }
        leaf.touch();
        Some(leaf.entry(block))
    }

    pub fn put(&mut self, index: u64, leaf: Arc<Leaf>) {
        let place = self.place(index);
        self.leaves[place] = Some((index, leaf));
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index & (self.leaves.len() as u64 - 1)).expect("below the number of places")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::entry::VolumeIndex;
    use crate::map::overlay::{Granules, Step};
    use crate::units::{Epoch, ObjectSize};

    #[test]
    fn layers_are_counted_as_overlays_come_grow_and_go() {
        let granules = Granules::new(ObjectSize::DEFAULT, 4096);
        let covered =
            |entry: &Entry, epoch| entry.after(Step::Cover { epoch: Epoch(epoch), absorbed: None }, granules).unwrap();
        let filled = |entry: &Entry, first| {
            entry.after(Step::Fill(crate::map::overlay::GranuleRange { first, count: 1 }), granules).unwrap()
        };
        let leaf = Leaf::zero();
        let data = Entry::Data { volume: VolumeIndex(1), epoch: Epoch(3) };
        let two = filled(&covered(&data, 4), 0);
        let three = covered(&two, 5);
        leaf.set(BlockIndex(7), &two);
        assert_eq!(leaf.layers(), 3);
        leaf.set(BlockIndex(7), &three);
        leaf.set(BlockIndex(8), &two);
        assert_eq!((leaf.layers(), leaf.copy().layers()), (7, 7));
        leaf.set(BlockIndex(7), &data);
        leaf.set(BlockIndex(8), &Entry::Zero);
        assert_eq!(leaf.layers(), 0);
    }
}
