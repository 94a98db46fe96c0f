//! What copy-up and checkpoints promise when operations overlap or fail: they are held in the store and let go in the order that would hurt most.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use archvhost::admin::branch::{Branch, branch};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::map::format::header::VolumeKind;
use archvhost::store::faulty::{Action, Faults, FaultyStore, Rule};
use archvhost::store::memory::MemoryStore;
use archvhost::store::{Buffer, ObjectName, Op, Store, io};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::capture::Amendment;
use archvhost::volume::{Access, Done, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const OBJECT: u64 = 64 << 10;

struct Scene {
    faults: Arc<Faults>,
    store: Arc<dyn Store>,
    options: OpenOptions,
    volume: Arc<Volume>,
    _soft: TempDir,
}

/// One block, all written with 1, and shared with the snapshot `before`.
fn shared_block() -> Scene {
    let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
    let faults = faulty.faults();
    let store: Arc<dyn Store> = Arc::new(faulty);
    let soft = tempfile::tempdir().unwrap();
    let (size, object_size) = (VolumeSize::new(4 * OBJECT).unwrap(), ObjectSize::new(OBJECT).unwrap());
    create(&store, &CreateRequest { name: name("disk"), size, object_size }).unwrap();
    let options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: soft.path().to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    let volume = Volume::open(&store, &name("disk"), &options).unwrap();
    let port = Port::open(&volume).unwrap();
    finish(&port, write(0, OBJECT, 1)).unwrap();
    drop(port);
    let scene = Scene { faults, store, options, volume, _soft: soft };
    scene.snapshot("before");
    scene
}

impl Scene {
    fn snapshot(&self, text: &str) {
        snapshot(&self.store, &self.volume, text);
    }

    fn port(&self) -> Port {
        Port::open(&self.volume).unwrap()
    }

    fn snapshot_bytes(&self, text: &str) -> Vec<u8> {
        let options = OpenOptions { access: Access::ReadOnly, ..self.options.clone() };
        let volume = Volume::open(&self.store, &name(text), &options).unwrap();
        read(&Port::open(&volume).unwrap(), 0, OBJECT)
    }
}

fn snapshot(store: &Arc<dyn Store>, volume: &Arc<Volume>, text: &str) {
    let branches = [Branch { source: Arc::clone(volume), name: name(text), kind: VolumeKind::Snapshot, size: None }];
    io::block_on(store, None, |io| async move { branch(&io, store, &branches).await }).unwrap();
}

fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

fn write(offset: u64, len: u64, byte: u8) -> Request {
    let buffer = Buffer::copied_from(&vec![byte; usize::try_from(len).unwrap()]);
    Request::Write { range: ByteRange::new(offset, len), buffer, stability: Stability::Cached }
}

fn finish(port: &Port, request: Request) -> Result<(), VolumeError> {
    port.block_on(port.request(request)).map(drop)
}

fn read(port: &Port, offset: u64, len: u64) -> Vec<u8> {
    let buffer = Buffer::zeroed(usize::try_from(len).unwrap());
    port.block_on(port.request(Request::Read { range: ByteRange::new(offset, len), buffer })).unwrap().unwrap().to_vec()
}

/// Turns until nothing moves any more, and returns what ended.
fn settle(ports: &[&Port]) -> Vec<Done> {
    let mut done = Vec::new();
    let mut quiet = 0;
    while quiet < 20 {
        let moved = ports.iter().fold(false, |moved, port| port.turn(&mut done) | moved);
        quiet = if moved { 0 } else { quiet + 1 };
        thread::sleep(Duration::from_millis(u64::from(!moved)));
    }
    done
}

fn tags(done: &[Done]) -> Vec<u32> {
    done.iter().inspect(|done| assert!(done.result.is_ok())).map(|done| done.tag).collect()
}

fn is_data(object: &ObjectName) -> bool {
    matches!(object, ObjectName::Data { .. })
}

fn hold(matches: fn(&Op) -> bool) -> Rule {
    Rule::when(matches, Action::Hold)
}

fn data_reads(op: &Op) -> bool {
    matches!(op, Op::Read { object, .. } if is_data(object))
}

fn data_writes(op: &Op) -> bool {
    matches!(op, Op::Write { object, .. } if is_data(object))
}

fn creations(op: &Op) -> bool {
    matches!(op, Op::Create { .. })
}

#[test]
fn c9_a_write_of_a_whole_granule_is_not_undone_by_a_copy_of_the_same_granule() {
    let scene = shared_block();
    let (one, two) = (scene.port(), scene.port());
    finish(&one, write(0, 4096, 2)).unwrap();
    let held = scene.faults.add(hold(data_reads));
    one.submit(1, write(8192 + 512, 512, 3));
    assert!(settle(&[&one]).is_empty(), "it reads the rest of its granule first");
    two.submit(2, write(8192, 4096, 4));
    assert!(settle(&[&two]).is_empty(), "and whoever writes all of the granule waits for it");
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one, &two])).len(), 2);
    assert_eq!(read(&one, 8192, 4096), vec![4; 4096]);
}

