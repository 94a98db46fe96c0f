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

use super::entry::{Entry, VolumeIds, VolumeIndex};
use super::format::page::{Children, PageAddress, PageIndex};
use super::leaf::{LAYER_MEMORY_BYTES, LEAF_MEMORY_BYTES, Leaf, WorkerLeaves, leaf_of};
use super::overlay::{GranuleRange, Granules, Step};
use super::soft_journal::{self, Change, SoftJournal};
use crate::store::ObjectName;
use crate::units::{BlockIndex, Epoch, VolumeId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Fewest leaves kept, whatever the configuration: below this a checkpoint would chase its own tail.
const LEAVES_MIN: usize = 64;

/// Layers of overlays that take as much memory as a leaf.
const LAYERS_PER_LEAF: usize = 116;
const _: () = assert!(LAYERS_PER_LEAF as u64 == LEAF_MEMORY_BYTES.div_ceil(LAYER_MEMORY_BYTES));

/// Objects that wait for their removal: a guest that writes and discards in turns would fill any store faster than objects go.
const DROPPED_MAX: usize = 8192;

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
    /// How blocks that get an overlay are cut.
    pub granules: Granules,
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
    granules: Granules,
    leaves_max: usize,
    /// Only ever grows, so an index stays what it is. Where both are needed its lock is taken within the state's.
    ids: RwLock<VolumeIds>,
    state: Mutex<State>,
    /// Woken when changes that had to wait may go on.
    room: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    leaves: FxHashMap<u64, Arc<Leaf>>,
    clock: VecDeque<u64>,
    /// Layers of overlays in `leaves`, and of them in `dirty`, as [`Leaf::layers`] counts them.
    layers: usize,
    dirty_layers: usize,
    /// Leaves of `frozen` that are in memory beside the copies that took their places.
    superseded: usize,
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
    pending: BTreeMap<BlockIndex, Entry>,
    dropped: VecDeque<(u64, ObjectName)>,
}

/// Why an entry was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its leaf is not in memory: load it and come back.
    NotLoaded,
    /// Too much waits for the keeper: ask it for a commit or checkpoint, wait for [`Map::room`], come back.
    NoRoom,
    /// Its object has become shared since the caller looked: look again.
    Shared,
}

/// How an object that was created enters the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It holds all of the block.
    Whole,
    /// It is the top of an overlay, and holds these granules beside those of the absorbed layer.
    Top { absorbed: Option<u8>, filled: GranuleRange },
}

/// Changes that a commit takes.
#[derive(Debug)]
pub struct Pending {
    pub changes: Vec<(BlockIndex, Entry)>,
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
    pub shared_epoch: Epoch,
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
            leaves: FxHashMap::default(),
            clock: VecDeque::new(),
            layers: 0,
            dirty_layers: 0,
            superseded: 0,
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
            granules: seed.granules,
            ids: RwLock::new(VolumeIds::new(seed.volume)),
            leaves_max: leaves.max(LEAVES_MIN),
            state: Mutex::new(state),
            room: tokio::sync::Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> RwLockReadGuard<'_, VolumeIds> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids_mut(&self) -> RwLockWriteGuard<'_, VolumeIds> {
        self.ids.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// An empty set of leaves at hand, for one worker.
    pub fn worker_leaves(&self) -> WorkerLeaves {
        WorkerLeaves::new(self.leaves_max)
    }

    pub fn granules(&self) -> Granules {
        self.granules
    }

    /// Whether an entry's granules, if it has any, make up an object: what a page or record of another object size says is damage.
    pub fn cuts_right(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Overlay(overlay) => self.granules.make_up_as_much_as(overlay.granules()),
            Entry::Zero | Entry::Data { .. } => true,
        }
    }

    /// Objects of this and lower epochs are shared.
    pub fn shared_epoch(&self) -> Epoch {
        Epoch(self.shared_epoch.load(Ordering::Acquire))
    }

    /// Whether the entry's object, of an overlay the top one, may be written in place: this volume made it, and nobody else may
    /// read it.
    pub fn owns(&self, entry: &Entry) -> bool {
        let top = entry.objects().next();
        top.is_some_and(|(volume, epoch)| volume == VolumeIndex::OWN && epoch > self.shared_epoch())
    }

