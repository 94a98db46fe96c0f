use crate::scene::{NothingOpen, OBJECT, Random, Site, len, name};
use archvhost::admin::branch::Opened;
use archvhost::admin::flatten::flatten;
use archvhost::admin::job::Job;
use archvhost::store::{ListScope, StoreError, io};
use archvhost::units::VolumeName;
use archvhost::volume::{Volume, VolumeErrorKind};
use std::sync::Arc;

const BLOCKS: u64 = 24;

/// A clone with changes of its own, and what it holds.
fn with_clone(seed: u64) -> (Site, Vec<u8>) {
    let mut random = Random(seed);
    let site = Site::new();
    site.create("disk", BLOCKS * OBJECT);
    let mut model = vec![0; len(BLOCKS * OBJECT)];
    site.with("disk", |disk| (0..20).for_each(|_| disk.change(&mut random, &mut model)));
    site.snapshot("disk", "mon");
    site.clone_of("mon", "clone");
    site.with("clone", |disk| (0..6).for_each(|_| disk.change(&mut random, &mut model)));
    (site, model)
}

/// Removes all objects of the volume that the clone came from.
fn destroy_objects_of(site: &Site, volume: &str) {
    let id = site.id(volume);
    io::block_on(&site.store, None, |io| async move {
        for object in io.list(ListScope::Data(id), None, 1 << 16).await? {
            io.remove(object).await?;
        }
        Ok::<_, StoreError>(())
    })
    .unwrap();
}

#[test]
fn a_flattened_clone_needs_nothing_of_its_parents() {
    for seed in 0..8 {
        let (site, model) = with_clone(seed);
        let report = flatten(&site.store, &name("clone"), &NothingOpen, &site.options, &Job::default()).unwrap();
        assert!(report.finished && report.copied > 0, "seed {seed}");
        assert_eq!(site.header("clone").parent, None);
        destroy_objects_of(&site, "disk");
        assert!(site.content("clone") == model, "seed {seed}");
        let again = flatten(&site.store, &name("clone"), &NothingOpen, &site.options, &Job::default()).unwrap();
        assert_eq!(again.copied, 0);
    }
}

#[test]
fn a_cancelled_flatten_keeps_what_it_did_and_the_parent() {
    let (site, model) = with_clone(9);
    let job = Job::default();
    job.cancel();
    let report = flatten(&site.store, &name("clone"), &NothingOpen, &site.options, &job).unwrap();
    assert!(!report.finished);
    assert!(site.header("clone").parent.is_some());
    assert!(site.content("clone") == model);
}

#[test]
fn a_snapshot_is_not_flattened() {
    let (site, _) = with_clone(10);
    let error = flatten(&site.store, &name("mon"), &NothingOpen, &site.options, &Job::default()).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::ReadOnly);
}

struct Attached(Arc<Volume>);

impl Opened for Attached {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        (*name == self.0.name()).then(|| Arc::clone(&self.0))
    }
}

#[test]
fn an_open_clone_is_flattened_beside_its_writer() {
    let (site, mut model) = with_clone(11);
    let disk = site.open("clone");
    let attached = Attached(Arc::clone(&disk.volume));
    let report = std::thread::scope(|scope| {
        let flattening = || flatten(&site.store, &name("clone"), &attached, &site.options, &Job::default());
        let flattening = scope.spawn(flattening);
        let mut random = Random(12);
        while !flattening.is_finished() {
            disk.change(&mut random, &mut model);
        }
        flattening.join().unwrap().unwrap()
    });
    assert!(report.finished);
    drop(attached);
    disk.close();
    destroy_objects_of(&site, "disk");
    assert!(site.content("clone") == model);
    assert_eq!(site.header("clone").parent, None);
}
