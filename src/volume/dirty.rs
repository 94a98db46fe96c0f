//! What was written and is not known to be durable.
//!
//! A write is marked after the store completed it and before its request completes. A sync takes the whole set; while it runs,
//! new marks go into the next set. So a write that completed before a sync began is covered by it or by an earlier one
//! (rule C12). What only waits for the device may also be taken by a worker's own flush; until that has succeeded nothing
//! looks clean, and every sync flushes the device once more. A sync is worth something only if those flushes that began before
//! it succeed too: what one of them failed to make durable, no later one does.
//!
//! A volume to which anything was written does not look clean either before somebody has seen, after the sync, that it was not
//! taken over (rule C3): also when every write was durable at once, and when a checkpoint made the sync.

use crate::store::{ObjectName, Persistence};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Debug, Default)]
pub(super) struct DirtySet {
    /// Something waits for a flush of the device only.
    device: AtomicBool,
    /// Something was written since somebody began to look whether the volume was taken over.
    unseen: AtomicBool,
    objects: Mutex<Objects>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Objects {
    names: FxHashSet<ObjectName>,
    syncing: bool,
    /// Device flushes of workers under way, by when they began.
    flushing: BTreeSet<u64>,
    flushes: u64,
}

/// A device flush under way. Dropped unfinished, everything is dirty again.
#[derive(Debug)]
pub(super) struct DeviceFlush<'a> {
    dirty: &'a DirtySet,
    number: u64,
    succeeded: bool,
}

impl DeviceFlush<'_> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// It succeeded, and the volume was not taken over.
    pub(super) fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for DeviceFlush<'_> {
    fn drop(&mut self) {
        let mut objects = self.dirty.lock();
        objects.flushing.remove(&self.number);
        if !self.succeeded {
            self.dirty.device.store(true, Ordering::SeqCst);
            self.dirty.unseen.store(true, Ordering::SeqCst);
        }
        drop(objects);
        self.dirty.tell();
    }
}

impl DirtySet {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self, persistence: Persistence, object: &ObjectName) {
        match persistence {
            Persistence::Durable => {}
            Persistence::Device => raise(&self.device),
            Persistence::Object => {
                self.lock().names.insert(object.clone());
            }
        }
        raise(&self.unseen);
    }

    /// Nothing is dirty, no sync is under way, and nobody need look whether the volume was taken over.
    pub(super) fn is_clean(&self) -> bool {
        let objects = self.lock();
        let under_way = objects.syncing || !objects.flushing.is_empty();
        let written = self.device.load(Ordering::SeqCst) || self.unseen.load(Ordering::SeqCst);
        objects.names.is_empty() && !under_way && !written
    }

    /// Takes everything that is dirty, for a sync that the caller makes now; `None` when nothing is. One at a time.
    pub(super) fn begin_sync(&self) -> Option<Vec<ObjectName>> {
        let mut objects = self.lock();
        assert!(!objects.syncing, "syncs are made one at a time");
        let device = self.device.swap(false, Ordering::SeqCst);
        if !device && objects.names.is_empty() && objects.flushing.is_empty() {
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

    /// Takes what waits for the device, for a flush that the caller makes now, after which it looks whether the volume was taken over.
    /// None when a sync is needed or under way.
    pub(super) fn begin_flush(&self) -> Option<DeviceFlush<'_>> {
        let mut objects = self.lock();
        if objects.syncing || !objects.names.is_empty() {
            return None;
        }
        self.device.store(false, Ordering::SeqCst);
        self.unseen.store(false, Ordering::SeqCst);
        let number = objects.flushes;
        objects.flushes += 1;
        objects.flushing.insert(number);
        Some(DeviceFlush { dirty: self, number, succeeded: false })
    }

    /// Flushes of lower numbers began before now.
    pub(super) fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    /// Whether a flush of a lower number has not succeeded yet.
    pub(super) fn is_flushing_before(&self, number: u64) -> bool {
        self.lock().flushing.first().is_some_and(|first| *first < number)
    }

    /// A round begins, at whose end somebody looks whether the volume was taken over.
    pub(super) fn begin_look(&self) -> bool {
        self.unseen.swap(false, Ordering::SeqCst)
    }

    /// The round came to nothing.
    pub(super) fn not_looked(&self) {
        self.unseen.store(true, Ordering::SeqCst);
    }

    /// Ready when a flush has ended, or the volume has failed, since the call.
    pub(super) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Lets those look again who wait for news.
    pub(super) fn tell(&self) {
        self.news.notify_waiters();
    }
}

/// Most often it is set already, and then its cache line stays where it is.
fn raise(flag: &AtomicBool) {
    if !flag.load(Ordering::SeqCst) {
        flag.store(true, Ordering::SeqCst);
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
        assert_eq!(dirty.begin_sync(), None);
    }

    #[test]
    fn a_running_sync_is_not_clean_nor_is_one_after_which_nobody_looked() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Device, &object(1));
        assert_eq!(dirty.begin_sync(), Some(vec![]));
        assert!(!dirty.is_clean());
        dirty.end_sync();
        assert!(!dirty.is_clean(), "a checkpoint's sync, perhaps");
        assert!(dirty.begin_look());
        assert!(dirty.is_clean());
    }

    #[test]
    fn a_flush_of_the_device_takes_no_objects_and_hides_from_no_sync() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Device, &object(1));
        let flush = dirty.begin_flush().unwrap();
        assert!(!dirty.is_clean(), "it has not succeeded yet");
        assert_eq!(dirty.begin_sync(), Some(vec![]), "another flush must not rely on it");
        assert!(dirty.begin_flush().is_none(), "nor be made beside a sync");
        dirty.end_sync();
        flush.succeed();
        assert!(dirty.is_clean());
        dirty.mark(Persistence::Object, &object(2));
        assert!(dirty.begin_flush().is_none());
    }

    #[test]
    fn a_flush_that_came_to_nothing_leaves_everything_dirty() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Device, &object(1));
        drop(dirty.begin_flush());
        assert!(!dirty.is_clean());
        assert_eq!(dirty.begin_sync(), Some(vec![]));
    }

    #[test]
    fn a_later_flush_knows_of_those_that_began_before() {
        let dirty = DirtySet::default();
        let first = dirty.begin_flush().unwrap();
        let second = dirty.begin_flush().unwrap();
        assert!(dirty.is_flushing_before(second.number()) && !dirty.is_flushing_before(first.number()));
        first.succeed();
        assert!(!dirty.is_flushing_before(second.number()) && dirty.is_flushing_before(dirty.flushes()));
    }

    #[test]
    fn durable_writes_need_no_sync_but_a_look_at_the_lease() {
        let dirty = DirtySet::default();
        dirty.mark(Persistence::Durable, &object(1));
        assert!(!dirty.is_clean());
        assert_eq!(dirty.begin_sync(), None);
        dirty.begin_flush().unwrap().succeed();
        assert!(dirty.is_clean());
    }
}
