//! The map's part of a request: from a block to its entry, when the leaf is at hand; and cutting a range at block borders.

use archvhost::map::leaf::{Leaf, leaf_of};
use archvhost::map::{Entry, WorkerLeaves};
use archvhost::units::{BlockIndex, ByteRange, ObjectSize};
use archvhost::volume::compose::extents;
use criterion::Criterion;
use std::hint::black_box;
use std::sync::Arc;

/// Blocks of 4 MiB in so many leaves: 16 GiB, 256 GiB.
const LEAVES: [u64; 2] = [4, 64];
const BLOCKS_PER_LEAF: u64 = 1024;

pub(crate) fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map lookup at hand");
    for leaves in LEAVES {
        let mut at_hand = WorkerLeaves::new(4096);
        (0..leaves).for_each(|index| at_hand.put(index, Arc::new(Leaf::zero())));
        let mut random = 1;
        group.bench_function(format!("random, {leaves} leaves"), |bencher| {
            bencher.iter(|| {
                let block = BlockIndex(next_random(&mut random) % (leaves * BLOCKS_PER_LEAF));
                debug_assert!(leaf_of(block) < leaves);
                let entry = at_hand.get(black_box(block));
                assert_eq!(entry, Some(Entry::Zero));
            });
        });
    }
    group.finish();
}

pub(crate) fn cuts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cut a range");
    for (name, range) in [
        ("4 KiB in one block", ByteRange::new(12 << 20, 4096)),
        ("1 MiB over a border", ByteRange::new((8 << 20) - (512 << 10), 1 << 20)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for extent in extents(black_box(range), ObjectSize::DEFAULT) {
                    black_box(extent);
                }
            });
        });
    }
    group.finish();
}

/// Xorshift (Marsaglia, 2003).
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
