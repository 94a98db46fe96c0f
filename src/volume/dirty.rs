//! What was written and is not known to be durable.
//!
//! A write is marked after the store completed it and before its request completes. A sync takes the whole set; while it runs,
//! new marks go into the next set. So a write that completed before a sync began is covered by it or by an earlier one
//! (rule C12).

use crate::store::{ObjectName, Persistence};
use rustc_hash::FxHashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct DirtySet {
    /// Something waits for a flush of the device only.
    device: AtomicBool,
    objects: Mutex<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    names: FxHashSet<ObjectName>,
    syncing: bool,
}

impl DirtySet {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self, persistence: Persistence, object: &ObjectName) {
        match persistence {
            Persistence::Durable => {}
            Persistence::Device => {
                if !self.device.load(Ordering::SeqCst) {
                    self.device.store(true, Ordering::SeqCst);
                }
            }
            Persistence::Object => {
                self.lock().names.insert(object.clone());
            }
        }
    }

    /// Nothing is dirty and no sync is under way.
    pub(super) fn is_clean(&self) -> bool {
        let objects = self.lock();
        objects.names.is_empty() && !objects.syncing && !self.device.load(Ordering::SeqCst)
    }

    /// Takes everything that is dirty, for a sync that the caller makes now; `None` when nothing is. One at a time.
    pub(super) fn begin_sync(&self) -> Option<Vec<ObjectName>> {
        let mut objects = self.lock();
        assert!(!objects.syncing, "syncs are made one at a time");
        let device = self.device.swap(false, Ordering::SeqCst);
        if !device && objects.names.is_empty() {
            return None;
        }
        objects.syncing = true;
        let mut names: Vec<_> = std::mem::take(&mut objects.names).into_iter().collect();
        names.sort_unstable();
        Some(names)
    }

    pub(super) fn end_sync(&self) {
        self.lock().syncing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockIndex, Epoch, VolumeId};

    fn object(block: u64) -> ObjectName {
        ObjectName::Data { volume: VolumeId([1; 16]), epoch: Epoch(1), block: BlockIndex(block) }
    }

    #[test]
    fn marks_made_during_a_sync_belong_to_the_next() {
        let dirty = DirtySet::default();
        assert!(dirty.is_clean());
        dirty.mark(Persistence::Object, &object(1));
        assert_eq!(dirty.begin_sync(), Some(vec![object(1)]));
        dirty.mark(Persistence::Object, &object(1));
        dirty.mark(Persistence::Device, &object(2));
        dirty.end_sync();
        assert!(!dirty.is_clean());
        assert_eq!(dirty.begin_sync(), Some(vec![object(1)]));
        dirty.end_sync();
        assert!(dirty.is_clean());
        assert_eq!(dirty.begin_sync(), None);
    }

    #[test]
    fn a_running_sync_is_not_clean() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Device, &object(1));
        assert_eq!(dirty.begin_sync(), Some(vec![]));
        assert!(!dirty.is_clean());
        dirty.end_sync();
        assert!(dirty.is_clean());
    }

    #[test]
    fn durable_writes_leave_nothing_dirty() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Durable, &object(1));
        assert!(dirty.is_clean());
    }
}
