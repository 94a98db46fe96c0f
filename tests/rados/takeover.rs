//! From one host to the next.

use crate::cluster::{self, User};
use crate::driver::{Driver, Request, Settings};
use crate::guest::PIECE;
use crate::host::{Host, Processes};
use std::time::{Duration, Instant};

/// By when a dead host's volume must be served by another.
const TAKE_OVER_MAX: Duration = Duration::from_secs(30);

/// A watch counts for ten seconds after it was last renewed, which it is every few.
const WATCH_MIN: Duration = Duration::from_secs(4);

pub(crate) const PIECES: u64 = 32;

/// How many requests of a guest are under way when its daemon ends.
pub(crate) const SLOTS: u16 = 16;

pub(crate) fn at(piece: u64) -> u64 {
    piece * u64::try_from(PIECE).unwrap()
}

pub(crate) fn byte(piece: u64) -> u8 {
    u8::try_from(piece + 1).unwrap()
}

/// A volume, served by a daemon of a first host, with every piece written and flushed.
pub(crate) fn served_and_written(first: &Host) -> Driver {
    first.run(&["create", "web", "--size", "64MiB", "--object-size", "64KiB"]).text();
    let settings = Settings { slot_bytes: PIECE, slots: SLOTS, ..Settings::default() };
    let mut driver = Driver::connect(&first.attach("web"), settings).unwrap();
    for piece in 0..PIECES {
        driver.queues[0].fill(0, &[byte(piece); PIECE]);
        driver.queues[0].execute(Request::Write { offset: at(piece), len: PIECE }).unwrap();
    }
    driver.queues[0].execute(Request::Flush).unwrap();
    driver
}

/// Submits a write of 0xEE to as many pieces as there are slots, from the first one on.
pub(crate) fn submit_late_writes(driver: &mut Driver) {
    let queue = &mut driver.queues[0];
    for slot in 0..SLOTS {
        queue.fill(slot, &[0xEE; PIECE]);
        queue.submit(slot, Request::Write { offset: at(slot.into()), len: PIECE }).unwrap();
    }
    queue.kick().unwrap();
}

#[test]
fn a_volume_that_one_host_closed_is_opened_by_another() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
    drop(served_and_written(&first));
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Own);
    let refusal = second.run(&["attach", "web", "--socket", "s"]);
    assert!(refusal.failure(4).contains("on host archvhost"), "{refusal:?}");
    first.daemon().stop();
    let started = Instant::now();
    let mut guest = second.guest("web");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece)));
    assert!(!first.log().contains("ERROR") && !second.log().contains("blocklist"), "{}", second.log());
}

#[test]
fn c16_a_killed_host_is_taken_over_with_every_flushed_write() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Own);
    let mut driver = served_and_written(&first);
    submit_late_writes(&mut driver);
    first.kill();
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Own);
    let started = Instant::now();
    let mut guest = second.guest("web");
    let took = started.elapsed();
    assert!(took < TAKE_OVER_MAX, "{took:?}");
    eprintln!("taken over in {took:?}");
    for piece in 0..PIECES {
        let read = guest.read(at(piece));
        let written_late = piece < u64::from(SLOTS) && read == 0xEE;
        assert!(read == byte(piece) || written_late, "piece {piece} is {read:#x}");
    }
    assert!(second.log().contains("blocklisted the last holder"), "{}", second.log());
}

#[test]
fn m12_a_host_takes_over_at_once_from_a_dead_process_of_its_own() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut host = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
    let mut driver = served_and_written(&host);
    submit_late_writes(&mut driver);
    host.kill();
    host.start(Processes::Shared);
    let started = Instant::now();
    let mut guest = host.guest("web");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(guest.read(at(PIECES - 1)), byte(PIECES - 1));
    assert!(host.log().contains("blocklisted the last holder"), "{}", host.log());
}

#[test]
fn c16_late_writes_of_a_host_that_was_stopped_never_show() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
    let mut driver = served_and_written(&first);
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Shared);
    first.stop();
    submit_late_writes(&mut driver);
    let started = Instant::now();
    let mut guest = second.guest("web");
    assert!(started.elapsed() < TAKE_OVER_MAX, "{:?}", started.elapsed());
    guest.write(at(1), 0x77);
    first.go_on();
    let failed = outcomes(&mut driver);
    assert_eq!(failed, usize::from(SLOTS), "each of them is an error");
    for piece in 0..PIECES {
        let expected = if piece == 1 { 0x77 } else { byte(piece) };
        assert_eq!(guest.read(at(piece)), expected, "piece {piece}");
    }
    let log = first.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("web")), "{log}");
}