#[test]
fn c9_of_two_first_writes_to_a_block_none_is_lost() {
    let scene = shared_block();
    let (one, two) = (scene.port(), scene.port());
    let held = scene.faults.add(hold(creations));
    one.submit(1, write(0, 4096, 2));
    two.submit(2, write(4096, 4096, 3));
    assert!(settle(&[&one, &two]).is_empty());
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one, &two])).len(), 2);
    assert_eq!(read(&one, 0, 12288), [vec![2; 4096], vec![3; 4096], vec![1; 4096]].concat());
    assert_eq!(scene.snapshot_bytes("before"), vec![1; usize::try_from(OBJECT).unwrap()]);
}

#[test]
fn writes_of_different_granules_pass_each_other() {
    let scene = shared_block();
    let (one, two) = (scene.port(), scene.port());
    finish(&one, write(0, 4096, 2)).unwrap();
    let held = scene.faults.add(hold(data_writes).times(1));
    one.submit(1, write(4096, 4096, 3));
    assert!(settle(&[&one]).is_empty());
    two.submit(2, write(8192, 4096, 4));
    assert_eq!(tags(&settle(&[&two])), [2]);
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one])), [1]);
}

#[test]
fn a_reader_does_not_wait_for_a_copy() {
    let scene = shared_block();
    let (one, two) = (scene.port(), scene.port());
    let held = scene.faults.add(hold(creations));
    one.submit(1, write(0, 512, 2));
    assert!(settle(&[&one]).is_empty());
    assert_eq!(read(&two, 0, OBJECT), vec![1; usize::try_from(OBJECT).unwrap()]);
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one])), [1]);
}

#[test]
fn a_copy_that_fails_leaves_what_was_there() {
    let scene = shared_block();
    let port = scene.port();
    finish(&port, write(0, 4096, 2)).unwrap();
    for matches in [data_reads as fn(&Op) -> bool, data_writes] {
        let fault = scene.faults.add(Rule::when(matches, Action::FailAfter(libc::EIO)).times(1));
        finish(&port, write(8192 + 512, 512, 3)).unwrap_err();
        scene.faults.remove(fault);
        assert_eq!(read(&port, 4096, 8192), vec![1; 8192]);
    }
    let fault = scene.faults.add(Rule::when(creations, Action::Fail(libc::EIO)).times(1));
    scene.snapshot("between");
    finish(&port, write(0, 512, 4)).unwrap_err();
    scene.faults.remove(fault);
    assert_eq!(read(&port, 0, 4096), vec![2; 4096]);
    finish(&port, write(0, 512, 4)).unwrap();
    assert_eq!(read(&port, 0, 1024), [vec![4; 512], vec![2; 512]].concat());
    assert_eq!(scene.snapshot_bytes("between")[..4096], vec![2; 4096]);
}

