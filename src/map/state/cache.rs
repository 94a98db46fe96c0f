//! What is in memory of the persisted map: pages come in through [`tree`](crate::map::tree), under the root that they were read by;
//! clean leaves that nobody holds go.
//!
//! A page that was read under an older root is never kept.

use super::{LAYERS_PER_LEAF, Map, State};
use crate::map::entry::{Entry, VolumeIndex};
use crate::map::format::FormatError;
use crate::map::format::page::{Children, LeafItems, PageAddress, PageIndex};
use crate::map::leaf::Leaf;
use crate::units::BlockIndex;
use std::sync::Arc;

/// Leaves looked at in one eviction, so that the lock is never held for long.
const EVICTION_LOOKS_MAX: usize = 128;

/// A root and its number, as of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Root {
    pub address: Option<PageAddress>,
    pub number: u64,
}

impl Map {
    pub(in crate::map) fn root(&self) -> Root {
        let state = self.lock();
        Root { address: state.root, number: state.root_number }
    }

    /// The root, and the first leaf from `index` on that differs from its page under that root.
    pub(in crate::map) fn first_changed(&self, index: u64) -> (Root, Option<u64>) {
        let state = self.lock();
        let dirty = state.dirty.range(index..).next();
        let frozen = state.frozen.range(index..).next();
        let first = dirty.into_iter().chain(frozen).map(|(index, _)| *index).min();
        (Root { address: state.root, number: state.root_number }, first)
    }

    pub(in crate::map) fn inner(&self, page: PageIndex) -> Option<Arc<Children>> {
        self.lock().inner.get(&page).map(Arc::clone)
    }

    /// Keeps an inner page that was read under `root`, unless there is a newer root.
    pub(in crate::map) fn keep_inner(&self, root: Root, page: PageIndex, children: &Arc<Children>) {
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
    pub(in crate::map) fn keep_leaf(
        &self,
        root: Root,
        index: u64,
        items: &LeafItems,
    ) -> Result<Option<Arc<Leaf>>, FormatError> {
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
    fn leaf_of_items(&self, items: &LeafItems) -> Result<Leaf, FormatError> {
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
                return Err(FormatError::new("leaf page", problem));
            }
            leaf.set(BlockIndex(u64::from(*slot)), &entry);
        }
        Ok(leaf)
    }

    pub(in crate::map) fn root_is(&self, root: Root) -> bool {
        self.lock().root_number == root.number
    }
}

impl State {
    /// Drops clean leaves that nobody holds, least recently used first (a clock), until at most `max` are left.
    pub(super) fn evict(&mut self, max: usize) {
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
