//! What the guest asks for next.

use super::model::Effect;
use super::plan::{Mix, Plan};
use super::rng::Rng;
use archvhost::store::Space;
use archvhost::units::SECTOR_BYTES;
use archvhost::volume::Stability;
use std::ops::Range;

/// Longest request in blocks, so that some span three.
const BLOCKS_MAX: u64 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Read { sectors: Range<u64> },
    Change { effect: Effect, sectors: Range<u64>, stability: Stability, space: Space },
    Flush,
}

/// The next request to a volume of so many sectors.
pub fn ask(rng: &mut Rng, plan: &Plan, end: u64) -> Asked {
    let Mix { reads, writes, flushes, discards, zeroes, stable_one_in, .. } = plan.mix;
    let choice = rng.below(reads + writes + flushes + discards + zeroes);
    let sectors = sectors(rng, plan, end);
    if choice < reads {
        return Asked::Read { sectors };
    }
    if choice < reads + flushes {
        return Asked::Flush;
    }
    let effect = match choice - reads - flushes {
        left if left < writes => Effect::Write,
        left if left < writes + discards => Effect::Discard,
        _ => Effect::Zero,
    };
    let stability = if rng.one_in(stable_one_in) { Stability::Stable } else { Stability::Cached };
    let space = if rng.one_in(2) { Space::Free } else { Space::Keep };
    Asked::Change { effect, sectors, stability, space }
}

fn sectors(rng: &mut Rng, plan: &Plan, end: u64) -> Range<u64> {
    let block = plan.object_size.bytes() / SECTOR_BYTES;
    let region = rng.pick(&regions_within(plan, end)).clone();
    let blocks = (region.end - region.start).div_ceil(block);
    let base = region.start + block * rng.below(blocks);
    let (start, len) = match rng.below(8) {
        0 => (rng.below(block), 1),
        1 | 2 => (0, block),
        3 => (0, BLOCKS_MAX * block),
        4 => (rng.below(block), rng.between(1, BLOCKS_MAX * block)),
        5 => (block - rng.between(1, 8), rng.between(2, 16)),
        _ => (8 * rng.below(block / 8), 8 * rng.between(1, 4)),
    };
    // Small regions, and the volume's last block, are shorter than that.
    let start = base + start % (region.end - base).min(block);
    start..(start + len).min(region.end)
}

/// The regions, as far as a volume of so many sectors has them; the first one it always has.
pub fn regions_within(plan: &Plan, end: u64) -> Vec<Range<u64>> {
    let clipped = plan.regions.iter().map(|region| region.start..region.end.min(end));
    clipped.filter(|region| region.start < region.end).collect()
}
