//! A volume on a store that fails: what is promised then, and what is not (rules C12, C13, M9).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use archvhost::admin::create::{CreateRequest, create};
use archvhost::store::faulty::{Action, Faults, FaultyStore, Rule};

use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, ObjectName, Op, OpKind, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{
    Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeError, VolumeErrorKind,
};
use std::sync::Arc;
use tempfile::TempDir;

const OBJECT: u64 = 64 << 10;

/// A volume in files, behind a driver that fails on demand.
struct Scene {
    faults: Arc<Faults>,
    store: Arc<dyn Store>,
    options: OpenOptions,
    name: VolumeName,
    _dirs: (TempDir, TempDir),
}

impl Scene {
    fn new() -> Self {
        let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let files = open(&format!("file:{}", dirs.0.path().display()), &StoreOptions::default()).unwrap();
        let faulty = FaultyStore::new(files);
        let faults = faulty.faults();
        let store: Arc<dyn Store> = Arc::new(faulty);
        let name = VolumeName::new("web1").unwrap();
        let (size, object_size) = (VolumeSize::new(1 << 30).unwrap(), ObjectSize::new(OBJECT).unwrap());
        create(&store, &CreateRequest { name: name.clone(), size, object_size }).unwrap();
        let access = Access::ReadWrite;
        let options = OpenOptions {
            access,
            soft_journal_dir: dirs.1.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        Self { faults, store, options, name, _dirs: dirs }
    }

    fn open(&self) -> (Arc<Volume>, Port) {
        let volume = Volume::open(&self.store, &self.name, &self.options).unwrap();
        let port = Port::open(&volume).unwrap();
        (volume, port)
    }
}

fn write(port: &Port, block: u64, byte: u8) -> Result<(), VolumeError> {
    let range = ByteRange::new(block * OBJECT, 4096);
    let buffer = Buffer::copied_from(&[byte; 4096]);
    port.block_on(port.request(Request::Write { range, buffer, stability: Stability::Cached })).map(drop)
}

fn read(port: &Port, block: u64) -> u8 {
    let range = ByteRange::new(block * OBJECT, 4096);
    let request = Request::Read { range, buffer: Buffer::zeroed(4096) };
    port.block_on(port.request(request)).unwrap().unwrap().to_vec()[0]
}

fn flush(port: &Port) -> Result<(), VolumeError> {
    port.block_on(port.request(Request::Flush)).map(drop)
}

fn end(volume: &Volume, port: Port) {
    drop(port);
    volume.close().unwrap();
}

fn publishes_of_checkpoints(op: &Op) -> bool {
    matches!(op, Op::Publish { object: ObjectName::Segment { .. } | ObjectName::Journal { .. }, .. })
}

fn appends(op: &Op) -> bool {
    matches!(op, Op::Write { object: ObjectName::Journal { .. }, .. })
}

/// After the fault, nothing that would promise durability succeeds until the volume is opened again.
fn fails_until_opened_again(rule: Rule) {
    let scene = Scene::new();
    let (volume, port) = scene.open();
    write(&port, 0, 1).unwrap();
    flush(&port).unwrap();
    scene.faults.add(rule.times(1));
    write(&port, 1, 2).unwrap();
    assert_eq!(flush(&port).unwrap_err().kind(), VolumeErrorKind::Failed);
    assert_eq!(flush(&port).unwrap_err().kind(), VolumeErrorKind::Failed, "a second flush must not succeed");
    assert_eq!(write(&port, 0, 3).unwrap_err().kind(), VolumeErrorKind::Failed);
    assert_eq!(read(&port, 0), 1, "reads go on");
    drop(port);
    assert_eq!(volume.close().unwrap_err().kind(), VolumeErrorKind::Failed);
    drop(volume);
    let (volume, port) = scene.open();
    assert_eq!((read(&port, 0), read(&port, 1)), (1, 2), "nothing was lost after all");
    write(&port, 1, 4).unwrap();
    flush(&port).unwrap();
    end(&volume, port);
}

#[test]
fn c12_a_failed_sync_is_never_followed_by_a_successful_flush() {
    fails_until_opened_again(Rule::on(OpKind::Sync, Action::Fail(libc::EIO)));
}

#[test]
fn c12_a_failed_journal_append_fails_the_volume() {
    fails_until_opened_again(Rule::when(appends, Action::Fail(libc::EIO)));
}

#[test]
fn a_failed_write_fails_alone() {
    let scene = Scene::new();
    let (volume, port) = scene.open();
    write(&port, 0, 1).unwrap();
    scene.faults.add(Rule::on(OpKind::Write, Action::Fail(libc::EIO)).times(1));
    assert_eq!(write(&port, 0, 2).unwrap_err().kind(), VolumeErrorKind::Store);
    write(&port, 0, 3).unwrap();
    flush(&port).unwrap();
    assert_eq!(read(&port, 0), 3);
    end(&volume, port);
}

#[test]
fn m9_a_full_store_refuses_new_blocks_and_serves_the_others() {
    let scene = Scene::new();
    let (volume, port) = scene.open();
    write(&port, 0, 1).unwrap();
    let full = scene.faults.add(Rule::on(OpKind::Create, Action::Fail(libc::ENOSPC)));
    assert_eq!(write(&port, 1, 2).unwrap_err().kind(), VolumeErrorKind::NoSpace);
    write(&port, 0, 3).unwrap();
    flush(&port).unwrap();
    assert_eq!((read(&port, 0), read(&port, 1)), (3, 0));
    scene.faults.remove(full);
    write(&port, 1, 4).unwrap();
    flush(&port).unwrap();
    assert_eq!(read(&port, 1), 4);
    end(&volume, port);
}

#[test]
fn m9_a_checkpoint_without_space_is_made_when_space_returns() {
    let scene = Scene::new();
    let (volume, port) = scene.open();
    let full = scene.faults.add(Rule::when(publishes_of_checkpoints, Action::Fail(libc::ENOSPC)));
    let mut written = 0;
    let refused = loop {
        match write(&port, written, 1).and_then(|()| flush(&port)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the journals are finite");
    };
    assert_eq!(refused.kind(), VolumeErrorKind::NoSpace);
    write(&port, 0, 2).unwrap();
    flush(&port).unwrap();
    let discard = Request::Discard { range: ByteRange::new(OBJECT, OBJECT) };
    port.block_on(port.request(discard)).unwrap();
    flush(&port).unwrap();
    scene.faults.remove(full);
    for block in 0..200 {
        write(&port, block, 3).unwrap();
        flush(&port).unwrap();
    }
    assert!((0..200).all(|block| read(&port, block) == 3));
    end(&volume, port);
    drop(volume);
    let (volume, port) = scene.open();
    assert!((0..200).all(|block| read(&port, block) == 3));
    end(&volume, port);
}

#[test]
fn c13_no_request_ends_while_its_operation_is_under_way() {
    let scene = Scene::new();
    let (volume, port) = scene.open();
    write(&port, 0, 1).unwrap();
    let held = scene.faults.add(Rule::on(OpKind::Write, Action::Hold));
    let range = ByteRange::new(0, 4096);
    let buffer = Buffer::copied_from(&[2; 4096]);
    port.submit(7, Request::Write { range, buffer, stability: Stability::Cached });
    let mut done = Vec::new();
    for _ in 0..100 {
        port.turn(&mut done);
        port.wait(Some(std::time::Duration::from_millis(1)));
    }
    assert!(done.is_empty());
    scene.faults.remove(held);
    while done.is_empty() {
        port.turn(&mut done);
        port.wait(Some(std::time::Duration::from_millis(1)));
    }
    assert!(done[0].result.is_ok());
    assert_eq!(read(&port, 0), 2);
    end(&volume, port);
}