    /// The name of an object that an entry of `block` says.
    ///
    /// # Panics
    /// When the index is not from this map.
    pub fn object(&self, volume: VolumeIndex, epoch: Epoch, block: BlockIndex) -> ObjectName {
        let volume = match volume {
            VolumeIndex::OWN => self.volume,
            other => self.ids().get(other).expect("indexes in memory point into the map's table"),
        };
        ObjectName::Data { volume, epoch, block }
    }

    /// The leaf, if it is in memory.
    pub fn leaf(&self, index: u64) -> Option<Arc<Leaf>> {
        self.lock().leaves.get(&index).map(Arc::clone)
    }

    /// The block reads as zeros from now on.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing changed.
    pub fn zero(&self, block: BlockIndex) -> Result<(), Refusal> {
        let mut state = self.lock();
        self.admit(&state, block, 1)?;
        self.apply(&mut state, block, Step::Zero);
        Ok(())
    }

    /// The overlay's top, which this volume owns, now holds these granules.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing changed. [`Refusal::Shared`] also when the entry has no overlay any more.
    pub fn fill(&self, block: BlockIndex, top: Epoch, range: GranuleRange) -> Result<(), Refusal> {
        let mut state = self.lock();
        self.admit(&state, block, 1)?;
        let entry = state.entry(block);
        let same_top = entry.objects().next() == Some((VolumeIndex::OWN, top));
        if !matches!(entry, Entry::Overlay(_)) || !same_top || !self.owns(&entry) {
            return Err(Refusal::Shared);
        }
        self.apply(&mut state, block, Step::Fill(range));
        Ok(())
    }

    /// Puts an entry in that a dead process had committed; it needs no soft journal, because nothing is served yet.
    ///
    /// # Errors
    /// [`Refusal::NotLoaded`].
    pub fn replay(&self, block: BlockIndex, entry: &Entry, ids: &VolumeIds) -> Result<(), Refusal> {
        let mut state = self.lock();
        if !state.leaves.contains_key(&leaf_of(block)) {
            return Err(Refusal::NotLoaded);
        }
        let entry = ids.translate(entry, &mut self.ids_mut()).expect("records were checked when they were decoded");
        state.set(block, &entry);
        Ok(())
    }

    /// Takes a step that a dead process had made, which cut blocks into `granules`. `Ok(false)` when it does not go with the
    /// entry.
    ///
    /// # Errors
    /// [`Refusal::NotLoaded`].
    pub fn replay_step(&self, block: BlockIndex, step: Step, granules: Granules) -> Result<bool, Refusal> {
        let mut state = self.lock();
        if !state.leaves.contains_key(&leaf_of(block)) {
            return Err(Refusal::NotLoaded);
        }
        let after = state.entry(block).after(step, granules);
        if let Some(entry) = &after {
            state.set(block, entry);
        }
        Ok(after.is_some())
    }

    /// After replay: everything up to this number is in the leaves.
    pub fn replayed(&self, through: u64) {
        let mut state = self.lock();
        state.change_last = through;
        state.hard_through = through;
    }

    /// Whether `steps` changes of the block's entry may be made now.
    fn admit(&self, state: &State, block: BlockIndex, steps: u64) -> Result<(), Refusal> {
        let index = leaf_of(block);
        if !state.leaves.contains_key(&index) {
            return Err(Refusal::NotLoaded);
        }
        let too_many_dirty = state.dirty_leaves() >= self.leaves_max / 2 && !state.dirty.contains_key(&index);
        let waiting = state.change_last - state.hard_through;
        if too_many_dirty || waiting + steps > soft_journal::SLOTS { Err(Refusal::NoRoom) } else { Ok(()) }
    }

    /// Soft journal first, then the entry that workers see.
    fn apply(&self, state: &mut State, block: BlockIndex, step: Step) {
        state.change_last += 1;
        let number = state.change_last;
        let old = state.entry(block);
        let new = old.after(step, self.granules).expect("the caller looked at the entry, and has the block's claim");
        let soft = self.soft.as_ref().expect("entries change only when open for writing");
        soft.append(Change { number, block, step });
        state.set(block, &new);
        state.drop_objects(self.volume, self.shared_epoch(), block, (&old, &new), number);
        state.pending.insert(block, new);
    }