#[test]
fn c8_a_snapshot_waits_for_writes_in_place_and_holds_up_later_ones_only_so_long() {
    let scene = shared_block();
    let (one, two) = (scene.port(), scene.port());
    finish(&one, write(0, 8192, 2)).unwrap();
    let held = scene.faults.add(hold(data_writes).times(1));
    one.submit(1, write(0, 4096, 3));
    assert!(settle(&[&one]).is_empty());
    let (store, volume) = (Arc::clone(&scene.store), Arc::clone(&scene.volume));
    let capture = thread::spawn(move || snapshot(&store, &volume, "during"));
    thread::sleep(Duration::from_millis(100));
    assert!(!capture.is_finished());
    two.submit(2, write(4096, 4096, 4));
    assert!(settle(&[&two]).is_empty(), "the gate is closed");
    assert_eq!(read(&scene.port(), 4096, 4096), vec![2; 4096], "reads go on");
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one, &two])).len(), 2);
    capture.join().unwrap();
    let expected = [vec![3; 4096], vec![2; 4096]].concat();
    assert_eq!(scene.snapshot_bytes("during")[..8192], expected, "what was in flight is in it, what came later is not");
    assert_eq!(read(&one, 4096, 4096), vec![4; 4096]);
}

#[test]
fn c8_a_fill_that_a_snapshot_came_in_between_is_not_in_it() {
    let scene = shared_block();
    let one = scene.port();
    finish(&one, write(0, 4096, 2)).unwrap();
    let held = scene.faults.add(hold(data_reads));
    one.submit(1, write(8192 + 512, 512, 3));
    assert!(settle(&[&one]).is_empty());
    scene.snapshot("during");
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one])), [1]);
    assert_eq!(scene.snapshot_bytes("during")[8192..12288], vec![1; 4096]);
    assert_eq!(read(&one, 8192, 1536), [vec![1; 512], vec![3; 512], vec![1; 512]].concat());
}

#[test]
fn c8_a_snapshot_does_not_wait_for_granules_that_nothing_shows_yet() {
    let scene = shared_block();
    let one = scene.port();
    finish(&one, write(0, 4096, 2)).unwrap();
    let held = scene.faults.add(hold(data_writes));
    one.submit(1, write(8192, 4096, 3));
    assert!(settle(&[&one]).is_empty());
    scene.snapshot("during");
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one])), [1]);
    assert_eq!(read(&one, 0, 12288), [vec![2; 4096], vec![1; 4096], vec![3; 4096]].concat());
    assert_eq!(scene.snapshot_bytes("during")[..12288], [vec![2; 4096], vec![1; 8192]].concat());
}

#[test]
fn a_full_overlay_gives_a_layer_up_before_a_write_needs_it() {
    let scene = shared_block();
    let port = scene.port();
    let granule = |index: u64, byte: u8| write(index * 4096, 4096, byte);
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&copies);
    let count = move |op: &Op| data_reads(op) && counted.fetch_add(1, Ordering::SeqCst) == usize::MAX;
    scene.faults.add(Rule::when(count, Action::Fail(libc::EIO)));
    // Seven tops over what was there: eight layers.
    for (index, name) in (0..6).zip(["s0", "s1", "s2", "s3", "s4", "s5"]) {
        finish(&port, granule(index, 10)).unwrap();
        scene.snapshot(name);
    }
    assert_eq!(copies.load(Ordering::SeqCst), 0, "granules that are written whole are not read");
    finish(&port, granule(6, 10)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while copies.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing is absorbed");
        thread::sleep(Duration::from_millis(1));
    }
    // What was read is soon written, too.
    thread::sleep(Duration::from_millis(500));
    scene.snapshot("full");
    let no_reads = scene.faults.add(Rule::when(data_reads, Action::Fail(libc::EIO)));
    finish(&port, granule(7, 10)).expect("there is room for a top, so nothing is copied");
    scene.snapshot("again");
    finish(&port, granule(8, 10)).expect_err("the absorption failed, and now the write has to copy");
    scene.faults.remove(no_reads);
    finish(&port, granule(8, 10)).unwrap();
    assert_eq!(read(&port, 0, OBJECT), [vec![10; 9 * 4096], vec![1; 7 * 4096]].concat());
    assert_eq!(scene.snapshot_bytes("again"), [vec![10; 8 * 4096], vec![1; 8 * 4096]].concat());
    assert_eq!(scene.snapshot_bytes("s2"), [vec![10; 3 * 4096], vec![1; 13 * 4096]].concat());
}

