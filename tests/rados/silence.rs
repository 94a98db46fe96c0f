//! The cluster's only OSD says nothing for a while, longer than a lease counts as confirmed. A guest whose volume has a time-out
//! gets errors meanwhile, and then goes on with what it was told is written.

use crate::cluster::{self, Cluster, User};
use crate::driver::{Driver, Request, Settings};
use crate::guest::PIECE;
use crate::host::{Host, Processes};
use crate::outage::harmed;
use crate::program::wait_until;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TIMEOUT_SECONDS: &str = "2";
/// The time-out, a quarter more, and what a busy machine takes.
const AT_LAST: Duration = Duration::from_secs(4);
/// A lease has to be confirmed every 10 s.
const SILENCE: Duration = Duration::from_secs(14);

const SLOTS: u16 = 16;
/// Each slot writes its own places, in turn.
const PLACES_OF_A_SLOT: usize = 4;

/// What a place may have: what was acknowledged last, and what was tried since.
#[derive(Clone, Default)]
struct Place(Vec<u8>);

/// A guest that keeps every slot busy with writes and remembers what became of them.
struct Load {
    driver: Driver,
    places: Vec<Place>,
    busy: Vec<Option<Write>>,
    next: usize,
    acknowledged: usize,
    failed: usize,
    slowest: Duration,
}

struct Write {
    place: usize,
    byte: u8,
    since: Instant,
}

fn offset(place: usize) -> u64 {
    u64::try_from(place * PIECE).unwrap()
}

impl Load {
    fn at(socket: &Path) -> Self {
        let settings = Settings { slot_bytes: PIECE, slots: SLOTS, ..Settings::default() };
        let slots = usize::from(SLOTS);
        Self {
            driver: Driver::connect(socket, settings).unwrap(),
            places: vec![Place(vec![0]); slots * PLACES_OF_A_SLOT],
            busy: (0..slots).map(|_| None).collect(),
            next: 0,
            acknowledged: 0,
            failed: 0,
            slowest: Duration::ZERO,
        }
    }

    fn submit(&mut self, slot: usize) {
        self.next += 1;
        let place = slot + usize::from(SLOTS) * (self.next % PLACES_OF_A_SLOT);
        let byte = u8::try_from(1 + self.next % 255).unwrap();
        let (queue, slot_number) = (&mut self.driver.queues[0], u16::try_from(slot).unwrap());
        queue.fill(slot_number, &[byte; PIECE]);
        queue.submit(slot_number, Request::Write { offset: offset(place), len: PIECE }).unwrap();
        self.places[place].0.push(byte);
        self.busy[slot] = Some(Write { place, byte, since: Instant::now() });
    }

    fn reap(&mut self) {
        self.driver.queues[0].wait(Duration::from_millis(20)).unwrap();
        let mut ended = Vec::new();
        self.driver.queues[0].reap(|slot, result| ended.push((usize::from(slot), result.is_ok())));
        for (slot, acknowledged) in ended {
            let write = self.busy[slot].take().expect("answered once");
            self.slowest = self.slowest.max(write.since.elapsed());
            if acknowledged {
                self.places[write.place] = Place(vec![write.byte]);
                self.acknowledged += 1;
            } else {
                self.failed += 1;
            }
        }
    }

    /// Keeps writing for this long.
    fn go_on_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let idle: Vec<usize> = (0..self.busy.len()).filter(|slot| self.busy[*slot].is_none()).collect();
            idle.into_iter().for_each(|slot| self.submit(slot));
            self.driver.queues[0].kick().unwrap();
            self.reap();
        }
    }

    fn finish(&mut self) {
        while self.busy.iter().any(Option::is_some) {
            self.reap();
        }
    }

    /// Every place has what it may have, and the same when it is read again.
    fn check(&mut self) {
        let queue = &mut self.driver.queues[0];
        for (number, place) in self.places.iter().enumerate() {
            let mut seen = [vec![0; PIECE], vec![0; PIECE]];
            for bytes in &mut seen {
                queue.execute(Request::Read { offset: offset(number), len: PIECE }).unwrap();
                queue.copy_out(0, bytes);
            }
            let byte = seen[0][0];
            assert!(place.0.contains(&byte), "place {number} has {byte} and may have {:?}", place.0);
            assert!(seen.iter().flatten().all(|other| *other == byte), "place {number} is of one piece");
        }
    }
}

/// A daemon, the socket of a volume whose requests have a time-out, and a guest that has been at work on it for a second.
fn loaded(cluster: &Cluster) -> (Host, PathBuf, Load) {
    let host = Host::with_daemon(cluster, User::Archvhost, &cluster::namespace(), Processes::Shared);
    host.run(&["create", "web", "--size", "64MiB", "--object-size", "256KiB"]).text();
    let socket = host.attach_with("web", &["--request-timeout", TIMEOUT_SECONDS]);
    let mut load = Load::at(&socket);
    load.go_on_for(Duration::from_secs(1));
    (host, socket, load)
}

#[test]
fn c13_a_silent_osd_is_an_error_in_time_and_service_resumes_with_all_that_was_acknowledged() {
    let Some(cluster) = harmed() else { return };
    let (host, _, mut load) = loaded(&cluster);
    let before = load.acknowledged;
    assert!(before > 0 && load.failed == 0, "{before} acknowledged, {} failed", load.failed);

    let silence = cluster.silence();
    load.go_on_for(SILENCE);
    assert!(load.failed > usize::from(SLOTS), "{} failed", load.failed);
    assert!(load.slowest < AT_LAST, "{:?}", load.slowest);
    drop(silence);

    // Not a word to the daemon: it finds out by itself.
    let errors = load.failed;
    wait_until(|| {
        load.go_on_for(Duration::from_millis(200));
        load.acknowledged > before + 2 * load.places.len()
    });
    load.finish();
    load.check();
    let settled = load.failed;
    load.go_on_for(Duration::from_secs(1));
    load.finish();
    assert_eq!(load.failed, settled, "no errors any more ({errors} in the silence)");
    load.driver.queues[0].execute(Request::Flush).unwrap();
    load.check();
    let log = host.log();
    for line in ["the store does not answer", "the store answers again"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn a_guest_leaves_a_silent_cluster_and_comes_back_before_it_speaks() {
    let Some(cluster) = harmed() else { return };
    let (_host, socket, mut load) = loaded(&cluster);
    load.finish();
    let silence = cluster.silence();
    load.go_on_for(Duration::from_secs(3));
    let Load { driver, places, .. } = load;
    drop(driver);
    // Served only when the daemon has finished with the first connection.
    let mut again = Load::at(&socket);
    again.places = places;
    again.go_on_for(Duration::from_secs(3));
    again.finish();
    assert!(again.failed > 0 && again.slowest < AT_LAST, "{} failed, {:?}", again.failed, again.slowest);
    drop(silence);
    wait_until(|| {
        again.go_on_for(Duration::from_millis(200));
        again.acknowledged > 2 * again.places.len()
    });
    again.finish();
    again.check();
}
