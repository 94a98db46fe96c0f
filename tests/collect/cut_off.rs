//! Verbs whose lock is broken while they cannot know: what they still do is undone or left out, and they do not tell success.

use crate::hooks::HookedStore;
use crate::world::{World, name};
use archvhost::admin::branch::{CloneRequest, SnapshotRequest, clone, snapshot};
use archvhost::admin::collect::COLLECTION;
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::diff::{Flow, diff};
use archvhost::admin::export::export;
use archvhost::admin::increment::{StreamRequest, export_stream};
use archvhost::admin::info::info;
use archvhost::admin::job::Job;
use archvhost::admin::remove::remove;
use archvhost::admin::rename::rename;
use archvhost::admin::transfer::TransferError;
use archvhost::map::format::header::HeaderState;
use archvhost::map::format::name::encode;
use archvhost::store::{ListScope, ObjectName, Op, Store};
use archvhost::units::{ObjectSize, VolumeId, VolumeSize};
use archvhost::volume::lease::break_lock;
use archvhost::volume::{OpenOptions, Volume, VolumeErrorKind};
use std::sync::Arc;

/// Somebody on another host.
#[derive(Clone)]
struct Other {
    store: Arc<dyn Store>,
    options: OpenOptions,
}

impl Other {
    fn of(world: &World) -> Self {
        Self { store: Arc::clone(&world.store), options: world.options.clone() }
    }

    fn breaks(&self, text: &str) {
        break_lock(&self.store, &name(text), &self.options.lease).unwrap();
    }

    fn creates(&self, text: &str) -> VolumeId {
        let (size, object_size) = (VolumeSize::new(1 << 20).unwrap(), ObjectSize::DEFAULT);
        create(&self.store, &CreateRequest { name: name(text), size, object_size }).unwrap().id
    }
}

fn closed_disk() -> World {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.close("disk");
    world
}

fn publishes_header(op: &Op, of: impl Fn(&ObjectName) -> bool) -> bool {
    matches!(op, Op::Publish { object: object @ ObjectName::Header { .. }, .. } if of(object))
}

fn all_done(hooks: &Arc<HookedStore>) {
    assert!(hooks.all_done(), "it came to the place where the lock was broken");
}

#[test]
fn a_collection_whose_lock_was_broken_removes_nothing_more() {
    let mut world = closed_disk();
    let disk = world.id("disk");
    world.put(&ObjectName::Segment { volume: disk, generation: archvhost::units::Generation(1), number: 77 }, b"dead");
    world.open("disk", world.disks[&name("disk")].model.clone());
    world.snapshot("disk", "snap");
    world.fill("disk", 0, 2);
    world.close("disk");
    world.remove("snap");
    let (before, store) = (world.contents(&[disk]), Arc::clone(&world.store));
    world.hooks.before(
        |op| matches!(op, Op::SyncAll),
        move || drop(store.seize(COLLECTION, store.holder(COLLECTION).unwrap().as_deref(), b"another").unwrap()),
    );
    assert_eq!(world.try_collect().unwrap_err().kind(), VolumeErrorKind::Superseded);
    all_done(&world.hooks);
    assert_eq!(world.contents(&[disk]), before);
    assert!(world.collect().objects_removed >= 2);
    world.verify();
}

#[test]
fn a_removal_that_was_cut_off_leaves_the_name_to_its_new_volume() {
    let world = closed_disk();
    let other = Other::of(&world);
    world.hooks.before(
        |op| matches!(op, Op::Sync { objects } if matches!(objects[..], [ObjectName::Header { .. }, ..])),
        move || {
            other.breaks("disk");
            let _ = remove(&other.store, &name("disk"), &Job::default()).unwrap();
            other.creates("disk");
        },
    );
    let error = remove(&world.store, &name("disk"), &Job::default()).unwrap_err();
    all_done(&world.hooks);
    assert_eq!(error.kind(), VolumeErrorKind::Superseded);
    assert_eq!(info(&world.store, &name("disk")).unwrap().size.bytes(), 1 << 20, "the new one");
}

