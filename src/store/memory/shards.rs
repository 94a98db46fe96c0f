//! A concurrent ordered map of names: a fixed number of locked B-trees. Data names spread by block; everything else of a
//! volume lies in one shard.

use crate::store::{ListScope, ObjectName};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId};
use rustc_hash::FxHasher;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// More than the threads that will ever meet here.
const SHARDS: usize = 64;

type Tree<T> = BTreeMap<ObjectName, Arc<T>>;

pub(super) struct Shards<T> {
    shards: [RwLock<Tree<T>>; SHARDS],
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()) }
    }
}

impl<T> Shards<T> {
    pub(super) fn get(&self, name: &ObjectName) -> Option<Arc<T>> {
        read(self.shard(name)).get(name).cloned()
    }

    /// Gives the name back when it is taken.
    pub(super) fn insert_new(&self, name: ObjectName, value: T) -> Result<(), ObjectName> {
        let mut tree = write(self.shard(&name));
        if tree.contains_key(&name) {
            return Err(name);
        }
        tree.insert(name, Arc::new(value));
        Ok(())
    }

    pub(super) fn replace(&self, name: ObjectName, value: T) {
        write(self.shard(&name)).insert(name, Arc::new(value));
    }

    pub(super) fn remove(&self, name: &ObjectName) {
        write(self.shard(name)).remove(name);
    }

    /// The first `limit` names of the scope behind `after`, ascending.
    pub(super) fn list(&self, scope: ListScope, after: Option<ObjectName>, limit: usize) -> Vec<ObjectName> {
        let mut names = Vec::new();
        for shard in &self.shards {
            let tree = read(shard);
            match scope {
                ListScope::Names => names.extend(behind(&tree, after.as_ref(), is_name).take(limit)),
                ListScope::Volumes => names.extend(one_header_each(&tree, after.as_ref()).take(limit)),
                ListScope::Metadata(volume) => {
                    for kind in metadata_ranges(volume) {
                        names.extend(within(&tree, kind, after.as_ref()).take(limit));
                    }
                }
                ListScope::Data(volume) => names.extend(within(&tree, data_range(volume), after.as_ref()).take(limit)),
            }
        }
        names.sort_unstable();
        names.truncate(limit);
        names
    }

    fn shard(&self, name: &ObjectName) -> &RwLock<Tree<T>> {
        let mut hasher = FxHasher::default();
        match name {
            ObjectName::Name(name) => name.hash(&mut hasher),
            ObjectName::Header { volume, .. }
            | ObjectName::Journal { volume, .. }
            | ObjectName::Segment { volume, .. } => volume.hash(&mut hasher),
            ObjectName::Data { volume, block, .. } => (volume, block).hash(&mut hasher),
        }
        // The high bits of this hash are the well mixed ones.
        let index = usize::try_from(hasher.finish() >> 58).expect("six bits fit in a usize");
        &self.shards[index]
    }
}

fn is_name(name: &ObjectName) -> bool {
    matches!(name, ObjectName::Name(_))
}

/// The names behind `after` for as long as they belong.
fn behind<'tree, T>(
    tree: &'tree Tree<T>,
    after: Option<&'tree ObjectName>,
    belongs: impl Fn(&ObjectName) -> bool + 'tree,
) -> impl Iterator<Item = ObjectName> + 'tree {
    let start = after.map_or(Unbounded, Excluded);
    let names = tree.range::<ObjectName, (Bound<&ObjectName>, Bound<&ObjectName>)>((start, Unbounded));
    names.map(|(name, _)| name).take_while(move |name| belongs(name)).cloned()
}

/// The names from the first to the last of the range that are behind `after`.
fn within<'tree, T>(
    tree: &'tree Tree<T>,
    (first, last): (ObjectName, ObjectName),
    after: Option<&ObjectName>,
) -> impl Iterator<Item = ObjectName> + 'tree {
    let start = match after {
        Some(after) if *after >= first => Excluded(after.clone()),
        Some(_) | None => Included(first),
    };
    // A tree panics when asked for a range that ends before it begins.
    let empty = matches!(&start, Excluded(after) if *after >= last);
    let range = (!empty).then(|| tree.range((start, Included(last))));
    range.into_iter().flatten().map(|(name, _)| name.clone())
}

/// The lowest header of each volume behind the volume of `after`.
fn one_header_each<'tree, T>(
    tree: &'tree Tree<T>,
    after: Option<&ObjectName>,
) -> impl Iterator<Item = ObjectName> + 'tree {
    let mut start = match after.and_then(ObjectName::volume) {
        Some(volume) => Excluded(last_header(volume)),
        None => Included(ObjectName::Header { volume: VolumeId([0; 16]), generation: Generation(0) }),
    };
    std::iter::from_fn(move || {
        let (name, _) = tree.range((start.clone(), Unbounded)).next()?;
        let ObjectName::Header { volume, .. } = name else { return None };
        start = Excluded(last_header(*volume));
        Some(name.clone())
    })
}

fn last_header(volume: VolumeId) -> ObjectName {
    ObjectName::Header { volume, generation: Generation(u64::MAX) }
}

fn metadata_ranges(volume: VolumeId) -> [(ObjectName, ObjectName); 3] {
    let (low, high) = (Generation(0), Generation(u64::MAX));
    [
        (ObjectName::Header { volume, generation: low }, last_header(volume)),
        (
            ObjectName::Journal { volume, generation: low, number: 0 },
            ObjectName::Journal { volume, generation: high, number: u32::MAX },
        ),
        (
            ObjectName::Segment { volume, generation: low, number: 0 },
            ObjectName::Segment { volume, generation: high, number: u32::MAX },
        ),
    ]
}

fn data_range(volume: VolumeId) -> (ObjectName, ObjectName) {
    let first = ObjectName::Data { volume, epoch: Epoch(0), block: BlockIndex(0) };
    (first, ObjectName::Data { volume, epoch: Epoch(u64::MAX), block: BlockIndex(u64::MAX) })
}

fn read<T>(shard: &RwLock<Tree<T>>) -> RwLockReadGuard<'_, Tree<T>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(shard: &RwLock<Tree<T>>) -> RwLockWriteGuard<'_, Tree<T>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
