//! Snapshots, clones and what else is done with volumes that branch, with the real program: directly on a store and through
//! a daemon, with a guest that writes meanwhile, and with every request that makes no sense.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "program/agent.rs"]
mod agent;
#[path = "support/driver/mod.rs"]
mod driver;
#[path = "program/guest.rs"]
mod guest;
mod program;

use agent::{Stays, agent};
use guest::{Guest, PIECE};
use program::{Daemon, Ran, Scene, both_ways, image};

const MIB: u64 = 1 << 20;

/// The bytes of a volume or snapshot, by way of an image.
fn content(scene: &Scene, run: &dyn Fn(&[&str]) -> Ran, name: &str) -> Vec<u8> {
    run(&["export", name, "content", "--force"]).text();
    std::fs::read(scene.path("content")).unwrap()
}

fn names(run: &dyn Fn(&[&str]) -> Ran) -> Vec<String> {
    let list = run(&["list", "--json"]).json();
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn attached<'a>(daemon: &Daemon<'a>, scene: &Scene, name: &str) -> Guest {
    let socket = format!("{name}.sock");
    daemon.run(["attach", name, "--socket", &socket, "--queues", "1"]).text();
    Guest::at(&scene.path(&socket))
}

#[test]
fn a_snapshot_keeps_what_was_there_and_says_what_it_is() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 3 << 20);
        run(&["import", "web1", "in", "--object-size", "1MiB"]).text();
        let taken = run(&["snapshot", "web1", "web1@1", "--json"]).json();
        assert_eq!(taken["guarantee"], "crash-consistent");
        assert!(taken["pause_seconds"].as_f64().unwrap() < 1.0, "{taken}");
        assert!(taken["freeze_failure"].is_null());
        let volume = &taken["volumes"][0];
        assert_eq!((&volume["name"], &volume["kind"]), (&"web1@1".into(), &"snapshot".into()));
        assert_eq!(volume["parent"]["name"], "web1");
        assert_eq!(run(&["info", "web1@1", "--json"]).json()["kind"], "snapshot");
        assert_eq!(run(&["info", "web1", "--json"]).json()["shared"], true);
        assert!(content(scene, run, "web1@1") == bytes);
        let said = run(&["snapshot", "web1", "web1@2"]);
        assert!(said.text().contains("web1@2 is a snapshot of web1") && said.text().contains("crash-consistent"));
    });
}

#[test]
fn a_clone_begins_as_its_source_and_may_be_larger() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 3 << 20);
        run(&["import", "web1", "in"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        let clone = run(&["clone", "web1@1", "web2", "--size", "16MiB", "--json"]).json();
        assert_eq!((&clone["kind"], &clone["size"]), (&"disk".into(), &(16 * MIB).into()));
        assert_eq!((&clone["parent"]["name"], &clone["pause_seconds"]), (&"web1@1".into(), &0.0.into()));
        let content_of_clone = content(scene, run, "web2");
        assert!(content_of_clone[..bytes.len()] == bytes);
        assert!(content_of_clone[bytes.len()..].iter().all(|byte| *byte == 0));
        run(&["clone", "web1", "web3"]).text();
        assert!(content(scene, run, "web3") == bytes);
        let table = run(&["list"]);
        assert!(
            table.text().lines().any(|line| line.starts_with("web2") && line.contains("web1@1")),
            "{}",
            table.text()
        );
    });
}

