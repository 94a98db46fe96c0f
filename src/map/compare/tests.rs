//! Two maps are compared by what their entries name, block by block and granule by granule.

use super::*;
use crate::map::entry::{VolumeIds, VolumeIndex};
use crate::map::overlay::{Granules, Layer, Overlay};
use crate::map::state::{Checkpointed, MapSeed};
use crate::map::tree::{self, Extent, Segments};
use crate::store::memory::MemoryStore;
use crate::store::metered::MeteredStore;
use crate::store::{OpKind, Store, StoreError, io};
use crate::units::{Epoch, Generation, VolumeId};
use futures_util::FutureExt;
use std::future::Future;
use std::pin::pin;

const OBJECT: u64 = 64 << 10;
const OWNER: VolumeId = VolumeId([1; 16]);
const CLONE: VolumeId = VolumeId([2; 16]);

fn object_size() -> ObjectSize {
    ObjectSize::new(OBJECT).unwrap()
}

fn map(volume: VolumeId, root: Option<PageAddress>) -> Map {
    Map::new(MapSeed {
        volume,
        shared_epoch: Epoch(0),
        epoch: Epoch(1),
        epoch_limit: Epoch(1 << 20),
        root,
        change_through: 0,
        granules: Granules::new(object_size(), 4096),
        cache_bytes: 1 << 20,
        soft: None,
    })
}

fn data(volume: u32, epoch: u64) -> Entry {
    Entry::Data { volume: VolumeIndex(volume), epoch: Epoch(epoch) }
}

/// Granules of `granule_bytes`: those in `own` in the volume's own object, the others in the other one's.
fn overlay(granule_bytes: u64, own: GranuleRange) -> Entry {
    let granules = Granules::new(object_size(), granule_bytes);
    let top = Layer { volume: VolumeIndex(0), epoch: Epoch(7), mask: Mask::of(own) };
    let rest = Mask::of(granules.all()).without(&top.mask);
    let below = Layer { volume: VolumeIndex(1), epoch: Epoch(3), mask: rest };
    Entry::Overlay(Arc::new(Overlay::new(granules, vec![top, below]).unwrap()))
}

/// Entries whose indexes point into a table of the map's own volume and `OWNER` or `CLONE`, the other one.
fn set(io: &Io, map: &Map, block: u64, entry: &Entry) {
    let other = if map.volume() == OWNER { CLONE } else { OWNER };
    let ids = VolumeIds::from_vec(vec![map.volume(), other]);
    let _leaf = done(io, map.load(io, leaf_of(BlockIndex(block)))).unwrap();
    map.replay(BlockIndex(block), entry, &ids).unwrap();
}

/// Runs a future of this thread's.
fn done<T>(io: &Io, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Some(value) = future.as_mut().now_or_never() {
            return value;
        }
        io.kick();
        io.reap(&mut Vec::new());
    }
}

fn memory() -> (Arc<dyn Store>, Io) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let io = Io::new(store.channel(None).unwrap());
    (store, io)
}

fn differences(io: &Io, from: Option<(&Map, u64)>, to: (&Map, u64), offset: u64) -> Vec<(u64, u64, bool)> {
    let side = |(map, size)| Side { map, size };
    let pair = Pair { from: from.map(side), to: side(to), object_size: object_size() };
    let (mut all, mut at) = (Vec::new(), offset);
    while let Some(part) = done(io, pair.part(io, at)).unwrap() {
        part.differences.into_iter().for_each(|difference| append(&mut all, difference));
        at = part.next;
    }
    all.into_iter().map(|Difference { range, zero }| (range.offset, range.len, zero)).collect()
}

#[test]
fn objects_are_compared_by_id_whatever_their_index() {
    let (_store, io) = memory();
    let (from, to) = (map(OWNER, None), map(CLONE, None));
    set(&io, &from, 0, &data(0, 3));
    set(&io, &to, 0, &data(1, 3));
    set(&io, &from, 1, &data(0, 3));
    set(&io, &to, 1, &data(0, 3));
    set(&io, &from, 2, &data(0, 3));
    set(&io, &to, 3, &data(0, 3));
    let size = 10 * OBJECT;
    let expected = [(OBJECT, OBJECT, false), (2 * OBJECT, OBJECT, true), (3 * OBJECT, OBJECT, false)];
    assert_eq!(differences(&io, Some((&from, size)), (&to, size), 0), expected);
}

#[test]
fn overlays_are_compared_granule_by_granule() {
    let (_store, io) = memory();
    let (from, to) = (map(OWNER, None), map(CLONE, None));
    let size = 10 * OBJECT;
    // Plain below, some granules in the clone's own object: only those differ.
    set(&io, &from, 0, &data(0, 3));
    set(&io, &to, 0, &overlay(4096, GranuleRange { first: 2, count: 3 }));
    assert_eq!(differences(&io, Some((&from, size)), (&to, size), 0), [(8192, 3 * 4096, false)]);
    assert_eq!(differences(&io, Some((&to, size)), (&from, size), 0), [(8192, 3 * 4096, false)]);
    // The same object, in granules of another size and by more of them.
    let later = map(CLONE, None);
    set(&io, &later, 0, &overlay(8192, GranuleRange { first: 0, count: 3 }));
    assert_eq!(differences(&io, Some((&to, size)), (&later, size), 0), [(0, 8192, false), (20 << 10, 4096, false)]);
    assert_eq!(differences(&io, Some((&to, size)), (&to, size), 0), []);
}

