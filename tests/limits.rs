//! What a volume's limits promise, against a clock that the tests set.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use archvhost::admin::create::{CreateRequest, create};
use archvhost::clock::Monotonic;
use archvhost::map::format::header::Limits;
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, Space, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::capture::Amendment;
use archvhost::volume::{Access, Done, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Default)]
struct SetByHand(AtomicU64);

impl Monotonic for SetByHand {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

struct Bench {
    store: Arc<dyn Store>,
    options: OpenOptions,
    volume: Arc<Volume>,
    clock: Arc<SetByHand>,
    _soft: TempDir,
}

impl Bench {
    /// Limited from now on, with nothing saved up.
    fn new(limits: Limits) -> Self {
        let store = open("memory:", &StoreOptions::default()).unwrap();
        let soft = tempfile::tempdir().unwrap();
        let (name, size) = (VolumeName::new("web1").unwrap(), VolumeSize::new(4 << 20).unwrap());
        create(&store, &CreateRequest { name: name.clone(), size, object_size: ObjectSize::new(1 << 20).unwrap() })
            .unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        let volume = Volume::open(&store, &name, &options).unwrap();
        let clock = Arc::new(SetByHand::default());
        volume.set_limits_clock(Arc::clone(&clock) as Arc<dyn Monotonic>);
        volume.set_limits_in_memory(limits);
        Self { store, options, volume, clock, _soft: soft }
    }

