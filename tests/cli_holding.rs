//! Who has a volume: what orchestrators use to say it, and what one holder means for the others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/driver/mod.rs"]
mod driver;
#[path = "program/guest.rs"]
mod guest;
mod program;

use guest::Guest;
use program::{Ran, Scene};

#[test]
fn an_open_volume_is_the_daemons_whether_served_or_not() {
    let scene = Scene::new();
    let store = scene.file_store();
    let daemon = scene.daemon(&store);
    let direct = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    assert_eq!(daemon.run(["open", "web1", "--json"]).json()["name"], "web1");
    daemon.run(["open", "web1"]).text();
    assert_eq!(daemon.run(["status", "--json"]).json()["held"][0]["held_as"], "open");
    assert!(daemon.run(["status"]).text().contains("web1 (open)"));
    assert!(direct(&["snapshot", "web1", "x"]).failure(4).contains("in use by process"));
    // It is attached and detached as ever, and stays ours.
    daemon.run(["attach", "web1", "--socket", "web1.sock", "--queues", "1"]).text();
    Guest::at(&scene.path("web1.sock")).write(0, 7);
    assert!(daemon.run(["close", "web1"]).failure(4).contains("web1.sock"));
    daemon.run(["detach", "web1"]).text();
    assert!(direct(&["remove", "web1"]).failure(4).contains("in use by process"));
    // Verbs that work on open volumes do, the others are refused.
    daemon.run(["snapshot", "web1", "web1@1"]).text();
    daemon.run(["resize", "web1", "128MiB"]).text();
    for arguments in [&["remove", "web1"][..], &["rename", "web1", "x"], &["rollback", "web1", "web1@1"]] {
        assert!(daemon.run(arguments).failure(4).contains("close it first"), "{arguments:?}");
    }
    daemon.run(["close", "web1"]).text();
    assert_eq!(daemon.run(["status", "--json"]).json()["held"], serde_json::json!([]));
    direct(&["remove", "web1"]).text();
}

#[test]
fn a_locked_volume_is_opened_by_nobody() {
    let scene = Scene::new();
    let store = scene.file_store();
    let daemon = scene.daemon(&store);
    let direct = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    daemon.run(["lock", "web1"]).text();
    daemon.run(["lock", "web1"]).text();
    assert!(daemon.run(["attach", "web1", "--socket", "s"]).failure(4).contains("unlock it first"));
    assert!(daemon.run(["open", "web1"]).failure(4).contains("unlock it first"));
    assert!(daemon.run(["unlock", "--force", "web1"]).failure(4).contains("unlock it first"));
    assert!(direct(&["remove", "web1"]).failure(4).contains("in use by process"));
    daemon.run(["unlock", "web1"]).text();
    daemon.run(["attach", "web1", "--socket", "s"]).text();
    assert!(daemon.run(["lock", "web1"]).failure(4).contains("attached"));
}

#[test]
fn what_is_not_held_is_not_given_back() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    assert!(daemon.run(["close", "web1"]).failure(3).contains("web1"));
    assert!(daemon.run(["unlock", "web1"]).failure(3).contains("--force"));
    for verb in ["open", "lock", "close", "unlock"] {
        assert!(daemon.run([verb, "nope"]).failure(3).contains("nope"), "{verb}");
    }
    assert!(daemon.run(["unlock", "--force", "nope"]).failure(3).contains("nope"));
    for arguments in [&["open", "web1"][..], &["close", "web1"], &["lock", "web1"], &["unlock", "web1"]] {
        let ran = scene.run(["--store", "memory:"].iter().chain(arguments));
        assert!(ran.failure(2).contains("--control"), "{arguments:?}");
    }
}

#[test]
fn what_the_daemon_held_is_free_at_its_end() {
    let scene = Scene::new();
    let store = scene.file_store();
    let mut daemon = scene.daemon(&store);
    for name in ["web1", "web2"] {
        daemon.run(["create", name, "--size", "64MiB"]).text();
    }
    daemon.run(["open", "web1"]).text();
    daemon.run(["lock", "web2"]).text();
    daemon.process.stop();
    let direct = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    assert_eq!(direct(&["info", "web1", "--json"]).json()["state"], "closed");
    direct(&["remove", "web1"]).text();
    direct(&["remove", "web2"]).text();
}

#[test]
fn force_says_whom_it_cut_off_and_the_volume_can_be_used_here() {
    let scene = Scene::new();
    let store = scene.file_store();
    let daemon = scene.daemon(&store);
    let direct = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    let nobody = direct(&["unlock", "--force", "web1"]);
    assert!(nobody.text().contains("nobody had it"), "{}", nobody.text());
    daemon.run(["attach", "web1", "--socket", "web1.sock", "--queues", "1"]).text();
    Guest::at(&scene.path("web1.sock")).write(0, 7);
    let forced: Ran = direct(&["unlock", "--force", "web1", "--json"]);
    let forced = forced.json();
    assert_eq!(forced["cut_off"]["holders"][0]["pid"], daemon.process.child.id(), "{forced}");
    assert_eq!((&forced["cut_off"]["held"], &forced["cut_off"]["fenced"]), (&true.into(), &false.into()));
    // What was flushed is there, and the other one's late writes would not show.
    direct(&["export", "web1", "out"]).text();
    assert_eq!(std::fs::read(scene.path("out")).unwrap()[..2], [7, 7]);
}