    /// Whether the keeper should checkpoint now, before anybody has to wait.
    pub fn wants_checkpoint(&self) -> bool {
        let state = self.lock();
        state.dirty_leaves() >= self.leaves_max / 4 || state.epoch.0 + 1 >= state.epoch_limit.0
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
    /// [`Refusal::NoRoom`] when the reserved epochs are used up, or too many objects wait for their removal.
    pub fn begin_creation(&self) -> Result<Epoch, Refusal> {
        let mut state = self.lock();
        if state.epoch >= state.epoch_limit || state.dropped.len() >= DROPPED_MAX {
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
    pub fn install(&self, block: BlockIndex, epoch: Epoch, how: Installed) -> Result<(), Refusal> {
        let mut state = self.lock();
        match how {
            Installed::Whole => {
                self.admit(&state, block, 1)?;
                self.apply(&mut state, block, Step::Own { epoch });
            }
            Installed::Top { absorbed, filled } => {
                self.admit(&state, block, 2)?;
                self.apply(&mut state, block, Step::Cover { epoch, absorbed });
                self.apply(&mut state, block, Step::Fill(filled));
            }
        }
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
        let known = self.ids();
        let translate = |(block, entry): (BlockIndex, Entry)| {
            (block, known.translate(&entry, &mut ids).expect("a record names what the map names"))
        };
        let changes = changes.into_iter().map(translate).collect();
        Pending { changes, ids, through: state.change_last }
    }

    /// The commit could not be made, and nothing of it is durable.
    pub fn put_back(&self, pending: Pending) {
        let mut state = self.lock();
        for (block, entry) in pending.changes {
            let entry = pending.ids.translate(&entry, &mut self.ids_mut()).expect("as taken");
            state.pending.entry(block).or_insert(entry);
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
        if state.epoch < state.epoch_limit {
            state.epoch.0 += 1;
        }
        state.freeze(self.shared_epoch(), self.ids().clone())
    }

    /// Freezes the dirty leaves of all these maps at one instant, and shares every object that they name: what the maps say now
    /// is never written in place again. The caller has seen to it that no write in place is under way.
    ///
    /// # Panics
    /// When the last freeze of one was not ended, or one is there twice.
    pub fn capture(maps: &[&Map]) -> Vec<Frozen> {
        let mut in_order: Vec<usize> = (0..maps.len()).collect();
        in_order.sort_by_key(|index| maps[*index].volume);
        assert!(in_order.windows(2).all(|pair| maps[pair[0]].volume != maps[pair[1]].volume), "each map once");
        // All locks at once, always in the order of the ids: no change in one map is seen that another missed.
        let mut states: Vec<(usize, MutexGuard<'_, State>)> =
            in_order.into_iter().map(|index| (index, maps[index].lock())).collect();
        let mut captured: Vec<(usize, Frozen)> = Vec::with_capacity(maps.len());
        for (index, state) in &mut states {
            let shared = state.epoch;
            maps[*index].shared_epoch.store(shared.0, Ordering::Release);
            state.epoch.0 += 1;
            captured.push((*index, state.freeze(shared, maps[*index].ids().clone())));
        }
        drop(states);
        captured.sort_by_key(|(index, _)| *index);
        captured.into_iter().map(|(_, frozen)| frozen).collect()
    }

    /// The checkpoint failed: what was frozen is dirty again, unless it changed since.
    pub fn unfreeze(&self) {
        let mut state = self.lock();
        for (index, leaf) in std::mem::take(&mut state.frozen) {
            state.dirty.entry(index).or_insert(leaf);
        }
        state.superseded = 0;
        state.dirty_layers = state.dirty.values().map(|leaf| leaf.layers()).sum();
    }

    /// The checkpoint is durable, and with it the new limit of epochs.
    pub fn checkpointed(&self, written: Checkpointed) {
        let mut state = self.lock();
        state.frozen.clear();
        state.superseded = 0;
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
        let leaf = Arc::new(self.leaf_of_items(items)?);
        let mut state = self.lock();
        if let Some(leaf) = state.leaves.get(&index) {
            return Ok(Some(Arc::clone(leaf)));
        }
        if state.root_number != root.number {
            return Ok(None);
        }
        state.layers += leaf.layers();
        state.leaves.insert(index, Arc::clone(&leaf));
        state.clock.push_back(index);
        state.evict(self.leaves_max);
        Ok(Some(leaf))
    }

    /// The leaf with the map's own indexes. Each id of the page is looked up once.
    fn leaf_of_items(&self, items: &super::format::page::LeafItems) -> Result<Leaf, super::format::FormatError> {
        let mut ids = self.ids_mut();
        let places: Vec<VolumeIndex> =
            items.ids.as_slice().iter().map(|id| ids.intern(*id)).collect::<Result<_, _>>()?;
        drop(ids);
        let place = |index: VolumeIndex| Ok(places[usize::try_from(index.0).expect("20 bits")]);
        let leaf = Leaf::zero();
        for (slot, entry) in &items.items {
            let entry: Result<Entry, std::convert::Infallible> = entry.reindexed(place);
            let Ok(entry) = entry;
            if !self.cuts_right(&entry) {
                let problem = "an overlay's granules do not make up an object of this volume";
                return Err(super::format::FormatError::new("leaf page", problem));
            }
            leaf.set(BlockIndex(u64::from(*slot)), &entry);
        }
        Ok(leaf)
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
    fn entry(&self, block: BlockIndex) -> Entry {
        self.leaves.get(&leaf_of(block)).expect("the caller saw that it is loaded").entry(block)
    }

    /// Sets an entry of a leaf that is in memory, copying the leaf if it is frozen.
    fn set(&mut self, block: BlockIndex, entry: &Entry) {
        let index = leaf_of(block);
        let leaf = self.leaves.get_mut(&index).expect("the caller saw that it is loaded");
        if self.frozen.get(&index).is_some_and(|frozen| Arc::ptr_eq(frozen, leaf)) {
            let copy = Arc::new(leaf.copy());
            leaf.supersede();
            *leaf = copy;
            self.superseded += 1;
        }
        let before = leaf.layers();
        leaf.set(block, entry);
        let after = leaf.layers();
        self.layers = self.layers + after - before;
        match self.dirty.entry(index) {
            std::collections::btree_map::Entry::Occupied(_) => self.dirty_layers = self.dirty_layers + after - before,
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(leaf));
                self.dirty_layers += after;
            }
        }
    }

    fn freeze(&mut self, shared_epoch: Epoch, ids: VolumeIds) -> Frozen {
        assert!(self.frozen.is_empty(), "one checkpoint at a time");
        self.frozen = std::mem::take(&mut self.dirty);
        self.dirty_layers = 0;
        let oldest = self.creating.keys().next().copied().unwrap_or(self.epoch);
        Frozen {
            leaves: self.frozen.clone(),
            ids,
            through: self.change_last,
            epoch: oldest.min(self.epoch),
            epoch_next: self.epoch,
            shared_epoch,
            root: self.root,
        }
    }

    /// Leaves that are dirty, and the layers of their overlays in as many leaves' memory.
    fn dirty_leaves(&self) -> usize {
        self.dirty.len() + self.dirty_layers / LAYERS_PER_LEAF
    }

    /// The entry was changed by change `number`: objects that only this volume may read, and that it names no more, go once that
    /// is durable.
    fn drop_objects(
        &mut self,
        volume: VolumeId,
        shared_epoch: Epoch,
        block: BlockIndex,
        (old, new): (&Entry, &Entry),
        number: u64,
    ) {
        for (owner, epoch) in old.objects().filter(|object| new.objects().all(|kept| kept != *object)) {
            if owner == VolumeIndex::OWN && epoch > shared_epoch {
                self.retire(epoch);
                self.dropped.push_back((number, ObjectName::Data { volume, epoch, block }));
            }
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
        while self.leaves.len() + self.superseded + self.layers / LAYERS_PER_LEAF > max && looks > 0 {
            looks -= 1;
            let Some(index) = self.clock.pop_front() else { break };
            let Some(leaf) = self.leaves.get(&index) else { continue };
            // A strong count of one means: not dirty, not frozen, held by no worker; and only this lock gives out more.
            if leaf.take_used() || Arc::strong_count(leaf) != 1 {
                self.clock.push_back(index);
            } else {
                self.layers -= leaf.layers();
                self.leaves.remove(&index);
            }
        }
    }
}
