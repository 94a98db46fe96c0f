//! What others do while a collection runs, each at the one place where it could be missed (rule C10).

use crate::hooks::nth;
use crate::world::{OBJECT, World, make_clone, name, take_snapshot, write};
use archvhost::admin::job::Job;
use archvhost::admin::remove::remove;
use archvhost::store::{ListScope, ObjectName, Op, Store};
use archvhost::units::VolumeId;
use archvhost::volume::{OpenOptions, Volume};
use std::sync::Arc;

/// What an action needs, which may run on another thread.
#[derive(Clone)]
struct Hands {
    store: Arc<dyn Store>,
    options: OpenOptions,
    opened: Arc<crate::world::OpenVolumes>,
}

fn hands(world: &World) -> Hands {
    Hands { store: Arc::clone(&world.store), options: world.options.clone(), opened: Arc::new(world.opened()) }
}

impl Hands {
    fn snapshot(&self, volume: &str, text: &str) {
        take_snapshot(&self.store, &*self.opened, &self.options, volume, text);
    }

    fn clone_of(&self, source: &str, text: &str) {
        make_clone(&self.store, &*self.opened, &self.options, source, text);
    }

    fn remove(&self, text: &str) {
        let _ = remove(&self.store, &name(text), &Job::default()).unwrap();
    }
}

fn lists_volumes(op: &Op) -> bool {
    matches!(op, Op::List { scope: ListScope::Volumes, .. })
}

fn syncs_the_store(op: &Op) -> bool {
    matches!(op, Op::SyncAll)
}

fn sweeps(id: VolumeId) -> impl FnMut(&Op) -> bool + Send + 'static {
    move |op| matches!(op, Op::List { scope: ListScope::Data(of), .. } if *of == id)
}

type Place = Box<dyn FnMut(&Op) -> bool + Send>;

/// Places in a run, in their order: the settling listing, the first and second listing of the marking, the end of the marking.
fn places() -> [Place; 4] {
    [
        Box::new(nth(1, lists_volumes)),
        Box::new(nth(2, lists_volumes)),
        Box::new(nth(3, lists_volumes)),
        Box::new(syncs_the_store),
    ]
}

#[test]
fn c10_a_clone_made_while_its_snapshot_is_removed_keeps_its_objects() {
    for place in places() {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        world.snapshot("disk", "snap");
        world.fill("disk", 0, 2);
        world.close("disk");
        let model = world.snapshots[&name("snap")].clone();
        let hands = hands(&world);
        world.hooks.before(place, move || {
            hands.clone_of("snap", "clone");
            hands.remove("snap");
        });
        world.collect();
        assert!(world.hooks.all_done());
        world.snapshots.remove(&name("snap"));
        world.open("clone", model);
        world.verify();
        world.collect();
        world.verify();
    }
}

#[test]
fn c10_a_snapshot_made_and_its_block_overwritten_before_the_volume_is_marked_keeps_it() {
    for place in places() {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        let model = world.disks[&name("disk")].model.clone();
        let volume = world.volume("disk");
        let hands = hands(&world);
        world.hooks.before(place, move || {
            hands.snapshot("disk", "snap");
            let port = archvhost::volume::Port::open(&volume).unwrap();
            write(&port, 0, &vec![9; usize::try_from(OBJECT).unwrap()]);
            checkpoint(&volume);
        });
        world.collect();
        assert!(world.hooks.all_done());
        world.disks.get_mut(&name("disk")).unwrap().model[..usize::try_from(OBJECT).unwrap()].fill(9);
        world.snapshots.insert(name("snap"), model);
        world.verify();
        world.close("disk");
        world.verify();
    }
}

pub(crate) fn checkpoint(volume: &Arc<Volume>) {
    let amend = volume.amend(archvhost::volume::capture::Amendment::Checkpoint);
    let store: Arc<dyn Store> = Arc::new(archvhost::store::memory::MemoryStore::new());
    archvhost::store::io::block_on(&store, None, |_| amend).unwrap();
}

