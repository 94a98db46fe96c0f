//! What a process began and died over.

use crate::world::{World, name};
use archvhost::map::format::header::{Header, HeaderState, Unfinished};
use archvhost::store::{ListScope, LockMode, ObjectName};
use archvhost::units::{VolumeId, VolumeName};

/// A disk with two snapshots, made as a group would be; `first` leads.
fn group() -> (World, [VolumeId; 2]) {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "first");
    world.fill("disk", 0, 2);
    world.snapshot("disk", "second");
    world.close("disk");
    let ids = [world.id("first"), world.id("second")];
    (world, ids)
}

fn unfinish(world: &World, id: VolumeId, with: VolumeId) {
    let header = world.header(id, 1);
    world.put_header(&Header { state: HeaderState::Building, unfinished: Some(Unfinished { with }), ..header });
}

fn has(world: &World, text: &str) -> bool {
    world.list(ListScope::Names).contains(&ObjectName::Name(name(text)))
}

#[test]
fn a_follower_of_a_finished_leader_is_finished() {
    let (world, [first, second]) = group();
    unfinish(&world, second, first);
    world.collect();
    let header = world.header(second, 1);
    assert_eq!((header.state, header.unfinished), (HeaderState::Closed, None));
    assert!(has(&world, "second"));
    world.verify();
}

#[test]
fn a_follower_of_a_finished_leader_that_was_removed_since_is_finished() {
    let (mut world, [first, second]) = group();
    unfinish(&world, second, first);
    world.remove("first");
    world.collect();
    assert_eq!(world.header(second, 1).unfinished, None);
    world.verify();
    world.collect();
    assert!(world.list(ListScope::Metadata(first)).is_empty());
}

#[test]
fn a_tombstone_on_which_a_volume_in_the_making_hangs_stays() {
    let (mut world, [first, second]) = group();
    unfinish(&world, second, first);
    world.remove("first");
    let maker = world.store.lock(second, LockMode::Exclusive, b"").unwrap();
    world.collect();
    assert!(!world.list(ListScope::Metadata(first)).is_empty());
    drop(maker);
    world.collect();
    assert_eq!(world.header(second, 1).unfinished, None);
    world.verify();
}

#[test]
fn a_group_whose_leader_was_never_finished_goes_name_and_all() {
    let (mut world, [first, second]) = group();
    unfinish(&world, first, first);
    unfinish(&world, second, first);
    let report = world.collect();
    assert_eq!(report.volumes_forgotten, 2, "{report:?}");
    assert!(!has(&world, "first") && !has(&world, "second"));
    assert_eq!(world.objects(world.id("disk")), 1);
    world.snapshots.clear();
    world.verify();
}

#[test]
fn a_follower_whose_leader_is_not_there_goes() {
    let (mut world, [_, second]) = group();
    unfinish(&world, second, VolumeId([9; 16]));
    world.collect();
    assert!(!has(&world, "second"));
    world.snapshots.remove(&name("second"));
    world.verify();
}

#[test]
fn a_volume_in_the_making_whose_maker_lives_is_left_alone_and_marks() {
    let (world, [first, second]) = group();
    unfinish(&world, first, first);
    unfinish(&world, second, first);
    let makers = [first, second].map(|id| world.store.lock(id, LockMode::Exclusive, b"").unwrap());
    let before = [world.header(first, 1), world.header(second, 1)];
    assert_eq!(world.collect().objects_removed, 0);
    assert_eq!([world.header(first, 1), world.header(second, 1)], before);
    drop(makers);
    // The leader's maker came as far as finishing it.
    world.put_header(&Header { state: HeaderState::Closed, unfinished: None, ..before[0].clone() });
    world.collect();
    world.verify();
}

#[test]
fn a_creation_that_died_before_the_name_is_undone() {
    let mut world = World::new();
    world.create("disk");
    world.close("disk");
    let created = |id, text: &str| Header {
        state: HeaderState::Building,
        id,
        generation: archvhost::units::Generation(1),
        name: VolumeName::new(text).unwrap(),
        ..world.header(world.id("disk"), 2)
    };
    let (dead, alive) = (VolumeId([1; 16]), VolumeId([2; 16]));
    world.put_header(&created(dead, "dead"));
    world.put_header(&created(alive, "alive"));
    let _maker = world.store.lock(alive, LockMode::Exclusive, b"").unwrap();
    assert_eq!(world.collect().volumes_forgotten, 1);
    assert!(world.list(ListScope::Metadata(dead)).is_empty());
    assert!(!world.list(ListScope::Metadata(alive)).is_empty());
}

#[test]
fn a_volume_that_lost_its_name_keeps_its_data() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    let id = world.id("disk");
    world.close("disk");
    world.take_away(&ObjectName::Name(name("disk")));
    assert_eq!(world.collect().objects_removed, 0);
    assert_eq!(world.objects(id), 1);
}
