//! The store's cache of descriptors, shared by all channels: bounded, and never two open files for one object.
//!
//! An entry is dropped only when nobody else holds it, so what is in flight keeps its descriptor, and a name that is
//! looked up finds the one that others use. Which entry goes is decided by a clock hand: a second chance for what was
//! used lately. Files written through the page cache stay until they are synced, as long as anything else can go.

use super::open_file::OpenFile;
use crate::store::ObjectName;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More than the threads that will ever meet here.
const SHARDS: usize = 16;

/// Entries looked at for one that must go.
const SCAN_MAX: usize = 64;

pub(super) struct OpenFiles {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
}

#[derive(Default)]
struct Shard {
    places: FxHashMap<ObjectName, usize>,
    files: Vec<Arc<OpenFile>>,
    hand: usize,
}

/// What came of caching a file.
pub(super) struct Adopted {
    /// The one to use: the given file, or the one that another thread cached first. `None` when the object was removed
    /// or replaced since it was opened.
    pub(super) file: Option<Arc<OpenFile>>,
    /// What had to go; to be closed, and synced before when it is unsynced.
    pub(super) evicted: Option<Arc<OpenFile>>,
}

impl OpenFiles {
    pub(super) fn new(capacity: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), per_shard: capacity.div_ceil(SHARDS) }
    }

    /// Name records and headers may be replaced by other processes at any time, so they are opened afresh each time.
    pub(super) fn is_cacheable(name: &ObjectName) -> bool {
        match name {
            ObjectName::Name(_) | ObjectName::Header { .. } => false,
            ObjectName::Journal { .. } | ObjectName::Segment { .. } | ObjectName::Data { .. } => true,
        }
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<Arc<OpenFile>> {
        let shard = self.shard(name);
        let file = shard.places.get(name).map(|place| &shard.files[*place])?;
        file.set_used();
        Some(Arc::clone(file))
    }

    /// Caches a file that was just opened.
    pub(super) fn adopt(&self, file: OpenFile) -> Adopted {
        let mut shard = self.shard(&file.name);
        if let Some(place) = shard.places.get(&file.name) {
            return Adopted { file: Some(Arc::clone(&shard.files[*place])), evicted: None };
        }
        // Whoever removes the object unlinks it first and calls `forget` then, so one of the two sees the other.
        if rustix::fs::fstat(file.fd()).is_ok_and(|status| status.st_nlink == 0) {
            return Adopted { file: None, evicted: None };
        }
        let evicted = if shard.files.len() >= self.per_shard { shard.evict() } else { None };
        let file = Arc::new(file);
        shard.insert(Arc::clone(&file));
        Adopted { file: Some(file), evicted }
    }

    /// The object was removed or replaced. Returns its file, if it was open.
    pub(super) fn forget(&self, name: &ObjectName) -> Option<Arc<OpenFile>> {
        let mut shard = self.shard(name);
        let place = shard.places.get(name).copied()?;
        let file = shard.remove(place);
        file.set_gone();
        Some(file)
    }

    /// Closes some files that nobody uses, because the process ran out of descriptors. What must be synced is returned.
    pub(super) fn shrink(&self) -> Vec<Arc<OpenFile>> {
        let mut unsynced = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            for _ in 0..shard.files.len() / 4 {
                unsynced.extend(shard.evict().filter(|file| file.is_unsynced()));
            }
        }
        unsynced
    }

    fn shard(&self, name: &ObjectName) -> MutexGuard<'_, Shard> {
        // The high bits of this hash are the well mixed ones.
        let index = usize::try_from(FxBuildHasher.hash_one(name) >> 60).expect("four bits fit in a usize");
        lock(&self.shards[index])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn insert(&mut self, file: Arc<OpenFile>) {
        self.places.insert(file.name.clone(), self.files.len());
        self.files.push(file);
    }

    fn remove(&mut self, place: usize) -> Arc<OpenFile> {
        let file = self.files.swap_remove(place);
        self.places.remove(&file.name);
        if let Some(moved) = self.files.get(place) {
            self.places.insert(moved.name.clone(), place);
        }
        file
    }

    /// Takes out a file that nobody holds and that was not used lately; an unsynced one only if there is no other.
    fn evict(&mut self) -> Option<Arc<OpenFile>> {
        let mut unsynced = None;
        for _ in 0..SCAN_MAX.min(2 * self.files.len()) {
            self.hand = (self.hand + 1) % self.files.len();
            let file = &self.files[self.hand];
            if Arc::strong_count(file) > 1 || file.take_used() {
                continue;
            }
            if !file.is_unsynced() {
                return Some(self.remove(self.hand));
            }
            unsynced = Some(self.hand);
        }
        unsynced.map(|place| self.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockIndex, Epoch, VolumeId};

    fn file(block: u64) -> OpenFile {
        let name = ObjectName::Data { volume: VolumeId([0; 16]), epoch: Epoch(1), block: BlockIndex(block) };
        OpenFile::new(name, tempfile::tempfile().unwrap().into(), false)
    }

    fn linked(block: u64) -> (OpenFile, tempfile::NamedTempFile) {
        let kept = tempfile::NamedTempFile::new().unwrap();
        let name = file(block).name;
        (OpenFile::new(name, kept.reopen().unwrap().into(), false), kept)
    }

    #[test]
    fn a_file_without_a_name_is_not_cached() {
        let files = OpenFiles::new(64);
        let name = file(1).name;
        assert!(files.adopt(file(1)).file.is_none());
        assert!(files.get(&name).is_none());
    }

    #[test]
    fn one_object_has_one_open_file() {
        let files = OpenFiles::new(64);
        let ((first, _a), (second, _b)) = (linked(1), linked(1));
        let first = files.adopt(first).file.unwrap();
        let second = files.adopt(second).file.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn files_in_use_are_never_evicted_and_unsynced_ones_last() {
        let files = OpenFiles::new(1);
        let keep: Vec<_> = (0..200).map(linked).collect();
        let mut held = Vec::new();
        let mut kept = Vec::new();
        for (number, (file, name)) in keep.into_iter().enumerate() {
            kept.push(name);
            let adopted = files.adopt(file);
            if let Some(evicted) = adopted.evicted {
                assert!(!held.iter().any(|held| Arc::ptr_eq(held, &evicted)));
            }
            if number % 3 == 0 {
                held.extend(adopted.file);
            }
        }
        for file in &held {
            assert!(Arc::ptr_eq(&files.get(&file.name).unwrap(), file));
        }
    }

    #[test]
    fn a_forgotten_file_is_gone_for_whoever_holds_it() {
        let files = OpenFiles::new(64);
        let (file, _name) = linked(1);
        let held = files.adopt(file).file.unwrap();
        files.forget(&held.name);
        assert!(held.is_gone());
        assert!(files.get(&held.name).is_none());
    }
}
