//! One snapshot, many readers: attached at several sockets, of one daemon and of two, and removed by nobody meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Daemon, Scene};
use std::os::unix::net::UnixStream;

fn snapshotted(scene: &Scene) -> String {
    let store = scene.file_store();
    std::fs::write(scene.path("image"), [7; 4096]).unwrap();
    scene.run(["--store", &store, "import", "web1", scene.path("image").to_str().unwrap()]).text();
    scene.run(["--store", &store, "snapshot", "web1", "web1@1"]).text();
    store
}

fn sockets(daemon: &Daemon<'_>) -> Vec<String> {
    let attachments = daemon.run(["attachments", "--json"]).json();
    let name = |attachment: &serde_json::Value| {
        let path = attachment["socket"].as_str().unwrap();
        path.rsplit('/').next().unwrap().to_owned()
    };
    attachments.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_snapshot_is_attached_read_only_at_several_sockets_of_several_daemons() {
    let scene = Scene::new();
    let store = snapshotted(&scene);
    let (one, two) = (scene.daemon(&store), scene.daemon_at(&store, "other.sock"));
    let attach =
        |daemon: &Daemon<'_>, socket: &str| daemon.run(["attach", "web1@1", "--socket", socket, "--read-only"]);
    for (daemon, socket) in [(&one, "a"), (&one, "b"), (&two, "c")] {
        attach(daemon, socket).text();
    }
    assert_eq!((sockets(&one), sockets(&two)), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
    let _front_ends = ["a", "b", "c"].map(|socket| UnixStream::connect(scene.path(socket)).unwrap());
    attach(&one, "b").failure(4);
    one.run(["attach", "web1@1", "--socket", "d"]).failure(4);
    scene.run(["--store", &store, "remove", "web1@1"]).failure(4);
    scene.run(["--store", &store, "rename", "web1@1", "other"]).failure(4);

    one.run(["detach", "web1@1", "--socket", "a"]).text();
    one.run(["detach", "web1@1", "--socket", "a"]).failure(3);
    assert_eq!(sockets(&one), ["b"]);
    attach(&one, "a").text();
    one.run(["detach", "web1@1"]).text();
    assert!(sockets(&one).is_empty());
    scene.run(["--store", &store, "remove", "web1@1"]).failure(4);
    two.run(["detach", "web1@1"]).text();
    scene.run(["--store", &store, "remove", "web1@1"]).text();
}

#[test]
fn a_disk_has_one_writer_or_many_readers() {
    let scene = Scene::new();
    let store = snapshotted(&scene);
    let (one, two) = (scene.daemon(&store), scene.daemon_at(&store, "other.sock"));
    one.run(["attach", "web1", "--socket", "a", "--read-only"]).text();
    two.run(["attach", "web1", "--socket", "b", "--read-only"]).text();
    one.run(["attach", "web1", "--socket", "c"]).failure(4);
    two.run(["detach", "web1"]).text();
    two.run(["attach", "web1", "--socket", "c"]).failure(4);
    one.run(["detach", "web1"]).text();
    two.run(["attach", "web1", "--socket", "c"]).text();
    one.run(["attach", "web1", "--socket", "a", "--read-only"]).failure(4);
}
