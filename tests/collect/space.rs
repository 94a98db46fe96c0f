//! What is freed, and what is not.

use crate::world::{BLOCKS, OBJECT, World, name};
use archvhost::admin::collect::{COLLECTION, CollectOptions, CollectReport, collect};
use archvhost::admin::info::info;
use archvhost::admin::job::Job;
use archvhost::admin::remove::{Removal, remove};
use archvhost::store::{ListScope, LockMode, ObjectName};
use archvhost::units::{BlockIndex, Epoch, Generation, VolumeId};
use archvhost::volume::{Access, OpenOptions, Volume, VolumeErrorKind};
use std::sync::Arc;

#[test]
fn a_store_without_garbage_is_left_as_it_is() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    world.fill("disk", 0, 2);
    let report = world.collect();
    assert_eq!((report.objects_removed, report.bytes_removed, report.volumes), (0, 0, 2));
    world.verify();
}

#[test]
fn a_shared_block_that_nobody_names_any_more_is_freed() {
    let mut world = World::new();
    world.create("disk");
    let id = world.id("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    world.zero("disk", 0);
    world.collect();
    assert_eq!(world.objects(id), 1, "the snapshot has it");
    assert_eq!(world.removal("snap"), Removal::SpaceLater);
    let report = world.collect();
    assert_eq!(world.objects(id), 0);
    assert!(report.bytes_removed >= OBJECT, "{report:?}");
    assert_eq!(report.volumes_forgotten, 1, "{report:?}");
    world.verify();
}

#[test]
fn an_open_volume_frees_what_it_lost_without_being_closed() {
    let mut world = World::new();
    world.create("disk");
    let id = world.id("disk");
    for block in 0..BLOCKS {
        world.fill("disk", block, 1);
    }
    world.snapshot("disk", "snap");
    world.remove("snap");
    for block in 0..BLOCKS {
        world.zero("disk", block);
    }
    world.collect();
    assert_eq!(world.objects(id), 0);
    world.verify();
}

#[test]
fn removal_in_any_order_leaves_the_others_whole_and_in_the_end_nothing() {
    let volumes = ["disk", "snap", "clone", "deep", "deeper"];
    for first in 0..volumes.len() {
        for step in 1..volumes.len() {
            let mut world = World::new();
            world.create("disk");
            for block in 0..BLOCKS {
                world.fill("disk", block, 1);
            }
            world.snapshot("disk", "snap");
            world.fill("disk", 0, 2);
            world.clone_of("snap", "clone");
            world.write("clone", OBJECT + 4096, &[3; 4096]);
            world.snapshot("clone", "deep");
            world.write("clone", OBJECT + 8192, &[4; 4096]);
            world.clone_of("deep", "deeper");
            let ids = volumes.map(|volume| world.id(volume));
            for at in 0..volumes.len() {
                world.remove(volumes[(first + at * step) % volumes.len()]);
                world.collect();
                world.verify();
            }
            let left: Vec<ObjectName> = ids
                .iter()
                .flat_map(|id| [ListScope::Data(*id), ListScope::Metadata(*id)])
                .chain([ListScope::Names, ListScope::Volumes])
                .flat_map(|scope| world.list(scope))
                .collect();
            assert!(left.is_empty(), "order {first} by {step} leaves {left:?}");
        }
    }
}

#[test]
fn a_volume_that_shared_nothing_goes_at_once() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    let id = world.id("disk");
    assert_eq!(world.removal("disk"), Removal::Finished);
    assert_eq!(world.objects(id), 0);
    assert!(world.list(ListScope::Metadata(id)).is_empty());
}

#[test]
fn a_volume_that_is_read_is_not_removed() {
    let mut world = World::new();
    world.create("disk");
    world.snapshot("disk", "snap");
    let options = OpenOptions { access: Access::ReadOnly, ..world.options.clone() };
    let reader = Volume::open(&world.store, &name("snap"), &options).unwrap();
    let error = remove(&world.store, &name("snap"), &Job::default()).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Held);
    assert!(error.to_string().contains("snap is being read"), "{error}");
    drop(reader);
    assert_eq!(world.removal("snap"), Removal::SpaceLater);
    assert_eq!(info(&world.store, &name("snap")).unwrap_err().kind(), VolumeErrorKind::NotFound);
}

#[test]
fn a_removal_that_died_before_the_name_went_is_completed_by_the_same_command_or_by_collection() {
    for again in [true, false] {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        world.snapshot("disk", "snap");
        let id = world.id("snap");
        let record = ObjectName::Name(name("snap"));
        let bytes = world.bytes(&record);
        world.remove("snap");
        world.put(&record, &bytes);
        if again {
            assert_eq!(remove(&world.store, &name("snap"), &Job::default()).unwrap(), Removal::SpaceLater);
        }
        assert_eq!(world.collect().volumes_forgotten, 1);
        assert!(world.list(ListScope::Metadata(id)).is_empty());
        assert!(!world.list(ListScope::Names).contains(&record));
        world.verify();
    }
}