#[test]
fn a_group_is_of_one_instant_or_not_at_all() {
    both_ways(|_, run| {
        for name in ["db", "log"] {
            run(&["create", name, "--size", "1GiB"]).text();
        }
        let taken = run(&["snapshot", "db", "db@1", "--also", "log", "log@1", "--json"]).json();
        let taken: Vec<_> = taken["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].clone()).collect();
        assert_eq!(taken, ["db@1", "log@1"]);
        let before = names(run);
        for (also, code) in [(["nope", "x"], 3), (["log", "log@1"], 4), (["db", "db@3"], 2), (["log", "db@2"], 2)] {
            let ran = run(&["snapshot", "db", "db@2", "--also", also[0], also[1]]);
            assert!(ran.failure(code).contains(also[0]) || ran.failure(code).contains(also[1]), "{}", ran.stderr);
        }
        assert_eq!(names(run), before);
    });
}

#[test]
fn what_cannot_be_branched_is_refused_by_name() {
    both_ways(|_, run| {
        run(&["create", "web1", "--size", "1GiB"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        let before = names(run);
        for (arguments, code, named) in [
            (&["snapshot", "nope", "x"][..], 3, "nope"),
            (&["snapshot", "web1", "web1@1"], 4, "web1@1"),
            (&["snapshot", "web1", "web1"], 4, "web1"),
            (&["snapshot", "web1@1", "x"], 2, "is a snapshot"),
            (&["clone", "nope", "x"], 3, "nope"),
            (&["clone", "web1@1", "web1"], 4, "web1"),
            (&["clone", "web1", "web1@1"], 4, "web1@1"),
            (&["clone", "web1@1", "x", "--size", "512MiB"], 2, "512MiB"),
            (&["clone", "web1", "x", "--size", "512MiB"], 2, "512MiB"),
            (&["tree", "nope"], 3, "nope"),
            (&["diff", "nope", "web1@1"], 3, "nope"),
            (&["diff", "web1@1", "nope"], 3, "nope"),
        ] {
            let ran = run(arguments);
            assert!(ran.failure(code).contains(named), "{arguments:?}: {}", ran.stderr);
        }
        assert_eq!(names(run), before);
    });
}

#[test]
fn words_that_are_missing_or_make_no_sense_are_refused() {
    let scene = Scene::new();
    for arguments in [
        &["snapshot"][..],
        &["snapshot", "web1"],
        &["snapshot", "web1", "../x"],
        &["snapshot", "web1", "a", "b"],
        &["snapshot", "web1", "a", "--also", "web2"],
        &["snapshot", "web1", "a", "--or-crash-consistent"],
        &["clone", "web1"],
        &["clone", "web1", "web2", "--size", "0"],
        &["rollback", "web1"],
        &["resize", "web1"],
        &["resize", "web1", "much"],
        &["resize", "web1", "513"],
        &["diff", "web1"],
        &["flatten"],
        &["tree", "a", "b"],
        &["gc", "web1"],
        &["check", "../x"],
    ] {
        let ran = scene.run(["--store", "memory:"].iter().chain(arguments));
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn a_running_guests_writes_are_in_the_snapshots_that_follow_and_in_no_earlier_one() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    let run = |arguments: &[&str]| daemon.run(arguments);
    run(&["create", "web1", "--size", "64MiB", "--object-size", "1MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    guest.write(0, 1);
    run(&["snapshot", "web1", "web1@1"]).text();
    guest.write(0, 2);
    guest.write(10 * MIB, 2);
    run(&["snapshot", "web1", "web1@2"]).text();
    guest.write(0, 3);
    run(&["clone", "web1", "web2"]).text();
    guest.write(0, 4);
    assert_eq!(guest.read(0), 4);
    let at = |name: &str, offset: u64| content(&scene, &run, name)[usize::try_from(offset).unwrap()];
    assert_eq!((at("web1@1", 0), at("web1@1", 10 * MIB)), (1, 0));
    assert_eq!((at("web1@2", 0), at("web1@2", 10 * MIB)), (2, 2));
    assert_eq!((at("web2", 0), at("web2", 10 * MIB)), (3, 2));
}

#[test]
fn a_diff_names_what_was_written_in_between() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB", "--object-size", "1MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    guest.write(0, 1);
    daemon.run(["snapshot", "web1", "web1@1"]).text();
    guest.write(20 * MIB, 2);
    daemon.run(["snapshot", "web1", "web1@2"]).text();
    let ranges = |from: &str, to: &str| -> Vec<(u64, u64)> {
        let diff = daemon.run(["diff", from, to, "--json"]);
        let lines = diff.text().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| (line["offset"].as_u64().unwrap(), line["length"].as_u64().unwrap())).collect()
    };
    let found = ranges("web1@1", "web1@2");
    assert_eq!(found.len(), 1, "{found:?}");
    let (offset, length) = found[0];
    assert!(offset <= 20 * MIB && offset + length >= 20 * MIB + PIECE as u64 && length <= MIB, "{found:?}");
    assert_eq!(ranges("web1@1", "web1@1"), []);
    let table = daemon.run(["diff", "web1@1", "web1@2"]);
    assert!(table.text().contains("OFFSET") && table.text().contains("1 range,"), "{}", table.text());
    // A disk that is written has no content of one moment.
    assert!(daemon.run(["diff", "web1@1", "web1"]).failure(4).contains("web1"));
}

#[test]
fn a_tree_shows_who_descends_from_whom() {
    both_ways(|_, run| {
        run(&["create", "web1", "--size", "1GiB"]).text();
        run(&["create", "other", "--size", "1GiB"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        run(&["clone", "web1@1", "web2"]).text();
        let families = run(&["tree", "--json"]).json();
        assert_eq!(families.as_array().unwrap().len(), 2);
        let family = run(&["tree", "web2", "--json"]).json();
        assert_eq!(family[0]["volume"]["name"], "web1");
        assert_eq!(family[0]["children"][0]["volume"]["name"], "web1@1");
        assert_eq!(family[0]["children"][0]["children"][0]["volume"]["name"], "web2");
        let drawn = run(&["tree", "web2"]);
        assert!(drawn.text().contains("└── web1@1 (snapshot, 1GiB)"), "{}", drawn.text());
        assert!(!drawn.text().contains("other"));
    });
}

#[test]
fn a_snapshot_is_attached_for_reading_only() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    guest.write(0, 7);
    daemon.run(["snapshot", "web1", "web1@1"]).text();
    guest.write(0, 8);
    assert!(daemon.run(["attach", "web1@1", "--socket", "s"]).failure(2).contains("snapshot"));
    daemon.run(["attach", "web1@1", "--socket", "s", "--queues", "1", "--read-only"]).text();
    assert_eq!(Guest::at(&scene.path("s")).read(0), 7);
    // It can be cloned and exported meanwhile, but not removed.
    daemon.run(["clone", "web1@1", "web2"]).text();
    daemon.run(["export", "web1@1", "out"]).text();
    assert!(daemon.run(["remove", "web1@1"]).failure(4).contains("web1@1"));
}

#[test]
fn a_renamed_volume_has_one_name_and_its_old_one_is_free() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 3 << 20);
        let id = run(&["import", "web1", "in", "--json"]).json()["id"].clone();
        run(&["snapshot", "web1", "web1@1"]).text();
        let renamed = run(&["rename", "web1", "www", "--json"]).json();
        assert_eq!((&renamed["name"], &renamed["id"]), (&"www".into(), &id));
        assert!(run(&["info", "web1"]).failure(3).contains("web1"));
        run(&["create", "web1", "--size", "1GiB"]).text();
        assert!(content(scene, run, "www") == bytes);
        assert_eq!(run(&["info", "web1@1", "--json"]).json()["parent"]["name"], "www");
        run(&["rename", "web1@1", "www@1"]).text();
        assert!(content(scene, run, "www@1") == bytes);
        assert!(run(&["rename", "www", "web1"]).failure(4).contains("web1"));
        assert!(run(&["rename", "www", "www"]).failure(4).contains("www"));
        assert!(run(&["rename", "nope", "x"]).failure(3).contains("nope"));
        assert_eq!(names(run), ["web1", "www", "www@1"]);
    });
}

#[test]
fn what_is_attached_is_not_renamed_or_rolled_back() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    daemon.run(["snapshot", "web1", "web1@1"]).text();
    let _guest = attached(&daemon, &scene, "web1");
    assert!(daemon.run(["rename", "web1", "www"]).failure(4).contains("web1.sock"));
    assert!(daemon.run(["rollback", "web1", "web1@1"]).failure(4).contains("web1.sock"));
    assert_eq!(names(&|arguments| daemon.run(arguments)), ["web1", "web1@1"]);
}
#[test]
fn a_guest_that_cannot_be_frozen_has_no_snapshot_unless_that_was_allowed() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    let wanted = ["snapshot", "web1", "web1@1", "--freeze-via", "missing.agent"];
    let ran = daemon.run(wanted);
    let failure = ran.failure(1);
    assert!(failure.contains("missing.agent") && failure.contains("--or-crash-consistent"), "{failure}");
    assert!(daemon.run(["info", "web1@1"]).failure(3).contains("web1@1"));
    let taken = daemon.run(wanted.iter().chain(&["--or-crash-consistent", "--json"]));
    assert!(taken.stderr.contains("not frozen"), "{}", taken.stderr);
    assert_eq!(taken.json()["guarantee"], "crash-consistent");
    assert!(taken.json()["freeze_failure"].as_str().unwrap().contains("missing.agent"));
}