#[test]
fn c8_a_snapshot_waits_for_a_fill_that_overwrites_as_well() {
    let scene = shared_block();
    let one = scene.port();
    finish(&one, write(0, 4096, 2)).unwrap();
    let held = scene.faults.add(hold(data_writes).times(1));
    one.submit(1, write(0, 8192, 3));
    assert!(settle(&[&one]).is_empty());
    let (store, volume) = (Arc::clone(&scene.store), Arc::clone(&scene.volume));
    let capture = thread::spawn(move || snapshot(&store, &volume, "during"));
    thread::sleep(Duration::from_millis(100));
    assert!(!capture.is_finished(), "the first granule is in the snapshot, and is being written");
    scene.faults.remove(held);
    assert_eq!(tags(&settle(&[&one])), [1]);
    capture.join().unwrap();
    assert_eq!(read(&one, 0, 8192), vec![3; 8192]);
    let before = scene.snapshot_bytes("during");
    assert_eq!(before[..4096], vec![3; 4096]);
    finish(&one, write(0, 8192, 4)).unwrap();
    assert_eq!(scene.snapshot_bytes("during"), before);
}

/// Blocks that one page of the map has.
const LEAF: u64 = 1024;

#[test]
fn a_cleaning_that_cannot_read_a_page_harms_nothing_and_is_not_tried_again_at_once() {
    let scene = shared_block();
    let (size, object_size) = (VolumeSize::new(66 * LEAF * OBJECT).unwrap(), ObjectSize::new(OBJECT).unwrap());
    create(&scene.store, &CreateRequest { name: name("wide"), size, object_size }).unwrap();
    let volume = Volume::open(&scene.store, &name("wide"), &scene.options).unwrap();
    let port = Port::open(&volume).unwrap();
    let checkpoint = || {
        let volume = Arc::clone(&volume);
        port.block_on(async move { volume.amend(Amendment::Checkpoint).await }).unwrap();
    };
    // A page that only a cleaning will want again.
    finish(&port, write(65 * LEAF * OBJECT, 4096, 1)).unwrap();
    checkpoint();
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let rotten = move |op: &Op| {
        matches!(op, Op::Read { object: ObjectName::Segment { .. }, .. }) && {
            counted.fetch_add(1, Ordering::SeqCst);
            true
        }
    };
    scene.faults.add(Rule::when(rotten, Action::Fail(libc::EIO)));
    // Outdated pages, until most of what is stored is that.
    for round in 0..200 {
        for leaf in 0..64 {
            let (offset, len) = (leaf * LEAF * OBJECT, OBJECT);
            let range = ByteRange::new(offset, len);
            let request = if round % 2 == 0 { write(offset, len, 2) } else { Request::Discard { range } };
            finish(&port, request).unwrap();
        }
        checkpoint();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while tried.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing is cleaned");
        thread::sleep(Duration::from_millis(1));
    }
    for byte in 3..6 {
        finish(&port, write(0, 4096, byte)).unwrap();
        finish(&port, Request::Flush).unwrap();
        checkpoint();
        assert_eq!(read(&port, 0, 4096), vec![byte; 4096]);
    }
    assert_eq!(tried.load(Ordering::SeqCst), 1);
}