#[test]
fn a_renaming_that_was_cut_off_leaves_the_old_name_to_its_new_volume() {
    let world = closed_disk();
    let id = world.id("disk");
    rename(&world.store, &name("disk"), &name("to"), &world.options).unwrap();
    // The power took the removal of the old name back, so the same command goes on.
    world.put(&ObjectName::Name(name("disk")), &encode(id));
    let other = Other::of(&world);
    world.hooks.before(
        |op| matches!(op, Op::Read { object: ObjectName::Name(read), .. } if *read == name("to")),
        move || {
            other.breaks("to");
            rename(&other.store, &name("disk"), &name("to"), &other.options).unwrap();
            other.creates("disk");
        },
    );
    let error = rename(&world.store, &name("disk"), &name("to"), &world.options).unwrap_err();
    all_done(&world.hooks);
    assert_eq!(error.kind(), VolumeErrorKind::Superseded);
    assert_ne!(world.id("disk"), id);
    assert_eq!(world.id("to"), id);
}

#[test]
fn a_snapshot_of_a_volume_that_was_taken_over_meanwhile_is_not_made() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    let (other, disk) = (Other::of(&world), world.id("disk"));
    // The snapshot's header with its root, when the source's is there.
    world.hooks.before(
        move |op| {
            let Op::Publish { content, .. } = op else { return false };
            let finished = archvhost::map::format::header::Header::decode(&content.to_vec())
                .is_ok_and(|header| header.state == HeaderState::Closed);
            finished && publishes_header(op, |object| object.volume() != Some(disk))
        },
        move || {
            other.breaks("disk");
            Volume::open(&other.store, &name("disk"), &other.options).unwrap().close().unwrap();
        },
    );
    let request = SnapshotRequest { volume: name("disk"), name: name("snap") };
    let error = snapshot(&world.store, &[request], &world.opened(), &world.options).unwrap_err();
    all_done(&world.hooks);
    assert_eq!(error.kind(), VolumeErrorKind::Superseded);
    assert_eq!(info(&world.store, &name("snap")).unwrap_err().kind(), VolumeErrorKind::NotFound);
    assert!(!world.list(ListScope::Names).contains(&ObjectName::Name(name("snap"))));
}

#[test]
fn a_clone_of_a_snapshot_whose_lock_was_broken_is_not_made() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    let other = Other::of(&world);
    world.hooks.before(
        |op| matches!(op, Op::Publish { object: ObjectName::Name(_), .. }),
        move || {
            other.breaks("snap");
            let _ = remove(&other.store, &name("snap"), &Job::default()).unwrap();
        },
    );
    let request = CloneRequest { source: name("snap"), name: name("clone"), size: None };
    let error = clone(&world.store, &request, &world.opened(), &world.options).unwrap_err();
    all_done(&world.hooks);
    assert_eq!(error.kind(), VolumeErrorKind::Superseded);
    assert!(!world.list(ListScope::Names).contains(&ObjectName::Name(name("clone"))));
}

fn superseded(error: TransferError) -> bool {
    matches!(error, TransferError::Volume(error) if error.kind() == VolumeErrorKind::Superseded)
}

/// What was read of a snapshot that somebody else could remove meanwhile is not told to be whole.
#[test]
fn what_reads_a_snapshot_whose_lock_was_broken_does_not_succeed() {
    let run = |read: &dyn Fn(&World) -> bool| {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        world.snapshot("disk", "old");
        world.fill("disk", 1, 2);
        world.snapshot("disk", "new");
        let other = Other::of(&world);
        world.hooks.before(
            |op| matches!(op, Op::Read { object: ObjectName::Segment { .. }, .. }),
            move || {
                other.breaks("new");
                let _ = remove(&other.store, &name("new"), &Job::default()).unwrap();
            },
        );
        assert!(read(&world), "it ends with an error that says so");
        all_done(&world.hooks);
    };
    let file = || tempfile::tempfile().unwrap();
    let job = Job::default();
    run(&|world| superseded(export(&world.store, &name("new"), &world.options, file(), &job).unwrap_err()));
    run(&|world| {
        let request = StreamRequest { name: name("new"), from: None, resume: None };
        superseded(export_stream(&world.store, &request, &world.options, file(), &job).unwrap_err())
    });
    run(&|world| {
        let result = diff(&world.store, &name("old"), &name("new"), &world.options, &mut |_| Flow::GoOn, &job);
        result.unwrap_err().kind() == VolumeErrorKind::Superseded
    });
}
