//! A leaf in memory: 1024 entry words that workers read without a lock, and each worker's short list of leaves.
//!
//! Words are only changed under the map's lock. A leaf that a checkpoint has frozen is not changed any more: the map puts a
//! copy in its place and marks the old one *superseded*, before the copy changes; whoever still has the old one looks at
//! that mark on every lookup and fetches the new one.

use super::entry::{Entry, Word};
use super::format::page::LEAF_SLOTS;
use crate::units::BlockIndex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Memory of one leaf with its place in the tables, in bytes: what the cache's limit is divided by.
pub const LEAF_MEMORY_BYTES: u64 = (LEAF_SLOTS as u64) * 8 + 256;

/// Leaves that one worker keeps at hand, at least and at most; with 4 MiB objects 256 of them cover 1 TiB.
const WORKER_LEAVES_MIN: usize = 16;
const WORKER_LEAVES_MAX: usize = 256;

#[derive(Debug)]
pub struct Leaf {
    words: Box<[AtomicU64]>,
    superseded: AtomicBool,
    /// Set at use, cleared by the eviction's clock.
    used: AtomicBool,
}

/// Index of a leaf among leaves.
pub fn leaf_of(block: BlockIndex) -> u64 {
    block.0 / LEAF_SLOTS as u64
}

/// The block's slot in its leaf.
pub fn slot_of(block: BlockIndex) -> usize {
    usize::try_from(block.0 % LEAF_SLOTS as u64).expect("a slot is below 1024")
}

impl Leaf {
    pub fn new(words: impl IntoIterator<Item = Word>) -> Self {
        let words: Box<[AtomicU64]> = words.into_iter().map(|word| AtomicU64::new(word.0)).collect();
        assert_eq!(words.len(), LEAF_SLOTS, "a leaf has a fixed number of entries");
        Self { words, superseded: AtomicBool::new(false), used: AtomicBool::new(true) }
    }

    pub fn zero() -> Self {
        Self::new([Word::ZERO; LEAF_SLOTS])
    }

    /// A copy that lives on in this one's place.
    pub fn copy(&self) -> Self {
        Self::new(self.words())
    }

    pub fn words(&self) -> impl Iterator<Item = Word> + '_ {
        self.words.iter().map(|word| Word(word.load(Ordering::Acquire)))
    }

    pub fn word(&self, block: BlockIndex) -> Word {
        Word(self.words[slot_of(block)].load(Ordering::Acquire))
    }

    /// Only under the map's lock.
    pub(super) fn set(&self, block: BlockIndex, word: Word) {
        self.words[slot_of(block)].store(word.0, Ordering::Release);
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
        Some(Entry::from_word(leaf.word(block)).expect("words in memory were checked when they came in"))
    }

    pub fn put(&mut self, index: u64, leaf: Arc<Leaf>) {
        let place = self.place(index);
        self.leaves[place] = Some((index, leaf));
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index & (self.leaves.len() as u64 - 1)).expect("below the number of places")
    }
}
