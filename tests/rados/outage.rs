//! The cluster's only OSD dies and comes back, with its disk.

use crate::cluster::{self, Cluster, User};
use crate::driver::Request;
use crate::guest::PIECE;
use crate::host::{Host, Processes};
use crate::program::wait_until;
use crate::refusals::HALF_A_MINUTE;
use crate::takeover::{PIECES, SLOTS, at, byte, outcomes, served_and_written, submit_late_writes};
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::rados::RadosOptions;
use archvhost::store::{LockMode, StoreErrorKind};
use archvhost::units::VolumeId;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for requests to be on their way to an OSD that is not there.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// By then a lock is had, or it is said that the cluster does not answer.
const A_MINUTE: Duration = Duration::from_secs(60);

/// By then the cluster has forgotten whoever it has not heard of.
const LONGER_THAN_A_WATCH: Duration = Duration::from_secs(17);

/// In which an OSD that goes on has ended the watches whose time is over.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// In which a verb has reached the monitors.
const CONNECTED: Duration = Duration::from_secs(3);

/// A cluster that tests may harm, one at a time.
pub(crate) fn harmed() -> Option<MutexGuard<'static, Cluster>> {
    static HARMED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = || cluster::own().expect("there can be one").into();
    cluster::can_be().then(|| HARMED.get_or_init(cluster).lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn locks_are_waited_for_in_time_and_no_channel_waits_for_the_end_of_one() {
    let Some(cluster) = harmed() else { return };
    let rados = RadosOptions {
        conf: Some(cluster.conf.clone()),
        user: Some(User::Archvhost.id().to_owned()),
        ..RadosOptions::default()
    };
    let url = cluster.url(&cluster::namespace());
    let store = open(&url, &StoreOptions { rados, ..StoreOptions::default() }).unwrap();
    let volume = VolumeId([1; 16]);
    let lock = || store.lock(volume, LockMode::Exclusive, b"me");
    let lease = lock().unwrap();
    let channel = store.channel(Some(&lease)).unwrap();
    drop(lease);
    let silence = cluster.silence();
    let started = Instant::now();
    drop(channel);
    assert!(started.elapsed() < UNDER_WAY, "{:?}", started.elapsed());
    let error = lock().err().unwrap();
    assert!(error.kind() == StoreErrorKind::Unavailable && started.elapsed() < A_MINUTE, "{error}");
    drop(silence);
    wait_until(|| lock().is_ok());
}

#[test]
fn an_osd_that_restarts_is_a_pause() {
    let Some(cluster) = harmed() else { return };
    let host = Host::with_daemon(&cluster, User::Archvhost, &cluster::namespace(), Processes::Shared);
    let mut driver = served_and_written(&host);
    cluster.kill_osd();
    submit_late_writes(&mut driver);
    thread::sleep(UNDER_WAY);
    assert_eq!(driver.queues[0].reap(|_, _| ()), 0, "nothing is completed that is not stored");
    cluster.start_osd();
    assert_eq!(outcomes(&mut driver), 0, "none of them is an error");
    let mut bytes = [0; PIECE];
    for piece in 0..PIECES {
        driver.queues[0].execute(Request::Read { offset: at(piece), len: PIECE }).unwrap();
        driver.queues[0].copy_out(0, &mut bytes);
        let expected = if piece < u64::from(SLOTS) { 0xEE } else { byte(piece) };
        assert!(bytes.iter().all(|byte| *byte == expected), "piece {piece}");
    }
}

/// What the library of the stopped host holds it sends when it goes on, past all checks of ours: only the cluster can refuse it.
#[test]
fn c16_what_a_stopped_host_had_under_way_is_refused() {
    let Some(cluster) = harmed() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(&cluster, User::Archvhost, &namespace, Processes::Shared);
    let mut driver = served_and_written(&first);
    let second = Host::with_daemon(&cluster, User::Other, &namespace, Processes::Shared);
    cluster.kill_osd();
    submit_late_writes(&mut driver);
    thread::sleep(UNDER_WAY);
    first.stop();
    cluster.start_osd();
    let mut guest = second.guest("web");
    first.go_on();
    assert_eq!(outcomes(&mut driver), usize::from(SLOTS), "each of them is an error");
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece), "piece {piece}"));
}