#[test]
fn c10_what_is_written_while_a_collection_runs_stays() {
    for place in places() {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        world.snapshot("disk", "snap");
        let volume = world.volume("disk");
        world.hooks.before(place, move || {
            let port = archvhost::volume::Port::open(&volume).unwrap();
            write(&port, 4096, &[5; 4096]);
            write(&port, OBJECT, &[5; 4096]);
        });
        world.collect();
        assert!(world.hooks.all_done());
        let model = &mut world.disks.get_mut(&name("disk")).unwrap().model;
        for at in [4096, usize::try_from(OBJECT).unwrap()] {
            model[at..at + 4096].fill(5);
        }
        world.verify();
        world.close("disk");
        world.verify();
        world.collect();
        world.verify();
    }
}

#[test]
fn c10_segments_published_while_a_collection_runs_stay() {
    for place in places() {
        let mut world = World::new();
        world.create("disk");
        world.fill("disk", 0, 1);
        world.snapshot("disk", "snap");
        let volume = world.volume("disk");
        world.hooks.before(place, move || {
            let port = archvhost::volume::Port::open(&volume).unwrap();
            for byte in 1..4 {
                write(&port, 0, &[byte; 4096]);
                checkpoint(&volume);
            }
        });
        world.collect();
        assert!(world.hooks.all_done());
        world.disks.get_mut(&name("disk")).unwrap().model[..4096].fill(3);
        world.close("disk");
        world.verify();
    }
}

#[test]
fn c10_a_page_that_vanishes_while_it_is_marked_is_looked_for_under_the_next_header() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.close("disk");
    let id = world.id("disk");
    let hands = hands(&world);
    let reads_a_page = |op: &Op| matches!(op, Op::Read { object: ObjectName::Segment { .. }, .. });
    world.hooks.before(nth(2, reads_a_page), move || {
        // As a rewrite of the whole tree does: pages elsewhere, a header that names them, the old segment gone.
        let volume = Volume::open(&hands.store, &name("disk"), &hands.options).unwrap();
        let port = archvhost::volume::Port::open(&volume).unwrap();
        write(&port, OBJECT, &[2; 4096]);
        drop(port);
        volume.close().unwrap();
        let segments = crate::world::list(&hands.store, ListScope::Metadata(id));
        let oldest = segments.into_iter().find(|name| matches!(name, ObjectName::Segment { .. })).unwrap();
        archvhost::store::io::block_on(&hands.store, None, |io| async move { io.remove(oldest).await }).unwrap();
    });
    world.collect();
    assert!(world.hooks.all_done());
    let at = usize::try_from(OBJECT).unwrap();
    world.disks.get_mut(&name("disk")).unwrap().model[at..at + 4096].fill(2);
    world.verify();
}

#[test]
fn c10_a_volume_removed_after_the_first_listing_still_marks() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    world.zero("disk", 0);
    world.close("disk");
    let id = world.id("disk");
    let hands = hands(&world);
    world.hooks.before(nth(2, lists_volumes), move || hands.remove("snap"));
    world.collect();
    assert_eq!(world.objects(id), 1);
    world.snapshots.clear();
    world.collect();
    assert_eq!(world.objects(id), 0);
    world.verify();
}

#[test]
fn c10_a_volume_that_comes_after_the_marking_is_not_swept() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    let id = world.id("disk");
    let hands = hands(&world);
    world.hooks.before(sweeps(id), move || {
        hands.clone_of("disk", "clone");
        let volume = Volume::open(&hands.store, &name("clone"), &hands.options).unwrap();
        let port = archvhost::volume::Port::open(&volume).unwrap();
        write(&port, 0, &[7; 4096]);
        drop(port);
        volume.close().unwrap();
    });
    world.collect();
    assert!(world.hooks.all_done());
    let mut model = world.disks[&name("disk")].model.clone();
    model[..4096].fill(7);
    world.open("clone", model);
    world.verify();
}
