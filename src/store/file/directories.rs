//! Which directories have entries that may not be durable yet.
//!
//! A new file's name is durable when its directory was synced, and a new directory's when its parent was. A directory
//! counts as settled only when this process synced it after its last change here: what an earlier process left is not
//! trusted. Changes are numbered, so two syncs of one directory at once do not take each other's for their own.

use super::layout::Directory;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Directories {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the last change anywhere.
    last: u64,
    known: HashMap<Directory, Marks>,
}

#[derive(Default, Clone, Copy)]
struct Marks {
    /// The last change of this directory.
    changed: u64,
    /// Up to which change it is known to be durable.
    settled: Option<u64>,
}

impl Marks {
    fn is_settled(self) -> bool {
        self.settled.is_some_and(|settled| settled >= self.changed)
    }
}

/// A point in the order of changes.
#[derive(Clone, Copy)]
pub(super) struct Moment(u64);

impl Directories {
    /// An entry was added. Call it after the change and before telling anybody.
    pub(super) fn changed(&self, directory: Directory) {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.known.entry(directory).or_default().changed = number;
    }

    /// To be taken before the sync that [`Directories::settle`] then reports.
    pub(super) fn now(&self) -> Moment {
        Moment(self.lock().last)
    }

    /// The directory's entries as of that moment are durable.
    pub(super) fn settle(&self, directory: Directory, moment: Moment) {
        let mut state = self.lock();
        let marks = state.known.entry(directory).or_default();
        marks.settled = marks.settled.max(Some(moment.0));
    }

    /// Those of the directory and its ancestors that must be synced for an entry in it to be durable.
    pub(super) fn unsettled(&self, directory: Directory) -> Vec<Directory> {
        let state = self.lock();
        let settled = |directory: &Directory| state.known.get(directory).is_some_and(|marks| marks.is_settled());
        directory.chain().filter(|directory| !settled(directory)).collect()
    }

    /// Makes the directory's entries durable now. One that does not exist has none.
    pub(super) fn sync(&self, root: impl AsFd, directory: Directory) -> Result<(), Errno> {
        let moment = self.now();
        match rustix::fs::openat(
            root,
            directory.path(),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(opened) => rustix::fs::fsync(opened)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.settle(directory, moment);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    #[test]
    fn an_unknown_directory_is_synced_with_all_above_it() {
        let directories = Directories::default();
        assert_eq!(directories.unsettled(Directory::Names), [Directory::Names, Directory::Root]);
        directories.settle(Directory::Root, directories.now());
        assert_eq!(directories.unsettled(Directory::Names), [Directory::Names]);
    }

    #[test]
    fn a_change_during_a_sync_is_not_covered_by_it() {
        let directories = Directories::default();
        let shard = Directory::Shard(VolumeId([0; 16]), 0);
        shard.chain().for_each(|directory| directories.settle(directory, directories.now()));
        assert!(directories.unsettled(shard).is_empty());
        let moment = directories.now();
        directories.changed(shard);
        directories.settle(shard, moment);
        assert_eq!(directories.unsettled(shard), [shard]);
        directories.settle(shard, directories.now());
        assert!(directories.unsettled(shard).is_empty());
    }
}