#[test]
fn a_snapshot_of_a_frozen_guest_says_so_and_the_guest_is_thawed() {
    both_ways(|scene, run| {
        run(&["create", "web1", "--size", "64MiB"]).text();
        let heard = agent(&scene.path("agent"), Stays::Frozen);
        let taken = run(&["snapshot", "web1", "web1@1", "--freeze-via", "agent", "--json"]).json();
        assert_eq!((&taken["guarantee"], taken["freeze_failure"].is_null()), (&"frozen".into(), true), "{taken}");
        assert_eq!(*heard.lock().unwrap(), ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]);
        // Also when there is no snapshot in the end.
        heard.lock().unwrap().clear();
        run(&["snapshot", "web1", "web1@1", "--freeze-via", "agent"]).failure(4);
        assert_eq!(*heard.lock().unwrap(), ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]);
    });
}

#[test]
fn a_guest_that_thaws_too_early_has_no_snapshot_unless_that_was_allowed() {
    both_ways(|scene, run| {
        run(&["create", "web1", "--size", "64MiB"]).text();
        agent(&scene.path("agent"), Stays::Thawed);
        let wanted = ["snapshot", "web1", "web1@1", "--freeze-via", "agent"];
        assert!(run(&wanted).failure(1).contains("removed again"));
        assert_eq!(names(run), ["web1"]);
        let taken = run(&[&wanted[..], &["--or-crash-consistent", "--json"]].concat());
        assert_eq!(taken.json()["guarantee"], "crash-consistent");
        assert!(taken.json()["freeze_failure"].is_string() && taken.stderr.contains("not frozen"));
    });
}

