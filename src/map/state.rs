//! The live map of an open volume: leaves in memory, what changed since the last commit, and the epochs.
//!
//! One lock guards everything that changes; entry *words* are read without it ([`super::leaf`]). It is held for a few hundred
//! nanoseconds, never across I/O. Who needs what:
//!
//! ```text
//!   worker   entry? ── at hand ─► done                change an entry ─► lock: [copy a frozen leaf] soft journal,
//!                   └─ absent ──► super::tree::load                             word, dirty, pending
//!   keeper   take_pending ─► record ─► committed      freeze ─► pages, header ─► checkpointed (or unfreeze)
//! ```
//!
//! Invariants: `pending` holds exactly the changes with numbers in (`hard_through`, `change_last`] that no commit has taken; a
//! leaf in `dirty` differs from its page; a leaf in `frozen` never changes; the soft journal holds every change above
//! `hard_through`, because no more than its slots are let wait.

use super::entry::{Entry, VolumeIds, VolumeIndex, Word};
use super::format::page::{Children, PageAddress, PageIndex};
use super::leaf::{LEAF_MEMORY_BYTES, Leaf, WorkerLeaves, leaf_of};
use super::soft_journal::{self, Change, SoftJournal};
use crate::store::ObjectName;
use crate::units::{BlockIndex, Epoch, VolumeId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fewest leaves kept, whatever the configuration: below this a checkpoint would chase its own tail.
const LEAVES_MIN: usize = 64;

/// Leaves looked at in one eviction, so that the lock is never held for long.
const EVICTION_LOOKS_MAX: usize = 128;

/// What a map is opened with: what the header says.
#[derive(Debug)]
pub struct MapSeed {
    pub volume: VolumeId,
    pub shared_epoch: Epoch,
    pub epoch: Epoch,
    pub epoch_limit: Epoch,
    pub root: Option<PageAddress>,
    pub change_through: u64,
    /// Memory for leaves, in bytes.
    pub cache_bytes: u64,
    /// Absent when the volume is open read-only.
    pub soft: Option<SoftJournal>,
}

#[derive(Debug)]
pub struct Map {
    volume: VolumeId,
    shared_epoch: AtomicU64,
    soft: Option<SoftJournal>,
    leaves_max: usize,
    state: Mutex<State>,
    /// Woken when changes that had to wait may go on.
    room: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    ids: VolumeIds,
    leaves: FxHashMap<u64, Arc<Leaf>>,
    clock: VecDeque<u64>,
    dirty: BTreeMap<u64, Arc<Leaf>>,
    frozen: BTreeMap<u64, Arc<Leaf>>,
    inner: FxHashMap<PageIndex, Arc<Children>>,
    root: Option<PageAddress>,
    /// Counts the roots, so that a page read under an older one is not taken for current.
    root_number: u64,
    epoch: Epoch,
    epoch_limit: Epoch,
    /// Creations under way, by epoch.
    creating: BTreeMap<Epoch, usize>,
    change_last: u64,
    hard_through: u64,
    pending: BTreeMap<BlockIndex, Word>,
    dropped: VecDeque<(u64, ObjectName)>,
}

/// Why an entry was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its leaf is not in memory: load it and come back.
    NotLoaded,
    /// Too much waits for the keeper: ask it for a commit or checkpoint, wait for [`Map::room`], come back.
    NoRoom,
}

/// Changes that a commit takes.
#[derive(Debug)]
pub struct Pending {
    pub changes: Vec<(BlockIndex, Word)>,
    pub ids: VolumeIds,
    pub through: u64,
}

/// What a checkpoint writes down.
#[derive(Debug)]
pub struct Frozen {
    pub leaves: BTreeMap<u64, Arc<Leaf>>,
    pub ids: VolumeIds,
    /// All changes up to this number are in the leaves.
    pub through: u64,
    /// Objects of lower epochs are in the leaves, or in no map.
    pub epoch: Epoch,
    /// The epoch of the next name.
    pub epoch_next: Epoch,
    pub root: Option<PageAddress>,
}

/// A root and its number, as of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Root {
    pub address: Option<PageAddress>,
    pub number: u64,
}

