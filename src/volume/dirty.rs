//! What was written and is not known to be durable.
//!
//! A write is marked after the store completed it and before its request completes. A sync takes the whole set; while it runs,
//! new marks go into the next set. So a write that completed before a sync began is covered by it or by an earlier one
//! (rule C12). What only waits for the device may also be taken by a worker's own flush; until that has succeeded nothing
//! looks clean, and every sync flushes the device once more.

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
    /// Device flushes of workers under way, or failed.
    flushing: usize,
}

impl DirtySet {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self, persistence: Persistence, object: &ObjectName) {
        match persistence {
            // A durable write needs no sync, but a flush behind it must still look whether we were cut off (rule C3).
            Persistence::Durable | Persistence::Device => {
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
        let under_way = objects.syncing || objects.flushing != 0;
        objects.names.is_empty() && !under_way && !self.device.load(Ordering::SeqCst)
    }

    /// Takes everything that is dirty, for a sync that the caller makes now; `None` when nothing is. One at a time.
    pub(super) fn begin_sync(&self) -> Option<Vec<ObjectName>> {
        let mut objects = self.lock();
        assert!(!objects.syncing, "syncs are made one at a time");
        let device = self.device.swap(false, Ordering::SeqCst);
        if !device && objects.names.is_empty() && objects.flushing == 0 {
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

    /// Takes what waits for the device, for a flush that the caller makes now. False when a sync is needed or under way.
    pub(super) fn begin_flush(&self) -> bool {
        let mut objects = self.lock();
        if objects.syncing || !objects.names.is_empty() {
            return false;
        }
        self.device.store(false, Ordering::SeqCst);
        objects.flushing += 1;
        true
    }

    /// Only after success: what failed never looks clean again.
    pub(super) fn end_flush(&self) {
        self.lock().flushing -= 1;
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
    fn a_flush_of_the_device_takes_no_objects_and_hides_from_no_sync() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Device, &object(1));
        assert!(dirty.begin_flush());
        assert!(!dirty.is_clean(), "it has not succeeded yet");
        assert_eq!(dirty.begin_sync(), Some(vec![]), "another flush must not rely on it");
        assert!(!dirty.begin_flush(), "nor be made beside a sync");
        dirty.end_sync();
        dirty.end_flush();
        assert!(dirty.is_clean());
        dirty.mark(Persistence::Object, &object(2));
        assert!(!dirty.begin_flush());
    }

    #[test]
    fn a_durable_write_takes_a_flush_but_no_sync_of_its_object() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Durable, &object(1));
        assert!(!dirty.is_clean(), "somebody must look whether the lease is still ours");
        assert_eq!(dirty.begin_sync(), Some(vec![]));
    }
}
