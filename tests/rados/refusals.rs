//! What is said when a store in a cluster cannot be used: one line, and the exit code that docs/operations.md gives.

use crate::cluster::{self, User};
use crate::host::Host;
use crate::program::{Ran, Scene};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

const STORE: i32 = 5;

/// In seconds, on a busy machine.
pub(crate) const HALF_A_MINUTE: std::ops::Range<u64> = 29..50;

fn list(scene: &Scene, conf: &Path, more: &[&str]) -> Ran {
    let mut command = scene.command();
    Ran::of(command.arg("--ceph-conf").arg(conf).args(more).arg("list"))
}

fn refused(ran: &Ran, says: &str) {
    let text = ran.failure(STORE);
    assert!(text.contains(says), "{text}");
}

#[test]
fn a_pool_that_is_not_there_is_named() {
    let Some(cluster) = cluster::shared() else { return };
    let ran = list(&Scene::new(), &cluster.conf, &["--ceph-user", "archvhost", "--store", "rados:no-such-pool"]);
    refused(&ran, "rados:no-such-pool (there is no such pool)");
}

#[test]
fn a_user_without_rights_is_told_so() {
    let Some(cluster) = cluster::shared() else { return };
    let stranger = Host::new(cluster, User::Stranger, &cluster::namespace());
    refused(&stranger.run(&["list"]), "Operation not permitted");
    refused(&stranger.run(&["create", "web", "--size", "1GiB"]), "Operation not permitted");
}

#[test]
fn a_user_or_a_key_that_is_not_there_is_named() {
    let Some(cluster) = cluster::shared() else { return };
    let scene = Scene::new();
    let store = ["--store", "rados:archvhost"];
    refused(&list(&scene, &cluster.conf, &[&["--ceph-user", "nobody"], &store[..]].concat()), "client.nobody");
    let keyring = [&["--ceph-user", "archvhost", "--ceph-keyring", "/no/such/keyring"], &store[..]].concat();
    refused(&list(&scene, &cluster.conf, &keyring), "/no/such/keyring");
    // Somebody else's key.
    let other = cluster.conf.with_file_name("client.other.keyring");
    let keyring = [&["--ceph-user", "archvhost", "--ceph-keyring", other.to_str().unwrap()], &store[..]].concat();
    refused(&list(&scene, &cluster.conf, &keyring), "client.archvhost");
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    refused(
        &list(&Scene::new(), Path::new("/no/such/ceph.conf"), &["--store", "rados:archvhost"]),
        "/no/such/ceph.conf",
    );
}

#[test]
fn a_cluster_that_does_not_answer_is_waited_for_half_a_minute() {
    let Some(cluster) = cluster::shared() else { return };
    let scene = Scene::new();
    // Nobody listens there: port 9 is for discarding, and nothing does that any more.
    let conf = std::fs::read_to_string(&cluster.conf).unwrap();
    let gone = |line: &str| {
        if line.starts_with("mon_host") { "mon_host = [v2:127.0.0.1:9/0]".into() } else { line.to_owned() }
    };
    let conf: Vec<_> = conf.lines().map(gone).collect();
    std::fs::write(scene.path("ceph.conf"), conf.join("\n") + "\n").unwrap();
    let conf = scene.path("ceph.conf");
    let mut daemon = scene.command();
    daemon.arg("--ceph-conf").arg(&conf).args(["--ceph-user", "archvhost", "--store", "rados:archvhost"]);
    daemon.arg("--control").arg(scene.path("control.sock")).arg("serve");
    let started = Instant::now();
    let daemon = thread::spawn(move || Ran::of(&mut daemon));
    let verb = list(&scene, &conf, &["--ceph-user", "archvhost", "--store", "rados:archvhost"]);
    for ran in [verb, daemon.join().unwrap()] {
        refused(&ran, "rados:archvhost: ");
        refused(&ran, "no monitor answered within 30 s; mon_host is [v2:127.0.0.1:9/0]: is the cluster up");
    }
    let took = started.elapsed();
    assert!(HALF_A_MINUTE.contains(&took.as_secs()), "{took:?}");
}

#[test]
fn a_machine_without_the_library_is_told_what_to_install() {
    let scene = Scene::new();
    let plain = scene.command();
    let library = std::fs::canonicalize("/usr/lib/x86_64-linux-gnu/librados.so.2");
    let Ok(library) = library.as_ref().map(|path| path.to_str().unwrap()) else {
        refused(&list(&scene, Path::new("/etc/ceph/ceph.conf"), &["--store", "rados:archvhost"]), "install librados2");
        return;
    };
    let mut command = Command::new("unshare");
    let hide = format!("mount --bind /dev/null {library} && exec \"$0\" \"$@\"");
    command.args(["--mount", "sh", "-c", &hide]).arg(plain.get_program());
    let ran = Ran::of(command.args(["--store", "rados:archvhost", "list"]));
    refused(&ran, "install librados2");
}

#[test]
fn a_cluster_of_tests_leaves_no_directory() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/ceph");
    let run = |path: &str| {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        let mut command = Command::new(&script);
        let output = command.arg(&directory).env("PATH", path).stdin(Stdio::null()).output().unwrap();
        assert!(!directory.exists(), "{output:?}");
        output
    };
    // Coreutils, and nothing of Ceph.
    let scene = Scene::new();
    ["bash", "dirname", "rm", "env"].iter().for_each(|name| {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), scene.path(name)).unwrap();
    });
    let without_ceph = run(scene.dir.path().to_str().unwrap());
    assert!(String::from_utf8_lossy(&without_ceph.stderr).contains("install ceph-mon"), "{without_ceph:?}");
    if cluster::can_be() {
        // Nobody has an order for it.
        let unwanted = run(&std::env::var("PATH").unwrap());
        assert!(unwanted.status.success() && unwanted.stdout.ends_with(b"ready\n"), "{unwanted:?}");
    }
}