impl Map {
    pub fn new(seed: MapSeed) -> Self {
        let leaves = usize::try_from(seed.cache_bytes / LEAF_MEMORY_BYTES).unwrap_or(usize::MAX);
        let state = State {
            ids: VolumeIds::new(seed.volume),
            leaves: FxHashMap::default(),
            clock: VecDeque::new(),
            dirty: BTreeMap::new(),
            frozen: BTreeMap::new(),
            inner: FxHashMap::default(),
            root: seed.root,
            root_number: 0,
            epoch: seed.epoch,
            epoch_limit: seed.epoch_limit,
            creating: BTreeMap::new(),
            change_last: seed.change_through,
            hard_through: seed.change_through,
            pending: BTreeMap::new(),
            dropped: VecDeque::new(),
        };
        Self {
            volume: seed.volume,
            shared_epoch: AtomicU64::new(seed.shared_epoch.0),
            soft: seed.soft,
            leaves_max: leaves.max(LEAVES_MIN),
            state: Mutex::new(state),
            room: tokio::sync::Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// An empty set of leaves at hand, for one worker.
    pub fn worker_leaves(&self) -> WorkerLeaves {
        WorkerLeaves::new(self.leaves_max)
    }

    /// Whether the entry's object may be written in place: this volume made it, and nobody else may read it.
    pub fn owns(&self, entry: Entry) -> bool {
        match entry {
            Entry::Zero => false,
            Entry::Data { volume, epoch } => {
                volume == VolumeIndex::OWN && epoch.0 > self.shared_epoch.load(Ordering::Acquire)
            }
        }
    }

    /// The name of the object that the entry of `block` says, if it says one.
    pub fn object(&self, entry: Entry, block: BlockIndex) -> Option<ObjectName> {
        match entry {
            Entry::Zero => None,
            Entry::Data { volume: VolumeIndex::OWN, epoch } => {
                Some(ObjectName::Data { volume: self.volume, epoch, block })
            }
            Entry::Data { volume, epoch } => {
                let volume = self.lock().ids.get(volume).expect("indexes in memory point into the map's table");
                Some(ObjectName::Data { volume, epoch, block })
            }
        }
    }

    /// The leaf, if it is in memory.
    pub fn leaf(&self, index: u64) -> Option<Arc<Leaf>> {
        self.lock().leaves.get(&index).map(Arc::clone)
    }

    /// Changes the entry: soft journal first, then the word that workers see.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing changed.
    pub fn change(&self, block: BlockIndex, entry: Entry) -> Result<(), Refusal> {
        let mut state = self.lock();
        self.admit(&state, block)?;
        self.apply(&mut state, block, entry);
        Ok(())
    }

    /// Puts a change in that a dead process had made; it needs no soft journal, because nothing is served yet.
    ///
    /// # Errors
    /// [`Refusal::NotLoaded`].
    pub fn replay(&self, block: BlockIndex, entry: Entry, ids: &VolumeIds) -> Result<(), Refusal> {
        let mut state = self.lock();
        if !state.leaves.contains_key(&leaf_of(block)) {
            return Err(Refusal::NotLoaded);
        }
        let entry = ids.translate(entry, &mut state.ids).expect("records were checked when they were decoded");
        state.set(block, entry.word());
        Ok(())
    }

    /// After replay: everything up to this number is in the leaves.
    pub fn replayed(&self, through: u64) {
        let mut state = self.lock();
        state.change_last = through;
        state.hard_through = through;
    }

    fn admit(&self, state: &State, block: BlockIndex) -> Result<(), Refusal> {
        let index = leaf_of(block);
        if !state.leaves.contains_key(&index) {
            return Err(Refusal::NotLoaded);
        }
        let too_many_dirty = state.dirty.len() >= self.leaves_max / 2 && !state.dirty.contains_key(&index);
        let waiting = state.change_last - state.hard_through;
        if too_many_dirty || waiting >= soft_journal::SLOTS { Err(Refusal::NoRoom) } else { Ok(()) }
    }

    fn apply(&self, state: &mut State, block: BlockIndex, entry: Entry) {
        state.change_last += 1;
        let change = Change { number: state.change_last, block, word: entry.word() };
        self.soft.as_ref().expect("entries change only when open for writing").append(change);
        let old = state.set(block, change.word);
        state.pending.insert(block, change.word);
        let shared_epoch = Epoch(self.shared_epoch.load(Ordering::Acquire));
        state.drop_object(self.volume, shared_epoch, block, old, change.number);
    }

    /// Whether the keeper should checkpoint now, before anybody has to wait.
    pub fn wants_checkpoint(&self) -> bool {
        let state = self.lock();
        state.dirty.len() >= self.leaves_max / 4 || state.epoch.0 + 1 >= state.epoch_limit.0
    }

    /// Whether the keeper should commit now, before anybody has to wait.
    pub fn wants_commit(&self) -> bool {
        let state = self.lock();
        state.change_last - state.hard_through >= soft_journal::SLOTS / 2
    }

    /// Lets everybody who waits for room look again.
    pub fn wake_waiting(&self) {
        self.room.notify_waiters();
    }

    /// Ready when a commit or checkpoint has made room since the call.
    pub fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    // ---- creation of objects

    /// A name's epoch for a new object of this volume. Every creation ends with [`Map::install`] or [`Map::abandon`].
    ///
    /// # Errors
    /// [`Refusal::NoRoom`] when the reserved epochs are used up.
    pub fn begin_creation(&self) -> Result<Epoch, Refusal> {
        let mut state = self.lock();
        if state.epoch >= state.epoch_limit {
            return Err(Refusal::NoRoom);
        }
        let epoch = state.epoch;
        *state.creating.entry(epoch).or_insert(0) += 1;
        Ok(epoch)
    }

    /// The object is there: the entry names it from now on.
    ///
    /// # Errors
    /// See [`Refusal`]; the creation goes on.
    pub fn install(&self, block: BlockIndex, epoch: Epoch) -> Result<(), Refusal> {
        let mut state = self.lock();
        self.admit(&state, block)?;
        self.apply(&mut state, block, Entry::Data { volume: VolumeIndex::OWN, epoch });
        state.end_creation(epoch);
        Ok(())
    }

    /// The creation failed; whatever it left is removed by the keeper, and its name is not used again.
    pub fn abandon(&self, block: BlockIndex, epoch: Epoch) {
        let mut state = self.lock();
        state.end_creation(epoch);
        state.retire(epoch);
        let through = state.hard_through;
        state.dropped.push_back((through, ObjectName::Data { volume: self.volume, epoch, block }));
    }

    // ---- commits

    /// The changes that no commit has taken. They count as taken.
    pub fn take_pending(&self) -> Pending {
        let mut state = self.lock();
        let mut ids = VolumeIds::default();
        let changes = std::mem::take(&mut state.pending);
        let translate = |(block, word): (BlockIndex, Word)| {
            let entry = Entry::from_word(word).expect("words in memory were checked when they came in");
            let entry = state.ids.translate(entry, &mut ids).expect("a record names what the map names");
            (block, entry.word())
        };
        let changes = changes.into_iter().map(translate).collect();
        Pending { changes, ids, through: state.change_last }
    }

    /// The commit could not be made, and nothing of it is durable.
    pub fn put_back(&self, pending: Pending) {
        let mut state = self.lock();
        for (block, word) in pending.changes {
            let entry = Entry::from_word(word).expect("as taken");
            let entry = pending.ids.translate(entry, &mut state.ids).expect("as taken");
            state.pending.entry(block).or_insert(entry.word());
        }
    }

    pub fn has_pending(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Everything up to this number is durable, in a record or in pages.
    pub fn committed(&self, through: u64) {
        let mut state = self.lock();
        state.hard_through = state.hard_through.max(through);
        drop(state);
        self.room.notify_waiters();
    }

    /// Objects that no durable map names any more, at most `limit`.
    pub fn take_removable(&self, limit: usize) -> Vec<ObjectName> {
        let mut state = self.lock();
        let through = state.hard_through;
        let ready = state.dropped.iter().take_while(|(number, _)| *number <= through).count().min(limit);
        state.dropped.drain(..ready).map(|(_, object)| object).collect()
    }

    // ---- checkpoints

    /// Freezes the dirty leaves and raises the epoch.
    ///
    /// # Panics
    /// When the last freeze was not ended.
    pub fn freeze(&self) -> Frozen {
        let mut state = self.lock();
        assert!(state.frozen.is_empty(), "one checkpoint at a time");
        state.frozen = std::mem::take(&mut state.dirty);
        if state.epoch < state.epoch_limit {
            state.epoch.0 += 1;
        }
        let oldest = state.creating.keys().next().copied().unwrap_or(state.epoch);
        Frozen {
            leaves: state.frozen.clone(),
            ids: state.ids.clone(),
            through: state.change_last,
            epoch: oldest.min(state.epoch),
            epoch_next: state.epoch,
            root: state.root,
        }
    }

    /// The checkpoint failed: what was frozen is dirty again, unless it changed since.
    pub fn unfreeze(&self) {
        let mut state = self.lock();
        for (index, leaf) in std::mem::take(&mut state.frozen) {
            state.dirty.entry(index).or_insert(leaf);
        }
    }

    /// The checkpoint is durable, and with it the new limit of epochs.
    pub fn checkpointed(&self, written: Checkpointed) {
        let mut state = self.lock();
        state.frozen.clear();
        state.root = written.root;
        state.root_number += 1;
        for (page, children) in written.inner {
            if children.is_empty() {
                state.inner.remove(&page);
            } else {
                state.inner.insert(page, Arc::new(children));
            }
        }
        state.epoch_limit = written.epoch_limit;
        state.hard_through = state.hard_through.max(written.through);
        state.evict(self.leaves_max);
        drop(state);
        self.room.notify_waiters();
    }

    // ---- loading, for super::tree

    pub(super) fn root(&self) -> Root {
        let state = self.lock();
        Root { address: state.root, number: state.root_number }
    }

    /// The root, and the first leaf from `index` on that differs from its page under that root.
    pub(super) fn first_changed(&self, index: u64) -> (Root, Option<u64>) {
        let state = self.lock();
        let dirty = state.dirty.range(index..).next();
        let frozen = state.frozen.range(index..).next();
        let first = dirty.into_iter().chain(frozen).map(|(index, _)| *index).min();
        (Root { address: state.root, number: state.root_number }, first)
    }

    pub(super) fn inner(&self, page: PageIndex) -> Option<Arc<Children>> {
        self.lock().inner.get(&page).map(Arc::clone)
    }

    /// Keeps an inner page that was read under `root`, unless there is a newer root.
    pub(super) fn keep_inner(&self, root: Root, page: PageIndex, children: &Arc<Children>) {
        let mut state = self.lock();
        if state.inner.len() >= self.leaves_max / 4 {
            state.inner.clear();
        }
        if state.root_number == root.number {
            state.inner.insert(page, Arc::clone(children));
        }
    }

    /// Puts a leaf into memory that was read under `root`. `None` when there is a newer root: read it again.
    ///
    /// # Errors
    /// When it names more volumes than a map can.
    pub(super) fn keep_leaf(
        &self,
        root: Root,
        index: u64,
        items: &super::format::page::LeafItems,
    ) -> Result<Option<Arc<Leaf>>, super::format::FormatError> {
        let mut state = self.lock();
        if let Some(leaf) = state.leaves.get(&index) {
            return Ok(Some(Arc::clone(leaf)));
        }
        if state.root_number != root.number {
            return Ok(None);
        }
        let mut words = vec![Word::ZERO; super::format::page::LEAF_SLOTS];
        for (slot, word) in &items.items {
            let entry = items.ids.translate(Entry::from_word(*word)?, &mut state.ids)?;
            words[usize::from(*slot)] = entry.word();
        }
        let leaf = Arc::new(Leaf::new(words));
        state.leaves.insert(index, Arc::clone(&leaf));
        state.clock.push_back(index);
        state.evict(self.leaves_max);
        Ok(Some(leaf))
    }

    pub(super) fn root_is(&self, root: Root) -> bool {
        self.lock().root_number == root.number
    }
}

/// A finished checkpoint.
#[derive(Debug)]
pub struct Checkpointed {
    pub root: Option<PageAddress>,
    /// Inner pages that are new; one without children is gone.
    pub inner: Vec<(PageIndex, Children)>,
    pub through: u64,
    pub epoch_limit: Epoch,
}

impl State {
    /// Sets a word of a leaf that is in memory, copying the leaf if it is frozen. Returns the old word.
    fn set(&mut self, block: BlockIndex, word: Word) -> Word {
        let index = leaf_of(block);
        let leaf = self.leaves.get_mut(&index).expect("the caller saw that it is loaded");
        if self.frozen.get(&index).is_some_and(|frozen| Arc::ptr_eq(frozen, leaf)) {
            let copy = Arc::new(leaf.copy());
            leaf.supersede();
            *leaf = copy;
        }
        let old = leaf.word(block);
        leaf.set(block, word);
        self.dirty.entry(index).or_insert_with(|| Arc::clone(leaf));
        old
    }

    /// The entry said `old` until change `number`: an object that only this volume may read goes once that is durable.
    fn drop_object(&mut self, volume: VolumeId, shared_epoch: Epoch, block: BlockIndex, old: Word, number: u64) {
        let old = Entry::from_word(old).expect("words in memory were checked when they came in");
        if let Entry::Data { volume: VolumeIndex::OWN, epoch } = old {
            self.retire(epoch);
            if epoch <= shared_epoch {
                return;
            }
            self.dropped.push_back((number, ObjectName::Data { volume, epoch, block }));
        }
    }

    /// An object of this epoch left the map, or failed to enter it: no name of this epoch is made from now on.
    fn retire(&mut self, epoch: Epoch) {
        if epoch == self.epoch && self.epoch < self.epoch_limit {
            self.epoch.0 += 1;
        }
    }

    fn end_creation(&mut self, epoch: Epoch) {
        let count = self.creating.get_mut(&epoch).expect("a creation ends once");
        *count -= 1;
        if *count == 0 {
            self.creating.remove(&epoch);
        }
    }

    /// Drops clean leaves that nobody holds, least recently used first (a clock), until at most `max` are left.
    fn evict(&mut self, max: usize) {
        let mut looks = (self.clock.len() * 2).min(EVICTION_LOOKS_MAX);
        while self.leaves.len() > max && looks > 0 {
            looks -= 1;
            let Some(index) = self.clock.pop_front() else { break };
            let Some(leaf) = self.leaves.get(&index) else { continue };
            // A strong count of one means: not dirty, not frozen, held by no worker; and only this lock gives out more.
            if leaf.take_used() || Arc::strong_count(leaf) != 1 {
                self.clock.push_back(index);
            } else {
                self.leaves.remove(&index);
            }
        }
    }
}