#[test]
fn replaced_segments_and_leftovers_of_dead_generations_go() {
    let mut world = World::new();
    world.create("disk");
    let id = world.id("disk");
    world.snapshot("disk", "snap");
    for round in 1..20 {
        world.zero("disk", 0);
        world.fill("disk", 0, round);
        world.close("disk");
        let model = world.disks[&name("disk")].model.clone();
        world.open("disk", model);
    }
    world.close("disk");
    let stray = ObjectName::Journal { volume: id, generation: Generation(2), number: 1 };
    world.put(&stray, &[0; 4096]);
    assert!(world.segments(id) >= 19);
    world.collect();
    assert_eq!(world.segments(id), 1);
    assert!(!world.list(ListScope::Metadata(id)).contains(&stray));
    world.verify();
}

#[test]
fn objects_of_an_unknown_id_are_left_alone() {
    let mut world = World::new();
    world.create("disk");
    let stray = ObjectName::Data { volume: VolumeId([7; 16]), epoch: Epoch(1), block: BlockIndex(0) };
    world.put(&stray, &[1; 512]);
    assert_eq!(world.collect().objects_removed, 0);
    assert_eq!(world.bytes(&stray), [1; 512]);
}

#[test]
fn a_map_that_cannot_be_read_stops_the_run_before_anything_is_swept() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    world.zero("disk", 0);
    world.create("other");
    world.fill("other", 0, 9);
    world.close("other");
    world.remove("snap");
    let (id, other) = (world.id("disk"), world.id("other"));
    let metadata = world.list(ListScope::Metadata(other));
    let segment = metadata.iter().find(|name| matches!(name, ObjectName::Segment { .. })).unwrap().clone();
    let good = world.bytes(&segment);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    world.put(&segment, &bad);
    let error = world.try_collect().unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("volume other"), "{error}");
    world.take_away(&segment);
    let error = world.try_collect().unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("is missing"), "{error}");
    assert_eq!(world.objects(id), 1);
    world.put(&segment, &good);
    world.collect();
    assert_eq!(world.objects(id), 0);
    world.verify();
}

#[test]
fn a_header_that_cannot_be_read_stops_the_run() {
    let mut world = World::new();
    world.create("disk");
    world.close("disk");
    let header = world.list(ListScope::Metadata(world.id("disk"))).remove(0);
    world.put(&header, b"nonsense");
    let error = world.try_collect().unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains(&header.to_string()), "{error}");
}

#[test]
fn there_is_one_collection_at_a_time() {
    let world = World::new();
    let _other = world.store.lock(COLLECTION, LockMode::Exclusive, b"").unwrap();
    let error = world.try_collect().unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Held);
    assert!(error.to_string().contains("collection"), "{error}");
}

/// A world in which there is something of everything to collect.
fn messy() -> World {
    let mut world = World::new();
    world.create("disk");
    for round in 0..12u8 {
        for block in 0..BLOCKS {
            world.fill("disk", block, round * 7 + u8::try_from(block).unwrap() + 1);
        }
        world.snapshot("disk", &format!("snap-{round}"));
    }
    world.clone_of("snap-5", "clone");
    world.fill("clone", 3, 200);
    world.close("disk");
    world.close("clone");
    for round in [0, 2, 3, 7, 8, 11] {
        world.remove(&format!("snap-{round}"));
    }
    world
}

#[test]
fn a_dry_run_tells_the_truth_and_changes_nothing() {
    let world = messy();
    let ids: Vec<VolumeId> = world.list(ListScope::Volumes).iter().filter_map(ObjectName::volume).collect();
    let before = world.contents(&ids);
    let options = CollectOptions { dry_run: true, ..world.collect_options() };
    let told = collect(&world.store, &world.opened(), &options, &Job::default()).unwrap();
    assert_eq!(world.contents(&ids), before);
    let done = world.collect();
    assert!(told.objects_removed > 20, "{told:?}");
    assert_eq!((told.objects_removed, told.bytes_removed), (done.objects_removed, done.bytes_removed));
    world.verify();
}

#[test]
fn a_tiny_memory_gives_the_same_result() {
    let (roomy, tight) = (messy(), messy());
    let expected = roomy.collect();
    let options = CollectOptions { memory_bytes: 0, ..tight.collect_options() };
    let report = collect(&tight.store, &tight.opened(), &options, &Job::default()).unwrap();
    let bytes_apart_from_times = CollectReport { bytes_removed: expected.bytes_removed, ..report };
    assert_eq!(bytes_apart_from_times, expected);
    tight.verify();
}

#[test]
fn a_cancelled_run_does_no_harm_and_the_next_one_completes_it() {
    for n in [1, 3, 10, 40, 200] {
        let world = messy();
        let job = Arc::new(Job::default());
        let cancelled = Arc::clone(&job);
        world.hooks.before(crate::hooks::nth(n, |_| true), move || cancelled.cancel());
        let report = collect(&world.store, &world.opened(), &world.collect_options(), &job).unwrap();
        assert!(report.cancelled || world.hooks.all_done(), "{report:?}");
        world.verify();
        world.collect();
        let again = world.collect();
        assert_eq!(again.objects_removed, 0, "{again:?}");
        world.verify();
    }
}