/// Nobody asks a reader whether it still is one: its watch must come back by itself.
#[test]
fn a_reader_that_lives_is_seen_to_live_after_an_outage() {
    let Some(cluster) = harmed() else { return };
    let namespace = cluster::namespace();
    let first = Host::with_daemon(&cluster, User::Archvhost, &namespace, Processes::Own);
    let second = Host::new(&cluster, User::Other, &namespace);
    first.run(&["create", "web", "--size", "64MiB"]).text();
    first.run(&["snapshot", "web", "kept"]).text();
    let socket = first.attach_with("kept", &["--read-only"]);
    let silence = cluster.silence();
    thread::sleep(LONGER_THAN_A_WATCH);
    drop(silence);
    // It forgets the watch now. Then it starts anew: an OSD that was stopped was seen to keep an operation for good that came right
    // after it went on, and nobody gives up on an OSD.
    thread::sleep(FORGOTTEN);
    cluster.kill_osd();
    cluster.start_osd();
    wait_until(|| second.run(&["list"]).code == 0);
    for _ in 0..3 {
        let refusal = second.run(&["remove", "kept"]);
        assert!(refusal.failure(4).contains("is being read"), "{refusal:?}");
    }
    assert_eq!(crate::guest::Guest::at(&socket).read(0), 0);
}

#[test]
fn a_full_cluster_can_be_emptied() {
    let Some(cluster) = harmed() else { return };
    let host = Host::new(&cluster, User::Archvhost, &cluster::namespace());
    for name in ["web", "other"] {
        host.run(&["create", name, "--size", "64MiB"]).text();
    }
    let set = |ratios: [(&str, &str); 3]| {
        for (ratio, to) in ratios {
            cluster.ceph(&["osd", &format!("set-{ratio}-ratio"), to]);
        }
    };
    set([("nearfull", "0.00001"), ("backfillfull", "0.00002"), ("full", "0.00003")]);
    wait_until(|| cluster.ceph(&["health", "detail"]).contains("OSD_FULL"));
    let refusal = host.run(&["create", "late", "--size", "64MiB"]);
    let removed = host.run(&["remove", "web"]);
    let freed = host.run(&["unlock", "--force", "other"]);
    set([("full", "0.95"), ("backfillfull", "0.9"), ("nearfull", "0.85")]);
    // The next test wants room.
    wait_until(|| !cluster.ceph(&["health", "detail"]).contains("FULL"));
    assert!(refusal.failure(7).contains("full"), "{refusal:?}");
    removed.text();
    freed.text();
}

/// Longer than a watch counts, and than anybody who starts waits.
#[test]
fn a_cluster_that_goes_away_is_a_pause_for_who_has_it_and_an_error_for_who_comes() {
    let Some(cluster) = harmed() else { return };
    let namespace = cluster::namespace();
    let host = Host::with_daemon(&cluster, User::Archvhost, &namespace, Processes::Shared);
    let mut driver = served_and_written(&host);
    cluster.kill_mon();
    driver.queues[0].fill(0, &[0xDD; PIECE]);
    driver.queues[0].execute(Request::Write { offset: at(PIECES - 1), len: PIECE }).unwrap();
    driver.queues[0].execute(Request::Flush).unwrap();
    cluster.start_mon();

    cluster.kill_osd();
    let comes = Host::new(&cluster, User::Other, &namespace);
    let started = Instant::now();
    let verb = thread::spawn(move || comes.run(&["list"]));
    submit_late_writes(&mut driver);
    thread::sleep(CONNECTED);
    cluster.kill_mon();
    let ran = verb.join().unwrap();
    let took = started.elapsed();
    assert_eq!(driver.queues[0].reap(|_, _| ()), 0, "nothing is completed that is not stored");
    cluster.start_mon();
    cluster.start_osd();
    assert!(ran.failure(5).contains("no OSD of pool archvhost answered within 30 s; `ceph health detail`"), "{ran:?}");
    assert!(HALF_A_MINUTE.contains(&took.as_secs()), "{took:?}");
    assert_eq!(outcomes(&mut driver), 0, "none of them is an error");
    driver.queues[0].execute(Request::Flush).unwrap();
    assert!(!host.log().contains("ERROR"), "{}", host.log());
    let second = Host::with_daemon(&cluster, User::Other, &namespace, Processes::Shared);
    let refusal = second.run(&["attach", "web", "--socket", "s"]);
    assert!(refusal.failure(4).contains("on host archvhost"), "it has kept its lease: {refusal:?}");
}