#[test]
fn a_volume_that_is_rolled_back_is_as_its_snapshot_and_can_go_forth_again() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    let run = |arguments: &[&str]| daemon.run(arguments);
    run(&["create", "web1", "--size", "64MiB", "--object-size", "1MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    guest.write(0, 1);
    run(&["snapshot", "web1", "web1@1"]).text();
    guest.write(0, 2);
    guest.write(5 * MIB, 2);
    run(&["snapshot", "web1", "web1@2"]).text();
    drop(guest);
    run(&["detach", "web1"]).text();
    assert_eq!(run(&["rollback", "web1", "web1@1", "--json"]).json()["name"], "web1");
    let at = |name: &str, offset: u64| content(&scene, &run, name)[usize::try_from(offset).unwrap()];
    assert_eq!((at("web1", 0), at("web1", 5 * MIB)), (1, 0));
    assert_eq!((at("web1@2", 0), at("web1@2", 5 * MIB)), (2, 2));
    assert!(run(&["rollback", "web1", "web1@2"]).text().contains("web1@2"));
    assert_eq!((at("web1", 0), at("web1", 5 * MIB)), (2, 2));
}

#[test]
fn what_cannot_be_rolled_back_is_refused_by_name() {
    both_ways(|_, run| {
        for name in ["web1", "other"] {
            run(&["create", name, "--size", "1GiB"]).text();
            run(&["snapshot", name, &format!("{name}@1")]).text();
        }
        run(&["clone", "web1@1", "web2"]).text();
        run(&["rollback", "web2", "web1@1"]).text();
        for (arguments, code, named) in [
            (["rollback", "nope", "web1@1"], 3, "nope"),
            (["rollback", "web1", "nope"], 3, "nope"),
            (["rollback", "web1", "other@1"], 2, "other@1"),
            (["rollback", "web1", "web1"], 2, "web1"),
            (["rollback", "web1", "web2"], 2, "web2"),
            (["rollback", "web1@1", "web1@1"], 2, "web1@1"),
        ] {
            let ran = run(&arguments);
            assert!(ran.failure(code).contains(named), "{arguments:?}: {}", ran.stderr);
        }
    });
}

#[test]
fn a_volume_grows_and_shrinks_only_with_leave() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 8 << 20);
        run(&["import", "web1", "in", "--object-size", "1MiB"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        assert_eq!(run(&["resize", "web1", "16MiB", "--json"]).json()["size"], 16 * MIB);
        assert!(run(&["resize", "web1", "4MiB"]).failure(2).contains("--shrink"));
        assert_eq!(run(&["info", "web1", "--json"]).json()["size"], 16 * MIB);
        let small = 4 * MIB + 512;
        run(&["resize", "web1", &small.to_string(), "--shrink"]).text();
        run(&["resize", "web1", "8MiB"]).text();
        let after = content(scene, run, "web1");
        let kept = usize::try_from(small).unwrap();
        assert!(after[..kept] == bytes[..kept] && after[kept..].iter().all(|byte| *byte == 0));
        assert!(content(scene, run, "web1@1") == bytes);
        assert!(run(&["resize", "web1@1", "16MiB"]).failure(2).contains("web1@1"));
        assert!(run(&["resize", "nope", "16MiB"]).failure(3).contains("nope"));
    });
}

