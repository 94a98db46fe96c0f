//! Random lives: volumes are written, branched, removed and collected in any order, and always have what their model has. When
//! all are removed, nothing is left.

use crate::world::{BLOCKS, OBJECT, World};
use archvhost::store::{ListScope, ObjectName};
use archvhost::units::{VolumeId, VolumeName};
use std::collections::BTreeSet;

struct Random(u64);

impl Random {
    /// Steele, Lea, Flood (2014): SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick(&mut self, names: impl Iterator<Item = VolumeName>) -> Option<String> {
        let names: Vec<_> = names.collect();
        let index = usize::try_from(self.below(names.len().max(1) as u64)).unwrap();
        names.get(index).map(ToString::to_string)
    }
}

fn step(world: &mut World, random: &mut Random, step: u64) {
    let Some(disk) = random.pick(world.disks.keys().cloned()) else { return world.create(&format!("disk-{step}")) };
    let is_open = world.disks[&crate::world::name(&disk)].open.is_some();
    match random.below(24) {
        0 if world.disks.len() < 5 => world.create(&format!("disk-{step}")),
        1 | 2 if world.snapshots.len() < 12 => world.snapshot(&disk, &format!("snap-{step}")),
        3 if world.disks.len() < 5 => world.clone_of(&disk, &format!("live-{step}")),
        4 if world.disks.len() < 5 => {
            if let Some(snapshot) = random.pick(world.snapshots.keys().cloned()) {
                world.clone_of(&snapshot, &format!("clone-{step}"));
            }
        }
        5 => {
            if let Some(snapshot) = random.pick(world.snapshots.keys().cloned()) {
                world.remove(&snapshot);
            }
        }
        6 if world.disks.len() > 1 => {
            world.remove(&disk);
        }
        7 => {
            world.collect();
        }
        8 if is_open => world.close(&disk),
        _ if !is_open => {
            let model = world.disks[&crate::world::name(&disk)].model.clone();
            world.open(&disk, model);
        }
        9 | 10 => world.zero(&disk, random.below(BLOCKS)),
        11 | 12 => world.fill(&disk, random.below(BLOCKS), u8::try_from(1 + random.below(250)).unwrap()),
        _ => {
            let len = 512 * (1 + random.below(40));
            let offset = random.below((BLOCKS * OBJECT - len) / 512) * 512;
            let byte = u8::try_from(1 + random.below(250)).unwrap();
            world.write(&disk, offset, &vec![byte; usize::try_from(len).unwrap()]);
        }
    }
}

fn all_ids(world: &World, known: &mut BTreeSet<VolumeId>) {
    known.extend(world.list(ListScope::Volumes).iter().filter_map(ObjectName::volume));
}

fn random_life(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new();
    let mut ids = BTreeSet::new();
    for number in 0..150 {
        step(&mut world, &mut random, number);
        all_ids(&world, &mut ids);
        if number % 25 == 24 {
            world.collect();
            world.verify();
        }
    }
    let mut left: Vec<String> = world.disks.keys().chain(world.snapshots.keys()).map(ToString::to_string).collect();
    while !left.is_empty() {
        let index = usize::try_from(random.below(left.len() as u64)).unwrap();
        world.remove(&left.swap_remove(index));
        if random.below(3) == 0 {
            world.collect();
            world.verify();
        }
    }
    world.collect();
    let scopes = ids.iter().flat_map(|id| [ListScope::Data(*id), ListScope::Metadata(*id)]);
    let rest: Vec<_> =
        scopes.chain([ListScope::Names, ListScope::Volumes]).flat_map(|scope| world.list(scope)).collect();
    assert!(rest.is_empty(), "left when all is removed: {rest:?}");
}

#[test]
fn nothing_live_is_ever_collected_and_everything_dead_is_in_the_end() {
    for seed in 0..6 {
        println!("seed {seed}");
        random_life(seed);
    }
}