    fn port(&self) -> Port {
        Port::open(&self.volume).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    fn end(self, port: Port) {
        drop(port);
        self.volume.close().unwrap();
    }
}

fn write(len: usize) -> Request {
    let range = ByteRange::new(0, len as u64);
    Request::Write { range, buffer: Buffer::zeroed(len), stability: Stability::Cached }
}

fn submit(port: &Port, tags: std::ops::Range<u32>, len: usize) {
    tags.for_each(|tag| port.submit(tag, write(len)));
}

/// What ends until nothing moves any more, in order.
fn ended(port: &Port) -> Vec<u32> {
    let (mut done, mut quiet) = (Vec::<Done>::new(), 0);
    // The memory store answers at once, the keeper from its thread.
    while quiet < 20 {
        quiet = if port.turn(&mut done) { 0 } else { quiet + 1 };
        thread::yield_now();
    }
    done.into_iter()
        .map(|done| {
            done.result.unwrap();
            done.tag
        })
        .collect()
}

fn iops(iops: u64) -> Limits {
    Limits { iops, ..Limits::default() }
}

#[test]
fn requests_start_in_order_as_fast_as_the_limit_allows() {
    let bench = Bench::new(iops(100));
    let port = bench.port();
    submit(&port, 0..5, 4096);
    assert!(ended(&port).is_empty());
    bench.pass(9 * MILLISECOND);
    assert!(ended(&port).is_empty());
    bench.pass(MILLISECOND);
    assert_eq!(ended(&port), [0]);
    bench.pass(25 * MILLISECOND);
    assert_eq!(ended(&port), [1, 2]);
    assert_eq!(port.in_flight(), 2);
    bench.pass(15 * MILLISECOND);
    assert_eq!(ended(&port), [3, 4]);
    bench.end(port);
}

#[test]
fn bytes_are_limited_as_requests_are() {
    let bench = Bench::new(Limits { bytes: 1 << 20, ..Limits::default() });
    let port = bench.port();
    submit(&port, 0..2, 1 << 19);
    submit(&port, 2..3, 512);
    bench.pass(500 * MILLISECOND);
    assert_eq!(ended(&port), [0]);
    bench.pass(500 * MILLISECOND);
    assert_eq!(ended(&port), [1]);
    bench.pass(MILLISECOND);
    assert_eq!(ended(&port), [2]);
    bench.end(port);
}

#[test]
fn a_flush_is_never_held_back_and_a_discard_is_a_request() {
    let bench = Bench::new(iops(1));
    let port = bench.port();
    let range = ByteRange::new(0, 1 << 20);
    port.submit(0, Request::Discard { range });
    port.submit(1, Request::WriteZeroes { range, space: Space::Keep, stability: Stability::Cached });
    port.submit(2, Request::Flush);
    assert_eq!(ended(&port), [2]);
    bench.pass(1000 * MILLISECOND);
    assert_eq!(ended(&port), [0]);
    bench.pass(1000 * MILLISECOND);
    assert_eq!(ended(&port), [1]);
    bench.end(port);
}

#[test]
fn two_queues_take_turns_whatever_their_depth() {
    let bench = Bench::new(iops(100));
    let (deep, shallow) = (bench.port(), bench.port());
    submit(&deep, 0..64, 512);
    submit(&shallow, 0..10, 512);
    let mut counts = (0, 0);
    for _ in 0..20 {
        bench.pass(10 * MILLISECOND);
        counts = (counts.0 + ended(&deep).len(), counts.1 + ended(&shallow).len());
    }
    assert_eq!(counts, (10, 10));
    drop(shallow);
    bench.volume.set_limits_in_memory(Limits::default());
    assert_eq!(ended(&deep).len(), 54);
    bench.end(deep);
}

#[test]
fn a_change_reaches_those_who_wait_also_while_they_sleep() {
    let bench = Bench::new(iops(1));
    let port = bench.port();
    submit(&port, 0..8, 512);
    assert!(ended(&port).is_empty());
    let volume = Arc::clone(&bench.volume);
    let changing = thread::spawn(move || volume.set_limits_in_memory(Limits::default()));
    let mut done = Vec::new();
    while done.len() < 8 {
        if !port.turn(&mut done) {
            port.wait(None);
        }
    }
    changing.join().unwrap();
    drop(done);
    bench.volume.set_limits_in_memory(iops(1000));
    submit(&port, 0..2, 512);
    assert!(ended(&port).is_empty());
    bench.pass(MILLISECOND);
    assert_eq!(ended(&port), [0]);
    bench.pass(MILLISECOND);
    assert_eq!(ended(&port), [1]);
    bench.end(port);
}

#[test]
fn a_sleep_ends_when_the_next_turn_comes() {
    let bench = Bench::new(iops(1000));
    let port = bench.port();
    submit(&port, 0..1, 512);
    let mut done = Vec::new();
    // With the clock standing still, a sleep lasts as long as the turn is away; the test would hang if it lasted for ever.
    while !port.turn(&mut done) {
        port.wait(None);
        bench.pass(MILLISECOND);
    }
    assert_eq!(ended(&port).len() + done.len(), 1);
    bench.end(port);
}

#[test]
fn what_is_let_through_is_paid_for_by_the_next() {
    let bench = Bench::new(iops(10));
    let stopping = bench.port();
    submit(&stopping, 0..5, 512);
    assert!(ended(&stopping).is_empty());
    stopping.let_through();
    assert_eq!(ended(&stopping), [0, 1, 2, 3, 4]);
    drop(stopping);
    let next = bench.port();
    submit(&next, 5..6, 512);
    bench.pass(599 * MILLISECOND);
    assert!(ended(&next).is_empty());
    bench.pass(MILLISECOND);
    assert_eq!(ended(&next), [5]);
    bench.end(next);
}

#[test]
fn a_volume_without_limits_holds_nothing_back_and_others_are_not_disturbed() {
    let (limited, free) = (Bench::new(iops(1)), Bench::new(Limits::default()));
    let (held, port) = (limited.port(), free.port());
    submit(&held, 0..4, 512);
    submit(&port, 0..64, 512);
    assert_eq!((ended(&port).len(), ended(&held).len()), (64, 0));
    free.end(port);
    held.let_through();
    assert_eq!(ended(&held).len(), 4);
    limited.end(held);
}

#[test]
fn limits_that_were_amended_hold_at_the_next_opening_from_the_first_request() {
    let bench = Bench::new(Limits::default());
    let limits = Limits { iops: 10, iops_burst: 2, ..Limits::default() };
    let (port, volume) = (bench.port(), Arc::clone(&bench.volume));
    port.block_on(async move { volume.amend(Amendment::Limits(limits)).await }).unwrap();
    submit(&port, 0..2, 512);
    assert!(ended(&port).is_empty(), "at once, and without a burst");
    port.let_through();
    assert_eq!(ended(&port), [0, 1]);
    let (store, options, name, clock) =
        (Arc::clone(&bench.store), bench.options.clone(), bench.volume.name(), Arc::clone(&bench.clock));
    bench.volume.close().unwrap();
    drop((port, bench.volume));

    let volume = Volume::open(&store, &name, &options).unwrap();
    assert_eq!(volume.limits(), limits);
    volume.set_limits_clock(clock);
    let port = Port::open(&volume).unwrap();
    submit(&port, 0..4, 512);
    assert_eq!(ended(&port), [0, 1], "it has rested: the burst");
    port.let_through();
    assert_eq!(ended(&port), [2, 3]);
    drop(port);
    volume.close().unwrap();
}
