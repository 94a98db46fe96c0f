//! Data in an erasure-coded pool, metadata in a replicated one. And the pools in which a store cannot be: what is said of them, and
//! that nothing is left there.

use crate::cluster::{self, Cluster, DATA_POOL, POOL, User};
use crate::guest::PIECE;
use crate::host::{Host, Processes};
use crate::outage::harmed;
use std::process::Command;

const CODED_POOL: &str = "archvhost-coded";

const STORE: i32 = 5;

/// Three shards of each placement group want three OSDs, and there is one: it is asked for three times.
const RULE: &str = "
rule thrice {
    id 7
    type erasure
    min_size 3
    max_size 3
    step take default
    step choose indep 1 type osd
    step emit
    step take default
    step choose indep 1 type osd
    step emit
    step take default
    step choose indep 1 type osd
    step emit
}
";

/// A pool with two shards of data and one of parity, as it is made: without overwrites.
fn make_coded_pool(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let crushtool =
        |arguments: [&str; 4]| assert!(Command::new("crushtool").args(arguments).status().unwrap().success());
    let (compiled, text) = (path("map"), path("text"));
    cluster.ceph(&["osd", "getcrushmap", "-o", &compiled]);
    crushtool(["-d", &compiled, "-o", &text]);
    std::fs::write(&text, std::fs::read_to_string(&text).unwrap() + RULE).unwrap();
    crushtool(["-c", &text, "-o", &compiled]);
    cluster.ceph(&["osd", "setcrushmap", "-i", &compiled]);
    cluster.ceph(&["osd", "erasure-code-profile", "set", "two-and-one", "k=2", "m=1", "crush-failure-domain=osd"]);
    cluster.ceph(&["osd", "pool", "create", CODED_POOL, "1", "1", "erasure", "two-and-one", "thrice"]);
}

fn allow_overwrites(cluster: &Cluster) {
    cluster.ceph(&["osd", "pool", "set", CODED_POOL, "allow_ec_overwrites", "true"]);
}

/// What there is of a store in a pool.
fn objects(cluster: &Cluster, namespace: &str, pool: &str) -> usize {
    cluster.rados(namespace, &["-p", pool, "ls"]).lines().count()
}

fn at(piece: u64) -> u64 {
    piece * u64::try_from(PIECE).unwrap()
}

#[test]
fn data_may_be_in_an_erasure_coded_pool_that_takes_overwrites_and_metadata_never() {
    let Some(cluster) = harmed() else { return };
    let namespace = cluster::namespace();
    make_coded_pool(&cluster);
    refused(&cluster, &namespace, Overwrites::No);
    allow_overwrites(&cluster);
    refused(&cluster, &namespace, Overwrites::Yes);
    branches_live_in_it(&cluster, &namespace);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overwrites {
    Yes,
    No,
}

fn refused(cluster: &Cluster, namespace: &str, overwrites: Overwrites) {
    let create = ["create", "web", "--size", "64MiB"];
    let replicated = || Host::new(cluster, User::Archvhost, namespace);
    let coded = || Host::in_pool(cluster, User::Archvhost, CODED_POOL, namespace);
    for host in [coded(), coded().told(&["--data-pool", DATA_POOL])] {
        let ran = host.run(&create);
        let text = ran.failure(STORE);
        assert!(text.contains(&format!("pool {CODED_POOL}, which is erasure-coded")), "{text}");
        assert!(text.contains(&format!("in a replicated pool, with --data-pool {CODED_POOL}")), "{text}");
    }
    if overwrites == Overwrites::No {
        let ran = replicated().told(&["--data-pool", CODED_POOL]).run(&create);
        let text = ran.failure(STORE);
        assert!(text.contains(&format!("ceph osd pool set {CODED_POOL} allow_ec_overwrites true")), "{text}");
    }
    let ran = replicated().told(&["--data-pool", "no-such-pool"]).run(&create);
    assert!(ran.failure(STORE).contains("there is no data pool no-such-pool"), "{ran:?}");
    assert_eq!([POOL, CODED_POOL].map(|pool| objects(cluster, namespace, pool)), [0, 0], "nothing half made is left");
}

fn branches_live_in_it(cluster: &Cluster, namespace: &str) {
    let mut host = Host::new(cluster, User::Archvhost, namespace).told(&["--data-pool", CODED_POOL]);
    host.start(Processes::Shared);
    let done = |arguments: &[&str]| host.run(arguments).text().to_owned();
    done(&["create", "web", "--size", "64MiB", "--object-size", "256KiB"]);
    let mut guest = host.guest("web");
    (0..8).for_each(|piece| guest.write(at(piece), 1));
    assert_eq!(objects(cluster, namespace, CODED_POOL), 2, "eight pieces in objects of four");
    done(&["snapshot", "web", "before"]);
    done(&["clone", "before", "copy"]);
    guest.write(at(1), 2);
    guest.write(at(1), 3);
    // Of a block that is its own: zeros in the middle of an object.
    (8..12).for_each(|piece| guest.write(at(piece), 5));
    guest.discard(at(9));
    let mut copy = host.guest("copy");
    copy.write(at(5), 4);
    let read = |guest: &mut crate::guest::Guest| (0..12).map(|piece| guest.read(at(piece))).collect::<Vec<_>>();
    assert_eq!(read(&mut guest), [1, 3, 1, 1, 1, 1, 1, 1, 5, 0, 5, 5]);
    assert_eq!(read(&mut copy), [1, 1, 1, 1, 1, 4, 1, 1, 0, 0, 0, 0]);
    drop((guest, copy));
    // Another user, as from another host, without having been told of the data pool.
    host.run(&["detach", "web"]).text();
    let mut other = Host::with_daemon(cluster, User::Other, namespace, Processes::Shared);
    assert_eq!(read(&mut other.guest("web")), [1, 3, 1, 1, 1, 1, 1, 1, 5, 0, 5, 5]);
    other.daemon().stop();
    let told_wrong = Host::new(cluster, User::Other, namespace).told(&["--data-pool", DATA_POOL]);
    let text = told_wrong.run(&["list"]).failure(STORE).to_owned();
    assert!(text.contains(&format!("its data is in pool {CODED_POOL}, not in {DATA_POOL}")), "{text}");
    done(&["check"]);
    done(&["detach", "copy"]);
    ["web", "before", "copy"].iter().for_each(|name| drop(done(&["remove", name])));
    done(&["gc"]);
    done(&["check"]);
    assert_eq!(objects(cluster, namespace, CODED_POOL), 0, "what nobody needs is gone");
}
