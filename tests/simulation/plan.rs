//! What a seed stands for: the store's habits, the volume's shape, the guest's manners, and how each round ends.

use super::rng::Rng;
use super::world::faults::{Faults, Habits, PersistenceHabit};
use super::world::{CrashKind, Survival};
use archvhost::units::{ObjectSize, SECTOR_BYTES, VolumeSize};
use std::ops::Range;

#[derive(Debug, Clone)]
pub struct Plan {
    pub habits: Habits,
    pub object_size: ObjectSize,
    /// What copy-up works in: few granules in a block, so that every path is taken often.
    pub granule_bytes: u64,
    pub size: VolumeSize,
    /// Where the guest works, in sectors: a few blocks here and there.
    pub regions: Vec<Range<u64>>,
    pub way: Way,
    pub queues: usize,
    /// Requests in flight on each queue.
    pub depth: usize,
    pub mix: Mix,
    /// Volumes that there are from the beginning.
    pub disks: usize,
    /// Once in so many requests somebody asks for a verb; never when zero.
    pub verb_one_in: u64,
    /// Of the verbs, nearly all are snapshots: blocks get as many layers as they can have.
    pub is_layered: bool,
    pub rounds: Vec<Round>,
}

/// Enough for the smallest journal and any segment here; not for a journal of the usual size.
const SMALL_PUBLICATION: usize = 512 << 10;

/// Places of a scattered workload: more leaves than the smallest page cache holds (64).
const SCATTERED_PLACES: usize = 100;
/// Blocks that a churning guest works on.
const CHURNED_BLOCKS: u64 = 24;
const SCATTERED_SECTORS: u64 = 8;
const SCATTERED_BLOCKS_MIN: u64 = 1 << 20;

/// How requests reach the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Ports,
    Virtqueues,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    Quiet,
    /// Blocks come and go all the time, with many flushes: the map changes, journals fill up, checkpoints run.
    Churning,
}

/// Relative frequencies.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub zeroes: u64,
    /// One in so many changes is to be durable when it completes.
    pub stable_one_in: u64,
    /// One in so many times the guest waits until everything is answered, then reads it all.
    pub pause_one_in: u64,
}

/// From one opening of the volume to the next.
#[derive(Debug, Clone)]
pub struct Round {
    pub requests: u64,
    /// While the volume is opened, until that fails once.
    pub opening_faults: Faults,
    /// At this request, another host takes a volume over by force, while the old holder still lives.
    pub take_over_at: Option<u64>,
    /// While the guest works.
    pub faults: Faults,
    pub end: RoundEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundEnd {
    Close,
    Crash { kind: CrashKind, survival: Survival, moment: Moment },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At this durable step, counted from the beginning of the opening: it may come before the volume is open.
    DurableStep(u64),
    /// When this many headers have been published: an opening publishes two, then each checkpoint one.
    Header(u64),
    /// When this many requests have been submitted.
    Request(u64),
    /// When all requests are answered.
    Quiet,
    /// At this durable step of an orderly close, or right behind it.
    Closing(u64),
}

impl Round {
    /// Nothing but an opening, a check and an orderly close.
    pub const IDLE: Round = Round {
        requests: 0,
        take_over_at: None,
        opening_faults: Faults::NONE,
        faults: Faults::NONE,
        end: RoundEnd::Close,
    };

