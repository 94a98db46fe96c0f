//! Commits: the changes that the next journal record takes, and the objects that may go once it is durable.

use super::Map;
use crate::map::entry::{Entry, VolumeIds};
use crate::store::ObjectName;
use crate::units::BlockIndex;

/// Changes that a commit takes.
#[derive(Debug)]
pub struct Pending {
    pub changes: Vec<(BlockIndex, Entry)>,
    pub ids: VolumeIds,
    pub through: u64,
}

impl Map {
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
}
