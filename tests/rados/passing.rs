//! What only looks at volumes, or tidies up after them, cuts off nobody and waits for nobody: `check` and `gc` beside hosts that may be
//! gone. Whoever wants a volume takes it over all the same.

use crate::cluster::{self, Cluster, User};
use crate::host::{Host, Processes};
use crate::program::{Ran, wait_until};
use crate::takeover::{PIECES, at, byte, served_and_written};
use std::time::{Duration, Instant};

/// Much less than it takes to find out whether a holder lives.
const QUICK: Duration = Duration::from_secs(5);

/// By then the cluster has forgotten the dead.
const UNWATCHED_WITHIN: Duration = Duration::from_secs(30);

fn quickly(host: &Host, arguments: &[&str]) -> Ran {
    let started = Instant::now();
    let ran = host.run(arguments);
    assert!(started.elapsed() < QUICK, "{arguments:?} took {:?}", started.elapsed());
    assert!(!ran.stderr.contains("blocklist"), "{ran:?}");
    ran
}

/// The lock object of the volume.
fn lock_of(host: &Host, volume: &str) -> String {
    let listed = host.run(&["list", "--json"]).json();
    let volumes = listed.as_array().unwrap().iter();
    let mut named = volumes.filter(|seen| seen["name"].as_str().unwrap().starts_with(volume));
    format!("{}.lock", named.next().unwrap()["id"].as_str().unwrap())
}

/// The address of whoever has the lock, as the blocklist would have it.
fn holder_address(cluster: &Cluster, namespace: &str, lock: &str) -> String {
    let info = cluster.rados(namespace, &["lock", "info", lock, "volume", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let address = info["lockers"][0]["addr"].as_str().unwrap();
    address.rsplit(':').next().unwrap().to_owned()
}

fn wait_until_forgotten(cluster: &Cluster, namespace: &str, lock: &str) {
    let give_up = Instant::now() + UNWATCHED_WITHIN;
    while !cluster.rados(namespace, &["listwatchers", lock]).is_empty() {
        assert!(Instant::now() < give_up);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn checking_names_a_holder_that_may_be_gone_and_lets_it_be() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Own);
    let second = Host::new(cluster, User::Other, &namespace);
    drop(served_and_written(&first));
    let lock = lock_of(&second, "web");
    let address = holder_address(cluster, &namespace, &lock);
    first.kill();
    let checked = quickly(&second, &["check"]);
    assert!(checked.code == 4 && String::from_utf8_lossy(&checked.stdout).contains("on host archvhost"), "{checked:?}");
    wait_until_forgotten(cluster, &namespace, &lock);
    let checked = quickly(&second, &["check", "--repair"]);
    assert!(checked.code == 4 && String::from_utf8_lossy(&checked.stdout).contains("on host archvhost"), "{checked:?}");
    quickly(&second, &["gc"]).text();
    assert!(!cluster.blocklist().contains(&address));
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Shared);
    let mut guest = second.guest("web");
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece)));
    assert!(cluster.blocklist().contains(&address), "{address}");
}

#[test]
fn collecting_leaves_what_is_not_finished_to_a_holder_that_may_be_gone() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let first = Host::new(cluster, User::Archvhost, &namespace);
    let second = Host::new(cluster, User::Other, &namespace);
    first.run(&["create", "web", "--size", "64MiB"]).text();
    let mut import = first.imports("image");
    let lock = lock_of(&second, "importing.image");
    let address = holder_address(cluster, &namespace, &lock);
    import.signal(libc::SIGKILL);
    import.wait();
    wait_until_forgotten(cluster, &namespace, &lock);
    let collected = quickly(&second, &["gc"]);
    assert!(collected.code == 0 && collected.stderr.contains("on host archvhost"), "{collected:?}");
    assert!(!cluster.blocklist().contains(&address));
    let listed = second.run(&["list", "--json"]).json();
    let mut unfinished = listed.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
    let unfinished = unfinished.find(|name| name.starts_with("importing.")).unwrap().to_owned();
    // What the warning says to do.
    second.run(&["remove", &unfinished]).text();
    assert!(cluster.blocklist().contains(&address), "{address}");
    assert!(!second.run(&["list"]).text().contains("importing."));
}

/// The lock on the store as a whole: who has it may serve volumes, and harms nobody by being late.
#[test]
fn a_collection_whose_host_died_is_followed_by_another_and_nobody_is_cut_off() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let host = Host::new(cluster, User::Archvhost, &namespace);
    host.run(&["create", "web", "--size", "64MiB"]).text();
    host.run(&["gc"]).text();
    // As a collection has it, from a host that nobody sees.
    let lock = format!("{}.lock", "f".repeat(32));
    let cookie = ["--lock-cookie", "archvhost elsewhere pid:[1] 1 1 0"];
    cluster.rados(&namespace, &[&["lock", "get", &lock, "volume"][..], &cookie[..]].concat());
    let address = holder_address(cluster, &namespace, &lock);
    host.run(&["gc"]).text();
    assert!(!cluster.blocklist().contains(&address), "{address}");
    wait_until(|| cluster.rados(&namespace, &["lock", "info", &lock, "volume"]).contains("[]"));
}
