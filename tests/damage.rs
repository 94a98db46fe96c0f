//! A volume whose metadata is damaged: opening it says what is wrong, and nobody else is harmed.
//!
//! The image that a dead daemon leaves is taken by copying every object of a store whose volume is still open.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use archvhost::admin::branch::{Opened, SnapshotRequest, snapshot};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::info::list;
use archvhost::map::format::header::Header;
use archvhost::store::io::{Io, block_on};
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, ListScope, ObjectName, PublishMode, Store};
use archvhost::units::{ByteRange, Epoch, ObjectSize, VolumeId, VolumeName, VolumeSize};
use archvhost::volume::open::EPOCHS_RESERVED;
use archvhost::volume::{GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeError, VolumeErrorKind};
use std::path::Path;
use std::sync::Arc;

const OBJECT: u64 = 64 << 10;

fn memory_store() -> Arc<dyn Store> {
    open("memory:", &StoreOptions::default()).unwrap()
}

fn options(soft: &Path) -> OpenOptions {
    OpenOptions {
        access: archvhost::volume::Access::ReadWrite,
        soft_journal_dir: soft.to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    }
}

fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

fn make(store: &Arc<dyn Store>, text: &str) -> VolumeId {
    let size = VolumeSize::new(1 << 30).unwrap();
    create(store, &CreateRequest { name: name(text), size, object_size: ObjectSize::new(OBJECT).unwrap() }).unwrap().id
}

fn write(port: &Port, block: u64, byte: u8) {
    let range = ByteRange::new(block * OBJECT, 512);
    let buffer = Buffer::copied_from(&[byte; 512]);
    port.block_on(port.request(Request::Write { range, buffer, stability: Stability::Cached })).unwrap();
}

fn read(port: &Port, block: u64) -> Result<u8, VolumeError> {
    let range = ByteRange::new(block * OBJECT, 512);
    let buffer = port.block_on(port.request(Request::Read { range, buffer: Buffer::zeroed(512) }))?;
    Ok(buffer.unwrap().to_vec()[0])
}

fn flush(port: &Port) {
    port.block_on(port.request(Request::Flush)).unwrap();
}

/// A store with a copy of everything that `store` has of these volumes.
fn image(store: &Arc<dyn Store>, volumes: &[VolumeId]) -> Arc<dyn Store> {
    let copy = memory_store();
    for scope in [ListScope::Names]
        .into_iter()
        .chain(volumes.iter().flat_map(|id| [ListScope::Metadata(*id), ListScope::Data(*id)]))
    {
        let names = block_on(store, None, |io| async move { io.list(scope, None, 100_000).await }).unwrap();
        for object in names {
            let wanted = object.clone();
            let bytes = block_on(store, None, |io| async move { io.read_all(wanted).await }).unwrap();
            block_on(&copy, None, |io| async move { io.publish(object, &bytes, PublishMode::Replace).await }).unwrap();
        }
    }
    copy
}

fn metadata(store: &Arc<dyn Store>, id: VolumeId) -> Vec<ObjectName> {
    block_on(store, None, |io| async move { io.list(ListScope::Metadata(id), None, 1000).await }).unwrap()
}

fn flip(store: &Arc<dyn Store>, object: &ObjectName, byte: usize) {
    let wanted = object.clone();
    let mut bytes = block_on(store, None, |io| async move { io.read_all(wanted).await }).unwrap();
    bytes[byte] ^= 0x40;
    let object = object.clone();
    block_on(store, None, |io| async move { io.publish(object, &bytes, PublishMode::Replace).await }).unwrap();
}

fn open_error(store: &Arc<dyn Store>, volume: &str, soft: &Path) -> VolumeError {
    Volume::open(store, &name(volume), &options(soft)).err().expect("opening a damaged volume fails")
}

/// Two volumes: `good`, closed; `bad`, open with 40 written blocks, the first 10 flushed one by one.
struct Scene {
    soft: tempfile::TempDir,
    image: Arc<dyn Store>,
    bad: VolumeId,
}