#[test]
fn a_running_guest_sees_the_new_size() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    guest.write(0, 1);
    daemon.run(["resize", "web1", "128MiB"]).text();
    assert_eq!(guest.capacity(), 128 * MIB);
    guest.write(100 * MIB, 2);
    assert_eq!(daemon.run(["attachments", "--json"]).json()[0]["size"], 128 * MIB);
    daemon.run(["resize", "web1", "32MiB", "--shrink"]).text();
    assert_eq!(guest.capacity(), 32 * MIB);
    assert_eq!(guest.read(0), 1);
}

#[test]
fn limits_are_shown_changed_and_taken_away() {
    both_ways(|_, run| {
        run(&["create", "web1", "--size", "1GiB"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        assert_eq!(run(&["limit", "web1"]).text(), "web1: none\n");
        run(&["limit", "web1", "--iops", "500", "--iops-burst", "2000"]).text();
        let limits = run(&["limit", "web1", "--bytes", "100MiB", "--json"]).json()["limits"].clone();
        let expected = serde_json::json!({ "iops": 500, "iops_burst": 2000, "bytes": 100 << 20, "bytes_burst": 0 });
        assert_eq!(limits, expected);
        assert_eq!(run(&["info", "web1", "--json"]).json()["limits"], expected);
        assert!(run(&["info", "web1"]).text().contains("500 requests/s"));
        run(&["limit", "web1", "--bytes", "0"]).text();
        assert!(run(&["limit", "web1", "--bytes-burst", "1MiB"]).failure(2).contains("burst"));
        assert_eq!(run(&["limit", "web1", "--none"]).text(), "web1: none\n");
        assert!(run(&["limit", "web1@1", "--iops", "5"]).failure(2).contains("web1@1"));
        assert!(run(&["limit", "nope", "--iops", "5"]).failure(3).contains("nope"));
        assert!(run(&["limit", "nope"]).failure(3).contains("nope"));
        assert_eq!(run(&["limit", "web1", "--none", "--iops", "5"]).code, 2);
    });
}

#[test]
fn a_limit_holds_at_once_for_a_running_guest() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    daemon.run(["create", "web1", "--size", "64MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    daemon.run(["limit", "web1", "--iops", "10", "--iops-burst", "1"]).text();
    let start = std::time::Instant::now();
    (0..5).for_each(|_| assert_eq!(guest.read(0), 0));
    // The first may come at once, the others each a tenth of a second later.
    let limited = start.elapsed();
    assert!(limited >= std::time::Duration::from_millis(350), "{limited:?}");
    assert_eq!(daemon.run(["info", "web1", "--json"]).json()["limits"]["iops"], 10);
}

#[test]
fn a_backup_goes_on_with_what_changed_since() {
    let scene = Scene::new();
    let daemon = scene.daemon(&scene.file_store());
    let run = |arguments: &[&str]| daemon.run(arguments);
    std::fs::create_dir(scene.path("backup")).unwrap();
    let backup = format!("file:{}", scene.path("backup").display());
    let there = |arguments: &[&str]| scene.run(["--store", backup.as_str()].iter().chain(arguments));
    run(&["create", "web1", "--size", "64MiB", "--object-size", "1MiB"]).text();
    let mut guest = attached(&daemon, &scene, "web1");
    (0..8).for_each(|piece| guest.write(piece * MIB, 1));
    run(&["snapshot", "web1", "web1@1"]).text();
    guest.write(3 * MIB, 2);
    run(&["snapshot", "web1", "web1@2"]).text();
    guest.write(4 * MIB, 3);
    run(&["export", "web1@1", "full", "--stream"]).text();
    let step = run(&["export", "web1@2", "step", "--from", "web1@1", "--json"]).json();
    assert!(step["bytes_written"].as_u64().unwrap() <= MIB, "{step}");
    assert!(std::fs::metadata(scene.path("step")).unwrap().len() < 2 * MIB);
    there(&["import", "copy", "full"]).text();
    assert!(content(&scene, &there, "copy") == content(&scene, &run, "web1@1"));
    there(&["import", "copy", "step"]).text();
    assert!(content(&scene, &there, "copy") == content(&scene, &run, "web1@2"));
    // It does not fit twice, nor anywhere else, and is an image to who says so.
    let before = content(&scene, &there, "copy");
    assert!(there(&["import", "copy", "step"]).code != 0);
    assert!(content(&scene, &there, "copy") == before);
    assert!(there(&["import", "other", "step"]).failure(3).contains("other"));
    there(&["import", "image", "step", "--format", "raw"]).text();
}

#[test]
fn streams_that_make_no_sense_are_refused() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 3 << 20);
        run(&["import", "web1", "in"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        for (arguments, code, named) in [
            (&["export", "web1", "out", "--stream"][..], 2, "web1"),
            (&["export", "nope", "out", "--stream"], 3, "nope"),
            (&["export", "web1@1", "out", "--from", "nope"], 3, "nope"),
            (&["export", "web1@1", "out", "--from", "web1"], 2, "web1"),
            (&["export", "web1@1", "out", "--resume", "nonsense"], 2, "nonsense"),
        ] {
            let ran = run(arguments);
            assert!(ran.failure(code).contains(named), "{arguments:?}: {}", ran.stderr);
            assert!(!scene.path("out").exists(), "{arguments:?}");
        }
        run(&["export", "web1@1", "whole", "--stream"]).text();
        let mut stream = std::fs::read(scene.path("whole")).unwrap();
        let at = stream.len() / 2;
        stream[at] ^= 1;
        std::fs::write(scene.path("broken"), &stream).unwrap();
        assert!(run(&["import", "copy", "broken"]).failure(6).contains("copy"));
        assert!(run(&["info", "copy"]).failure(3).contains("copy"));
        run(&["import", "copy2", "whole"]).text();
        assert!(content(scene, run, "copy2") == bytes);
    });
}

#[test]
fn a_flattened_clone_needs_its_parent_no_more() {
    both_ways(|scene, run| {
        let bytes = image(&scene.path("in"), 8 * MIB, 3 << 20);
        run(&["import", "web1", "in", "--object-size", "1MiB"]).text();
        run(&["snapshot", "web1", "web1@1"]).text();
        run(&["clone", "web1@1", "web2"]).text();
        let flat = run(&["flatten", "web2", "--json"]).json();
        assert_eq!((&flat["name"], &flat["finished"]), (&"web2".into(), &true.into()));
        assert!(flat["bytes_copied"].as_u64().unwrap() >= 3 * MIB, "{flat}");
        assert!(run(&["info", "web2", "--json"]).json()["parent"].is_null());
        assert!(content(scene, run, "web2") == bytes);
        assert!(run(&["flatten", "web1@1"]).failure(2).contains("web1@1"));
        assert!(run(&["flatten", "nope"]).failure(3).contains("nope"));
    });
}

#[test]
fn a_refusal_names_the_volume_and_what_to_do() {
    let scene = Scene::new();
    let store = scene.file_store();
    let run = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    run(&["create", "web1", "--size", "1GiB"]).text();
    run(&["create", "db1", "--size", "1GiB"]).text();
    run(&["snapshot", "web1", "web1@1"]).text();
    let cases: [(&[&str], i32, &[&str]); 7] = [
        (&["snapshot", "web1", "a", "--also", "web1", "b"], 2, &["volume web1 is named twice", "leave out a or b"]),
        (&["snapshot", "web1", "a", "--also", "db1", "a"], 2, &["web1 and db1", "called a"]),
        (&["snapshot", "web1@1", "a"], 2, &["web1@1 is a snapshot", "archvhost clone web1@1"]),
        (&["resize", "web1@1", "2GiB"], 2, &["web1@1 is a snapshot", "archvhost clone web1@1"]),
        (&["rollback", "web1@1", "web1"], 2, &["volume first, then the snapshot"]),
        (&["rollback", "web1", "db1"], 2, &["db1 is not a snapshot", "archvhost tree web1"]),
        (&["rollback", "db1", "web1@1"], 2, &["archvhost clone web1@1"]),
    ];
    for (arguments, code, says) in cases {
        let ran = run(arguments);
        let text = ran.failure(code);
        assert!(says.iter().all(|part| text.contains(part)), "{arguments:?}: {text}");
    }
}