#[test]
fn behind_its_end_a_volume_counts_as_zeros() {
    let (_store, io) = memory();
    let (short, long) = (map(OWNER, None), map(CLONE, None));
    for block in 0..3 {
        set(&io, &short, block, &data(0, 3));
        set(&io, &long, block, &data(1, 3));
    }
    let (short_size, long_size) = (OBJECT + 512, 2 * OBJECT + 1024);
    let grown = differences(&io, Some((&short, short_size)), (&long, long_size), 0);
    assert_eq!(grown, [(short_size, long_size - short_size, false)]);
    let shrunk = differences(&io, Some((&long, long_size)), (&short, short_size), 0);
    assert_eq!(shrunk, [(short_size, long_size - short_size, true)]);
}

#[test]
fn comparing_goes_on_in_the_middle_of_a_range() {
    let (_store, io) = memory();
    let to = map(OWNER, None);
    set(&io, &to, 1, &data(0, 3));
    set(&io, &to, 5000, &data(0, 3));
    let size = 6000 * OBJECT;
    let all = differences(&io, None, (&to, size), OBJECT + 512);
    assert_eq!(all, [(OBJECT + 512, OBJECT - 512, false), (5000 * OBJECT, OBJECT, false)]);
}

/// Writes what the map has in memory down; returns the root.
fn checkpoint(io: &Io, map: &Map, generation: u64) -> Option<PageAddress> {
    let frozen = map.freeze();
    let mut number = 0;
    let mut next_number = || {
        number += 1;
        number
    };
    let segments = Segments::new(io, map.volume(), Generation(generation), &mut next_number);
    let written = done(io, tree::write(map, &frozen, Extent::Changed, segments)).unwrap();
    let (root, inner) = (written.root, written.inner);
    map.checkpointed(Checkpointed { root, inner, through: frozen.through, epoch_limit: Epoch(1 << 20) });
    root
}

fn reads(store: &MeteredStore) -> u64 {
    store.meter().figures().iter().filter(|(kind, _)| *kind == OpKind::Read).map(|(_, figures)| figures.completed).sum()
}

#[test]
fn a_changed_block_of_a_huge_volume_is_found_by_reading_the_pages_above_it() {
    const BLOCKS: u64 = 1 << 18;
    let store = Arc::new(MeteredStore::new(Arc::new(MemoryStore::new())));
    let io = Io::new(store.channel(None).unwrap());
    let old = map(OWNER, None);
    (0..BLOCKS).for_each(|block| set(&io, &old, block, &data(0, 3)));
    let old_root = checkpoint(&io, &old, 1);
    let new = map(OWNER, old_root);
    set(&io, &new, BLOCKS / 3, &data(0, 9));
    let new_root = checkpoint(&io, &new, 2);
    let before = reads(&store);
    // Nothing is in memory.
    let (old, new) = (map(OWNER, old_root), map(OWNER, new_root));
    let size = BLOCKS * OBJECT;
    let found = differences(&io, Some((&old, size)), (&new, size), 0);
    assert_eq!(found, [(BLOCKS / 3 * OBJECT, OBJECT, false)]);
    let pages_a_side = 5;
    assert!(reads(&store) - before <= 2 * pages_a_side, "{} reads", reads(&store) - before);
    // Far behind, where the volumes are empty.
    let size = BLOCKS << 20;
    assert_eq!(differences(&io, Some((&old, size)), (&new, size), 0), found);
    assert!(reads(&store) - before <= 2 * pages_a_side, "{} reads", reads(&store) - before);
}

#[test]
fn what_was_replayed_and_has_no_page_yet_is_compared() {
    let (_store, io) = memory();
    let old = map(OWNER, None);
    (0..2000).for_each(|block| set(&io, &old, block, &data(0, 3)));
    let root = checkpoint(&io, &old, 1);
    let (old, new) = (map(OWNER, root), map(OWNER, root));
    set(&io, &new, 1500, &Entry::Zero);
    set(&io, &new, 9000, &data(0, 4));
    let size = 10_000 * OBJECT;
    let found = differences(&io, Some((&old, size)), (&new, size), 0);
    assert_eq!(found, [(1500 * OBJECT, OBJECT, true), (9000 * OBJECT, OBJECT, false)]);
}

#[test]
fn a_damaged_page_names_its_side() {
    let (store, io) = memory();
    let old = map(OWNER, None);
    set(&io, &old, 0, &data(0, 3));
    let root = checkpoint(&io, &old, 1).unwrap();
    io::block_on(&store, None, |io| async move {
        let segment = ObjectName::Segment { volume: root.volume, generation: root.generation, number: root.number };
        io.write(segment, root.offset, crate::store::Buffer::zeroed(512), crate::store::Durability::Cached).await?;
        Ok::<_, StoreError>(())
    })
    .unwrap();
    let (empty, damaged) = (map(CLONE, None), map(OWNER, Some(root)));
    let side = |map| Side { map, size: OBJECT };
    let pair = Pair { from: Some(side(&empty)), to: side(&damaged), object_size: object_size() };
    let error = done(&io, pair.part(&io, 0)).unwrap_err();
    assert_eq!(error.which, Which::To);
}
