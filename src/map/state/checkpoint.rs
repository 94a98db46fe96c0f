//! Checkpoints: what is dirty is frozen at one instant, written while workers go on, and then clean, or dirty again.
//!
//! At most one freeze is under way in a map. [`Map::capture`] freezes several maps at the same instant, and raises what is shared.

use super::{Map, State};
use crate::map::entry::VolumeIds;
use crate::map::format::page::{Children, PageAddress, PageIndex};
use crate::map::leaf::Leaf;
use crate::units::Epoch;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

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

/// A finished checkpoint.
#[derive(Debug)]
pub struct Checkpointed {
    pub root: Option<PageAddress>,
    /// Inner pages that are new; one without children is gone.
    pub inner: Vec<(PageIndex, Children)>,
    pub through: u64,
    pub epoch_limit: Epoch,
}

impl Map {
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
}

impl State {
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
}