/// Waits for what was submitted; how many requests failed.
pub(crate) fn outcomes(driver: &mut Driver) -> usize {
    let give_up = Instant::now() + Duration::from_secs(90);
    let (mut ended, mut failed) = (0, 0);
    while ended < usize::from(SLOTS) {
        assert!(Instant::now() < give_up, "{ended} have ended");
        driver.queues[0].wait(Duration::from_millis(100)).unwrap();
        ended += driver.queues[0].reap(|_, result| failed += usize::from(result.is_err()));
    }
    failed
}

#[test]
fn c4_without_the_right_to_fence_a_dead_host_is_given_up_by_force_only() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
    drop(served_and_written(&first));
    first.kill();
    let second = Host::with_daemon(cluster, User::Unfencing, &namespace, Processes::Shared);
    let refusal = second.run(&["attach", "web", "--socket", "s"]);
    let text = refusal.failure(4);
    assert!(text.contains("on host archvhost") && text.contains("cannot be blocklisted"), "{text}");
    assert!(second.log().contains("profile rbd"), "{}", second.log());
    second.run(&["unlock", "--force", "web"]).text();
    let mut guest = second.guest("web");
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece)));
    let info = second.run(&["info", "web"]);
    assert!(!info.text().is_empty());
}

/// Cutting it off would end whatever else it serves.
#[test]
fn force_takes_one_volume_from_a_host_that_lives_and_leaves_it_the_others() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Own);
    let mut driver = served_and_written(&first);
    first.run(&["create", "other", "--size", "64MiB"]).text();
    let mut other = first.guest("other");
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Own);
    second.run(&["unlock", "--force", "web"]).text();
    let mut guest = second.guest("web");
    guest.write(at(0), 0x55);
    // What was seen once does not change.
    (1..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece), "piece {piece}"));
    submit_late_writes(&mut driver);
    outcomes(&mut driver);
    assert!(driver.queues[0].execute(Request::Flush).is_err(), "it has learnt that the volume is not its own");
    assert_eq!(guest.read(at(0)), 0x55);
    (1..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece), "piece {piece}"));
    other.write(0, 9);
    assert_eq!(other.read(0), 9);
}

/// Its number may be that of anybody, or nobody's, in this boot: that says nothing.
#[test]
fn m12_a_process_of_another_boot_of_this_host_is_not_seen_to_be_gone_and_taken_over_when_its_watch_ends() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut host = Host::new(cluster, User::Archvhost, &namespace);
    host.start(Processes::OfAnotherBoot);
    drop(served_and_written(&host));
    host.kill();
    host.start(Processes::Shared);
    let started = Instant::now();
    let mut guest = host.guest("web");
    let took = started.elapsed();
    assert!((WATCH_MIN..TAKE_OVER_MAX).contains(&took), "{took:?}");
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece)));
    assert!(host.log().contains("blocklisted the last holder"), "{}", host.log());
}

#[test]
fn c16_all_connections_of_a_killed_host_are_blocklisted() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::new(cluster, User::Archvhost, &namespace).told(&["--ceph-connections", "3"]);
    first.start(Processes::Own);
    let mut driver = served_and_written(&first);
    let id = first.run(&["info", "web", "--json"]).json()["id"].as_str().unwrap().to_owned();
    let lock = cluster.rados(&namespace, &["lock", "info", &format!("{id}.lock"), "volume"]);
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    let locker = &lock["lockers"][0];
    let others = locker["cookie"].as_str().unwrap().split(' ').skip(6).map(str::to_owned);
    let addresses: Vec<_> = others.chain([locker["addr"].as_str().unwrap().to_owned()]).collect();
    assert_eq!(addresses.len(), 3, "{lock}");
    submit_late_writes(&mut driver);
    first.kill();
    let mut second = Host::new(cluster, User::Other, &namespace).told(&["--ceph-connections", "3"]);
    second.start(Processes::Own);
    let mut guest = second.guest("web");
    let blocklist = cluster.blocklist();
    let is_listed = |address: &String| blocklist.lines().any(|line| line.split(' ').next() == Some(address));
    assert!(addresses.iter().all(is_listed), "{addresses:?} in {blocklist}");
    for piece in 0..PIECES {
        let read = guest.read(at(piece));
        let written_late = piece < u64::from(SLOTS) && read == 0xEE;
        assert!(read == byte(piece) || written_late, "piece {piece} is {read:#x}");
    }
}
