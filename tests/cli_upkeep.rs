//! Removing in any order and collecting what is left, with the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Ran, Scene, both_ways, image};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const MIB: u64 = 1 << 20;

/// Bytes of all files below a directory.
fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

fn family(scene: &Scene, run: &dyn Fn(&[&str]) -> Ran) -> Vec<u8> {
    let bytes = image(&scene.path("in"), 16 * MIB, 8 << 20);
    run(&["import", "web1", "in", "--object-size", "1MiB"]).text();
    run(&["snapshot", "web1", "web1@1"]).text();
    run(&["clone", "web1@1", "web2"]).text();
    bytes
}

#[test]
fn what_descends_from_a_removed_volume_keeps_what_it_needs() {
    both_ways(|scene, run| {
        let bytes = family(scene, run);
        run(&["remove", "web1"]).text();
        run(&["remove", "web1@1"]).text();
        run(&["gc"]).text();
        run(&["export", "web2", "out"]).text();
        assert!(std::fs::read(scene.path("out")).unwrap() == bytes);
        let info = run(&["info", "web2", "--json"]).json();
        assert!(info["parent"].is_null() || info["parent"]["name"].is_null(), "{info}");
        assert!(run(&["tree", "web2"]).text().contains("web2 (disk"));
    });
}

#[test]
fn the_last_one_to_go_gives_the_space_back() {
    both_ways(|scene, run| {
        family(scene, run);
        for name in ["web1@1", "web2", "web1"] {
            run(&["remove", name]).text();
        }
        let before = bytes_in(&scene.path("store/data"));
        let dry = run(&["gc", "--dry-run", "--json"]).json();
        assert!(dry["dry_run"] == true && dry["bytes_removed"].as_u64().unwrap() >= 8 * MIB, "{dry}");
        assert_eq!(bytes_in(&scene.path("store/data")), before);
        let real = run(&["gc", "--json"]).json();
        assert!(real["finished"] == true && real["bytes_removed"].as_u64().unwrap() >= 8 * MIB, "{real}");
        assert!(bytes_in(&scene.path("store")) < MIB);
        assert!(run(&["gc"]).text().contains("freed 0B in 0 objects"));
        assert_eq!(run(&["list", "--json"]).json(), serde_json::json!([]));
    });
}

#[test]
fn the_daemon_collects_by_itself() {
    let scene = Scene::new();
    let store = scene.file_store();
    let run = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    family(&scene, &run);
    for name in ["web1@1", "web2", "web1"] {
        run(&["remove", name]).text();
    }
    let mut command = scene.command();
    command.args(["--store", &store, "--control", "c.sock", "serve", "--gc-interval", "1s", "--gc-memory", "1MiB"]);
    let mut process = scene.start(command);
    program::wait_until(|| bytes_in(&scene.path("store")) < MIB);
    process.stop();
    assert!(process.log().contains("collected"), "it is logged");
}

#[test]
fn a_killed_import_is_collected() {
    let scene = Scene::new();
    let store = scene.file_store();
    let run = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    let names = || run(&["list", "--json"]).json().as_array().unwrap().len();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = scene.command();
    command.args(["--store", &store, "import", "web1", "-", "--size", "1GiB"]).stdin(reader).stderr(Stdio::null());
    let mut process = program::Process { child: command.spawn().unwrap() };
    drop(command);
    // When so much is taken, the import is well under way.
    writer.write_all(&vec![7; 12 << 20]).unwrap();
    assert!(run(&["gc"]).text().contains("freed 0B"), "its importer lives");
    process.signal(libc::SIGKILL);
    process.wait();
    assert_eq!(names(), 1, "it says what it is");
    assert!(bytes_in(&scene.path("store/data")) >= 4 * MIB);
    run(&["gc"]).text();
    assert_eq!(names(), 0);
    assert!(bytes_in(&scene.path("store")) < MIB);
}

#[test]
fn intervals_and_memory_that_cannot_be_are_refused() {
    let scene = Scene::new();
    for (option, value) in [("--gc-interval", "often"), ("--gc-interval", "0s"), ("--gc-memory", "1KiB")] {
        let ran = scene.run(["--store", "memory:", "--control", "c.sock", "serve", option, value]);
        assert_eq!(ran.code, 2, "{option} {value}: {}", ran.stderr);
    }
    std::fs::write(scene.path("archvhost.toml"), "store = \"memory:\"\ngc_interval = \"6 fortnights\"\n").unwrap();
    assert!(scene.run(["serve", "--config", "archvhost.toml"]).failure(2).contains("line 2"));
}

#[test]
fn a_missing_object_is_found_in_every_volume_that_needs_it() {
    let scene = Scene::new();
    let store = scene.file_store();
    let run = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    family(&scene, &run);
    assert!(run(&["check"]).text().contains("nothing is wrong"));
    assert!(run(&["check", "nope"]).failure(3).contains("nope"));
    remove_an_object(&scene);
    let ran = run(&["check", "--json"]);
    assert!(ran.failure(6).contains("damage"), "{}", ran.stderr);
    let view: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let findings = view["findings"].as_array().unwrap();
    let mut damaged: Vec<_> = findings.iter().map(|finding| finding["volume"].as_str().unwrap()).collect();
    damaged.sort_unstable();
    assert_eq!(damaged, ["web1", "web1@1", "web2"]);
    // What is lost is not made up.
    assert!(run(&["check", "--repair"]).failure(6).contains("cannot be repaired"));
}

#[test]
fn what_another_process_has_is_named_and_the_others_are_checked() {
    let scene = Scene::new();
    let store = scene.file_store();
    let run = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    family(&scene, &run);
    let daemon = scene.daemon(&store);
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    let ran = run(&["check"]);
    assert!(ran.failure(4).contains("1 volume not checked"), "{}", ran.stderr);
    let text = String::from_utf8(ran.stdout).unwrap();
    let by = format!("in use by process {} on host", daemon.process.child.id());
    assert!(text.contains(&by) && text.contains(", not checked") && text.contains("checked 2 volumes"), "{text}");
    let view: serde_json::Value = serde_json::from_slice(&run(&["check", "--json"]).stdout).unwrap();
    assert_eq!(view["unchecked"][0]["volume"], "web1", "{view}");
    assert!(daemon.run(["check"]).text().contains("checked 3 volumes"), "its daemon checks it");
    // Nor does it hide what is wrong with others.
    remove_an_object(&scene);
    assert!(run(&["check"]).failure(6).contains("damage"));
}

#[test]
fn a_daemon_misses_an_object_that_was_deleted_while_it_had_it_open() {
    let scene = Scene::new();
    let store = scene.file_store();
    let daemon = scene.daemon(&store);
    family(&scene, &|arguments| daemon.run(arguments));
    // Reads all, and so opens every file.
    daemon.run(["export", "web2", "out"]).text();
    assert!(daemon.run(["check"]).text().contains("nothing is wrong"));
    remove_an_object(&scene);
    let ran = daemon.run(["check"]);
    assert!(ran.failure(6).contains("damage"), "{}", ran.stderr);
    assert!(String::from_utf8(ran.stdout).unwrap().contains("is missing"));
}

fn remove_an_object(scene: &Scene) {
    let below = |dir: std::path::PathBuf| std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(below(below(below(scene.path("store/data"))))).unwrap();
}