fn scene() -> Scene {
    let soft = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = memory_store();
    let good = make(&store, "good");
    let bad = make(&store, "bad");
    let volume = Volume::open(&store, &name("bad"), &options(soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    for block in 0..10 {
        write(&port, block, 1);
        flush(&port);
    }
    for block in 10..40 {
        write(&port, block, 2);
    }
    let image = image(&store, &[good, bad]);
    Scene { soft, image, bad }
}

impl Scene {
    fn nobody_else_is_harmed(&self) {
        let volume = Volume::open(&self.image, &name("good"), &options(self.soft.path())).unwrap();
        let port = Port::open(&volume).unwrap();
        write(&port, 0, 9);
        assert_eq!(read(&port, 0).unwrap(), 9);
        drop(port);
        volume.close().unwrap();
        let listed = list(&self.image).unwrap();
        assert_eq!(listed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bad", "good"]);
    }
}

#[test]
fn death_of_the_daemon_loses_no_completed_write() {
    let scene = scene();
    let volume = Volume::open(&scene.image, &name("bad"), &options(scene.soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    for block in 0..40 {
        assert_eq!(read(&port, block).unwrap(), if block < 10 { 1 } else { 2 }, "block {block}");
    }
    drop(port);
    volume.close().unwrap();
}

#[test]
fn loss_of_the_soft_journal_loses_only_what_was_not_flushed() {
    let scene = scene();
    let rebooted = tempfile::tempdir_in("/dev/shm").unwrap();
    let volume = Volume::open(&scene.image, &name("bad"), &options(rebooted.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    for block in 0..40 {
        assert_eq!(read(&port, block).unwrap(), if block < 10 { 1 } else { 0 }, "block {block}");
    }
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_damaged_header_is_named() {
    let scene = scene();
    let header =
        metadata(&scene.image, scene.bad).into_iter().rfind(|n| matches!(n, ObjectName::Header { .. })).unwrap();
    flip(&scene.image, &header, 100);
    let error = open_error(&scene.image, "bad", scene.soft.path());
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("header") && error.to_string().contains("bad"), "{error}");
    scene.nobody_else_is_harmed();
}

#[test]
fn a_journal_that_is_damaged_before_its_end_is_named() {
    let scene = scene();
    let journal =
        metadata(&scene.image, scene.bad).into_iter().find(|n| matches!(n, ObjectName::Journal { .. })).unwrap();
    flip(&scene.image, &journal, 5 * 4096 + 80);
    let error = open_error(&scene.image, "bad", scene.soft.path());
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("record 6 at byte 20480"), "{error}");
    scene.nobody_else_is_harmed();
}

#[test]
fn a_missing_journal_is_damage_and_not_an_empty_one() {
    let scene = scene();
    let journal =
        metadata(&scene.image, scene.bad).into_iter().find(|n| matches!(n, ObjectName::Journal { .. })).unwrap();
    block_on(&scene.image, None, |io| async move { io.remove(journal).await }).unwrap();
    let error = open_error(&scene.image, "bad", scene.soft.path());
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    scene.nobody_else_is_harmed();
}

#[test]
fn a_damaged_page_fails_what_needs_it_and_names_the_segment() {
    let scene = scene();
    let volume = Volume::open(&scene.image, &name("bad"), &options(scene.soft.path())).unwrap();
    volume.close().unwrap();
    drop(volume);
    let segments: Vec<_> =
        metadata(&scene.image, scene.bad).into_iter().filter(|n| matches!(n, ObjectName::Segment { .. })).collect();
    assert!(!segments.is_empty());
    for segment in &segments {
        flip(&scene.image, segment, 512 + 60);
    }
    let volume = Volume::open(&scene.image, &name("bad"), &options(scene.soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    let error = read(&port, 3).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("segment") && error.to_string().contains("checksum"), "{error}");
    scene.nobody_else_is_harmed();
}

#[test]
fn a_missing_object_is_an_error_and_never_zeros() {
    let scene = scene();
    let lost = |io: Io| async move { io.list(ListScope::Data(scene.bad), None, 1).await };
    let lost = block_on(&scene.image, None, lost).unwrap().remove(0);
    block_on(&scene.image, None, |io| async move { io.remove(lost).await }).unwrap();
    let volume = Volume::open(&scene.image, &name("bad"), &options(scene.soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    let failed = (0..40).filter(|block| read(&port, *block).is_err()).count();
    assert_eq!(failed, 1);
}

#[test]
fn a_damaged_name_record_is_named() {
    let scene = scene();
    flip(&scene.image, &ObjectName::Name(name("bad")), 20);
    let error = open_error(&scene.image, "bad", scene.soft.path());
    assert_eq!(error.kind(), VolumeErrorKind::Damaged);
    assert!(error.to_string().contains("bad"), "{error}");
    scene.nobody_else_is_harmed();
}

struct NothingOpen;

impl Opened for NothingOpen {
    fn open_volume(&self, _name: &VolumeName) -> Option<Arc<Volume>> {
        None
    }
}

/// Rewrites the header that counts.
fn change_header(store: &Arc<dyn Store>, id: VolumeId, change: impl FnOnce(&mut Header)) {
    let object = metadata(store, id).into_iter().rfind(|name| matches!(name, ObjectName::Header { .. })).unwrap();
    let wanted = object.clone();
    let bytes = block_on(store, None, |io| async move { io.read_all(wanted).await }).unwrap();
    let mut header = Header::decode(&bytes).unwrap();
    change(&mut header);
    block_on(store, None, |io| async move { io.publish(object, &header.encode(), PublishMode::Replace).await })
        .unwrap();
}

#[test]
fn at_the_end_of_its_epochs_a_volume_is_closed_whole_and_opened_only_for_reading() {
    let soft = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = memory_store();
    let id = make(&store, "old");
    let last = Epoch(Epoch::MAX.0 - 2 * EPOCHS_RESERVED);
    change_header(&store, id, |header| (header.epoch, header.epoch_limit) = (Epoch(last.0 - 2), Epoch(last.0 - 1)));
    let volume = Volume::open(&store, &name("old"), &options(soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    write(&port, 0, 7);
    flush(&port);
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let error = open_error(&store, "old", soft.path());
    assert_eq!(error.kind(), VolumeErrorKind::ReadOnly);
    assert!(error.to_string().contains("old has used up its epochs"), "{error}");
    let read_only = OpenOptions { access: archvhost::volume::Access::ReadOnly, ..options(soft.path()) };
    let volume = Volume::open(&store, &name("old"), &read_only).unwrap();
    assert_eq!(read(&Port::open(&volume).unwrap(), 0).unwrap(), 7);
}

#[test]
fn a_page_whose_granules_are_of_another_object_size_is_damage_and_no_panic() {
    let soft = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = memory_store();
    let id = make(&store, "web1");
    let written = |byte| {
        let volume = Volume::open(&store, &name("web1"), &options(soft.path())).unwrap();
        let port = Port::open(&volume).unwrap();
        write(&port, 0, byte);
        flush(&port);
        drop(port);
        volume.close().unwrap();
    };
    written(1);
    let request = SnapshotRequest { volume: name("web1"), name: name("web1@1") };
    snapshot(&store, &[request], &NothingOpen, &options(soft.path())).unwrap();
    written(2);
    change_header(&store, id, |header| header.object_size = ObjectSize::new(2 * OBJECT).unwrap());
    let volume = Volume::open(&store, &name("web1"), &options(soft.path())).unwrap();
    let port = Port::open(&volume).unwrap();
    let error = read(&port, 0).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("granules do not make up an object"), "{error}");
}
