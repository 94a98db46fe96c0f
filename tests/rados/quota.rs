//! A pool that has used up its quota: what takes space fails, and is said why; what frees some, and what takes none, goes on.

use crate::cluster::{self, Cluster, User};
use crate::driver::{Driver, Request};
use crate::guest::PIECE;
use crate::host::{Host, Processes};
use crate::outage::harmed;
use crate::program::wait_until;
use crate::takeover::{PIECES, at, byte, served_and_written};

const LIMITED_POOL: &str = "archvhost-limited";

const NO_SPACE: i32 = 7;

/// Pieces of the volume that were never written.
const NEW_PIECES: std::ops::Range<u64> = 100..1000;

fn set_quota(cluster: &Cluster, bytes: &str) {
    cluster.ceph(&["osd", "pool", "set-quota", LIMITED_POOL, "max_bytes", bytes]);
}

/// As the monitors found at their last look, every few seconds.
fn is_used_up(cluster: &Cluster) -> bool {
    let pools = cluster.ceph(&["osd", "pool", "ls", "detail"]);
    pools.lines().any(|line| line.contains(LIMITED_POOL) && line.contains("full_quota"))
}

fn write(driver: &mut Driver, piece: u64, byte: u8) -> std::io::Result<()> {
    driver.queues[0].fill(0, &[byte; PIECE]);
    driver.queues[0].execute(Request::Write { offset: at(piece), len: PIECE })
}

fn read(driver: &mut Driver, piece: u64) -> u8 {
    let mut bytes = [0; PIECE];
    driver.queues[0].execute(Request::Read { offset: at(piece), len: PIECE }).unwrap();
    driver.queues[0].copy_out(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

#[test]
fn a_pool_whose_quota_is_used_up_can_be_emptied_and_serves_on_when_there_is_room() {
    let Some(cluster) = harmed() else { return };
    cluster.ceph(&["osd", "pool", "create", LIMITED_POOL, "8", "8"]);
    cluster.start_mgr();
    let mut host = Host::in_pool(&cluster, User::Archvhost, LIMITED_POOL, &cluster::namespace());
    host.start(Processes::Shared);
    let mut driver = served_and_written(&host);
    host.run(&["create", "old", "--size", "64MiB"]).text();
    host.guest("old").write(0, 1);
    host.run(&["snapshot", "old", "older"]).text();
    // Half of what is there.
    set_quota(&cluster, "1048576");
    wait_until(|| is_used_up(&cluster));

    // The OSDs learn of it a moment later.
    let mut new_pieces = NEW_PIECES;
    let failed = new_pieces.find(|piece| write(&mut driver, *piece, 0xAA).is_err()).expect("it is used up");
    assert!(host.log().contains("the store is full"), "{}", host.log());
    let refusal = host.run(&["create", "late", "--size", "64MiB"]);
    assert!(refusal.failure(NO_SPACE).contains("quota is used up"), "{refusal:?}");
    write(&mut driver, 3, 0xBB).unwrap();
    driver.queues[0].execute(Request::Discard { offset: at(4), len: at(1) }).unwrap();
    driver.queues[0].execute(Request::Flush).unwrap();
    let freed = [&["detach", "old"][..], &["remove", "old"], &["remove", "older"], &["gc"]];
    freed.iter().for_each(|arguments| drop(host.run(arguments).text().to_owned()));
    assert!(is_used_up(&cluster), "all of that was done without room");

    set_quota(&cluster, "0");
    wait_until(|| !is_used_up(&cluster));
    wait_until(|| write(&mut driver, failed, 0xCC).is_ok());
    driver.queues[0].execute(Request::Flush).unwrap();
    let expected = |piece| match piece {
        3 => 0xBB,
        4 => 0,
        _ => byte(piece),
    };
    (0..PIECES).for_each(|piece| assert_eq!(read(&mut driver, piece), expected(piece), "piece {piece}"));
    assert_eq!(read(&mut driver, failed), 0xCC);
    (NEW_PIECES.start..failed).for_each(|piece| assert_eq!(read(&mut driver, piece), 0xAA, "piece {piece}"));
    drop(driver);
    host.daemon().stop();
    cluster.kill_mgr();
}
