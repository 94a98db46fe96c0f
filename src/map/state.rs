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
//! cache.rs has what comes from pages, commit.rs and checkpoint.rs what the keeper makes durable.
//!
//! Invariants: `pending` holds exactly the changes with numbers in (`hard_through`, `change_last`] that no commit has taken; a
//! leaf in `dirty` differs from its page; a leaf in `frozen` never changes; the soft journal holds every change above
//! `hard_through`, because no more than its slots are let wait.

mod cache;
mod checkpoint;
mod commit;

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

pub use cache::Root;
pub use checkpoint::{Checkpointed, Frozen};
pub use commit::Pending;

/// Fewest leaves kept, whatever the configuration: below this a checkpoint would chase its own tail.
const LEAVES_MIN: usize = 64;

/// Layers of overlays that take as much memory as a leaf.
const LAYERS_PER_LEAF: usize = 116;
const _: () = assert!(LAYERS_PER_LEAF as u64 == LEAF_MEMORY_BYTES.div_ceil(LAYER_MEMORY_BYTES));

/// Objects that wait for their removal: a guest that writes and discards in turns would fill any store faster than objects go.
const DROPPED_MAX: usize = 8192;

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
}