    pub fn is_idle(&self) -> bool {
        self.requests == 0
    }
}

impl Plan {
    pub fn of(rng: &mut Rng) -> Self {
        let object_size = ObjectSize::new(*rng.pick(&[65536, 65536, 131_072])).expect("allowed");
        let blocks = *rng.pick(&[3, 40, 5000, 1 << 24]);
        let size = volume_size(rng, object_size, blocks);
        let round_count = rng.between(2, 6);
        let manners = if rng.one_in(4) { Manners::Churning } else { Manners::Quiet };
        let mut plan = Self {
            habits: habits(rng),
            object_size,
            granule_bytes: *rng.pick(&[512, 4096, 8192, 16384, 32768]),
            size,
            regions: regions(rng, manners, object_size, size),
            way: *rng.pick(&[Way::Ports, Way::Virtqueues, Way::Virtqueues]),
            queues: rng.index(4) + 1,
            depth: *rng.pick(&[1, 2, 8]),
            mix: mix(rng, manners),
            disks: *rng.pick(&[1, 1, 2, 3]),
            verb_one_in: *rng.pick(&[0, 5, 20, 20, 50]),
            is_layered: rng.one_in(10),
            rounds: (0..round_count).map(|_| round(rng, manners)).collect(),
        };
        if plan.is_layered {
            // Few blocks, so that each is written between two snapshots.
            plan.regions.truncate(1);
            let first = &mut plan.regions[0];
            first.end = first.end.min(first.start + 2 * object_size.bytes() / SECTOR_BYTES);
            (plan.verb_one_in, plan.disks, plan.granule_bytes) = (4, 1, 4096);
            plan.mix.discards = 0;
        }
        if plan.way == Way::Virtqueues {
            // A driver turns the write cache off for good or not at all; only ports take stable writes one by one.
            plan.mix.stable_one_in = 0;
        }
        plan
    }
}

/// Often the last block is only partly used.
fn volume_size(rng: &mut Rng, object_size: ObjectSize, blocks: u64) -> VolumeSize {
    let sectors_per_block = object_size.bytes() / SECTOR_BYTES;
    let missing = if rng.one_in(2) { rng.below(sectors_per_block) } else { 0 };
    VolumeSize::new((blocks * sectors_per_block - missing) * SECTOR_BYTES).expect("positive")
}

/// Usually a few neighbouring blocks here and there; now and then more places than the page cache has leaves.
fn regions(rng: &mut Rng, manners: Manners, object_size: ObjectSize, size: VolumeSize) -> Vec<Range<u64>> {
    let sectors_per_block = object_size.bytes() / SECTOR_BYTES;
    let blocks = object_size.blocks_in(size);
    let mut regions = match manners {
        Manners::Churning => {
            let first = rng.below(blocks);
            let end = (first + CHURNED_BLOCKS).min(blocks);
            std::iter::once(first * sectors_per_block..end * sectors_per_block).collect()
        }
        Manners::Quiet if blocks > SCATTERED_BLOCKS_MIN && rng.one_in(3) => scattered(rng, blocks, sectors_per_block),
        Manners::Quiet => neighbours(rng, blocks, sectors_per_block),
    };
    regions.push((blocks - 1) * sectors_per_block..size.sectors());
    regions.iter_mut().for_each(|region| region.end = region.end.min(size.sectors()));
    regions
}

fn neighbours(rng: &mut Rng, blocks: u64, sectors_per_block: u64) -> Vec<Range<u64>> {
    let region = |_| {
        let first = rng.below(blocks);
        let end = (first + rng.between(1, 3)).min(blocks);
        first * sectors_per_block..end * sectors_per_block
    };
    (0..2).map(region).collect()
}

fn scattered(rng: &mut Rng, blocks: u64, sectors_per_block: u64) -> Vec<Range<u64>> {
    let region = |_| {
        let first = rng.below(blocks - 1) * sectors_per_block;
        first..first + SCATTERED_SECTORS
    };
    (0..SCATTERED_PLACES).map(region).collect()
}

fn habits(rng: &mut Rng) -> Habits {
    use PersistenceHabit::{AllDurable, AllObject, DeviceWherePossible, Mixed};
    Habits {
        delay_max: *rng.pick(&[1, 20, 100]),
        stall_one_in: *rng.pick(&[0, 10, 50]),
        stall_max: 2000,
        persistence: *rng.pick(&[AllDurable, AllObject, DeviceWherePossible, DeviceWherePossible, Mixed, Mixed]),
        publish_bytes_max: *rng.pick(&[usize::MAX, SMALL_PUBLICATION, SMALL_PUBLICATION]),
        lock_ignores_late_io: false,
    }
}

fn mix(rng: &mut Rng, manners: Manners) -> Mix {
    let pause_one_in = *rng.pick(&[0, 50, 200]);
    if manners == Manners::Churning {
        return Mix { reads: 1, writes: 10, flushes: 8, discards: 5, zeroes: 2, stable_one_in: 0, pause_one_in };
    }
    Mix {
        reads: rng.between(0, 10),
        writes: rng.between(5, 20),
        flushes: *rng.pick(&[0, 1, 3, 10]),
        discards: *rng.pick(&[0, 1, 4]),
        zeroes: *rng.pick(&[0, 1, 4]),
        stable_one_in: *rng.pick(&[0, 0, 3, 20]),
        pause_one_in,
    }
}

fn round(rng: &mut Rng, manners: Manners) -> Round {
    let requests = match manners {
        Manners::Churning => *rng.pick(&[100, 300, 500]),
        Manners::Quiet => *rng.pick(&[5, 30, 100, 200]),
    };
    let faults = if rng.one_in(4) { faults(rng) } else { Faults::NONE };
    let opening_faults = if rng.one_in(8) { opening_faults(rng) } else { Faults::NONE };
    let mut round =
        Round { requests, take_over_at: None, opening_faults, faults, end: end(rng, manners, requests, faults) };
    if faults == Faults::NONE && opening_faults == Faults::NONE && rng.one_in(6) {
        round.take_over_at = Some(rng.below(requests));
        // The crash is not to come before.
        round.end = match round.end {
            RoundEnd::Crash { kind, survival, moment: Moment::DurableStep(_) | Moment::Header(_) } => {
                RoundEnd::Crash { kind, survival, moment: Moment::Request(requests) }
            }
            end => end,
        };
    }
    round
}

/// One kind of failure at a time, so that what is seen can be laid at its door.
fn faults(rng: &mut Rng) -> Faults {
    let none = Faults::NONE;
    match rng.below(7) {
        0 => Faults { read_fails: 10, ..none },
        1 => Faults { write_fails: 10, ..none },
        2 => Faults { create_fails: 4, ..none },
        3 | 4 => Faults { no_space: 3, ..none },
        5 => Faults { journal_fails: 10, publish_fails: 10, ..none },
        _ => Faults { sync_fails: 8, ..none },
    }
}

/// A sync that fails while a dead process's writes are made durable would leave them unsure for ever: not here.
fn opening_faults(rng: &mut Rng) -> Faults {
    match rng.below(2) {
        0 => Faults { publish_fails: 3, ..Faults::NONE },
        _ => Faults { no_space: 2, ..Faults::NONE },
    }
}

/// After a failed sync what is durable is unknown for ever, so only a power cut, which shows what was, makes sense.
fn end(rng: &mut Rng, manners: Manners, requests: u64, faults: Faults) -> RoundEnd {
    let power_cut = faults.sync_fails != 0 || rng.one_in(2);
    if !power_cut && rng.one_in(4) {
        return RoundEnd::Close;
    }
    let kind = if power_cut { CrashKind::PowerCut } else { CrashKind::Death };
    let moment = match rng.below(6) {
        0 | 1 if manners == Manners::Churning => Moment::Header(rng.between(3, 8)),
        0 => Moment::Quiet,
        5 => Moment::Closing(rng.between(1, 15)),
        1 => Moment::Request(rng.between(1, requests)),
        2 => Moment::DurableStep(rng.between(1, 30)),
        _ => Moment::DurableStep(rng.between(1, 30 + 2 * requests)),
    };
    RoundEnd::Crash { kind, survival: *rng.pick(&Survival::ALL), moment }
}
