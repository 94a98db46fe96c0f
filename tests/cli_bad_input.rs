//! Whatever is typed wrong gets one line that names it, an exit code that tells its kind, and harms nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Ran, Scene};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

#[test]
fn names_that_are_no_names_are_refused() {
    let scene = Scene::new();
    let long = "x".repeat(300);
    for name in ["a/b", "..", ".", "", "../../etc/passwd", "a b", "a\nb", "ü", &long] {
        for verb in [
            &["create", "--size", "1GiB"][..],
            &["info"],
            &["remove"],
            &["attach", "--socket", "s"],
            &["export", "out"],
        ] {
            let arguments = [&["--store", "memory:", verb[0], name], &verb[1..]].concat();
            let ran = scene.run(&arguments);
            assert_eq!(ran.code, 2, "{arguments:?}");
            assert!(ran.stderr.contains("is not a volume name"), "{}", ran.stderr);
        }
    }
}

#[test]
fn arguments_that_are_not_text_are_refused_by_name() {
    let scene = Scene::new();
    let broken = OsStr::from_bytes(b"web\xff1");
    let verb = |words: &[&str]| {
        let mut command = scene.command();
        command.args(["--store", "memory:"]).args(words);
        command
    };
    for (mut command, argument) in [
        (verb(&["info"]), "<NAME>"),
        (verb(&["create", "web1", "--size"]), "--size"),
        (verb(&["list", "--store"]), "--store"),
    ] {
        let ran = Ran::of(command.arg(broken));
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains("UTF-8") && ran.stderr.contains(argument), "{}", ran.stderr);
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let scene = Scene::new();
    for size in ["0", "511", "513", "1.5GiB", "-1", "many", "20XiB", "16EiB", "8EiB", ""] {
        let ran = scene.run(["--store", "memory:", "create", "web1", &format!("--size={size}")]);
        assert_eq!(ran.code, 2, "{size}");
        assert!(ran.stderr.contains("--size") && ran.stderr.contains("size"), "{}", ran.stderr);
    }
    for size in ["0", "4095", "32KiB", "3MiB", "32MiB"] {
        let ran = scene.run(["--store", "memory:", "create", "web1", "--size", "1GiB", "--object-size", size]);
        assert_eq!(ran.code, 2, "{size}");
        assert!(ran.stderr.contains("--object-size"), "{}", ran.stderr);
    }
    assert!(scene.run(["--store", "memory:", "create", "web1"]).failure(2).contains("--size"));
}

#[test]
fn stores_that_are_not_there_are_named() {
    let scene = Scene::new();
    std::fs::write(scene.path("file"), "precious").unwrap();
    let missing = format!("file:{}", scene.path("missing").display());
    let file = format!("file:{}", scene.path("file").display());
    for store in [missing.as_str(), &file, "file:", "rados:pool", "nonsense", "null:much", "memory:x"] {
        for verb in [&["list"][..], &["info", "web1"], &["remove", "web1"], &["export", "web1", "out"]] {
            let ran = scene.run(["--store", store].iter().chain(verb));
            let line = ran.failure(5);
            assert!(line.contains(store.trim_start_matches("file:")), "{line}");
        }
    }
    assert!(!scene.path("missing").exists() && !scene.path("out").exists());
    let far = format!("file:{}", scene.path("missing/deeper").display());
    assert!(scene.run(["--store", &far, "create", "web1", "--size", "1GiB"]).failure(5).contains("missing/deeper"));
    assert_eq!(std::fs::read_to_string(scene.path("file")).unwrap(), "precious");
}

/// Root may write everywhere, so the program runs as nobody where the tests run as root.
#[test]
fn a_store_that_may_not_be_written_is_named() {
    use std::os::unix::process::CommandExt;
    let scene = Scene::new();
    let store = scene.file_store();
    let dir = scene.path("store");
    std::fs::set_permissions(scene.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = scene.command();
    if rustix::process::geteuid().is_root() {
        if !program_is_reachable_for_others() {
            eprintln!("skipped: the program lies in a directory that other users cannot enter");
            return;
        }
        command.uid(65534).gid(65534);
    }
    let ran = Ran::of(command.args(["--store", &store, "create", "web1", "--size", "1GiB"]));
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(ran.failure(5).contains(dir.to_str().unwrap()) || ran.stderr.contains("web1"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

fn program_is_reachable_for_others() -> bool {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_archvhost"));
    program
        .ancestors()
        .skip(1)
        .all(|dir| std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

#[test]
fn commands_that_lack_something_say_what() {
    let scene = Scene::new();
    for (arguments, missing) in [
        (&["list"][..], "--store"),
        (&["--store", "memory:", "attach", "web1", "--socket", "s"], "--control"),
        (&["--store", "memory:", "status"], "--control"),
        (&["--store", "memory:", "serve"], "--control"),
        (&["serve"], "--store"),
        (&["--store", "memory:", "serve", "--volume", "web1"], "--socket-path"),
    ] {
        assert!(scene.run(arguments).failure(2).contains(missing), "{arguments:?}");
    }
    for arguments in [&["attach", "web1"][..], &["frobnicate"], &[], &["serve", "--queues", "2"]] {
        assert_eq!(scene.run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let scene = Scene::new();
    let ran = scene.run(["--store", "memory:", "info", "web1", "--json"]);
    let failure: serde_json::Value = serde_json::from_str(ran.failure(3)).unwrap();
    assert_eq!(failure["error"]["kind"].as_str(), Some("not-found"));
    assert!(failure["error"]["message"].as_str().unwrap().contains("web1"));
}

#[test]
fn queues_and_sockets_that_cannot_be_are_refused() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    for queues in ["0", "65", "65535"] {
        let ran = daemon.run(["attach", "web1", "--socket", "s", "--queues", queues]);
        assert!(ran.failure(2).contains("queues"), "{queues}");
    }
    let ran = daemon.run(["attach", "web1", "--socket", "s", "--request-timeout", "86401"]);
    assert!(ran.failure(2).contains("86401 is neither"));
    let long = "x".repeat(120);
    std::fs::write(scene.path("file"), "precious").unwrap();
    assert!(daemon.run(["attach", "web1", "--socket", &long]).failure(2).contains("longer"));
    assert!(daemon.run(["attach", "web1", "--socket", "missing/s"]).failure(1).contains("missing/s"));
    assert!(daemon.run(["attach", "web1", "--socket", "file"]).failure(1).contains("not a socket"));
    assert_eq!(std::fs::read_to_string(scene.path("file")).unwrap(), "precious");
    assert!(daemon.run(["attach", "nope", "--socket", "s"]).failure(3).contains("nope"));
    assert!(!scene.path("s").exists());
    assert_eq!(daemon.run(["attachments", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn a_time_out_is_a_number_of_seconds_up_to_a_day() {
    let scene = Scene::new();
    let store = scene.path("store").display().to_string();
    let serve = |timeout: &str| {
        let store = format!("file:{store}");
        let socket = ["--socket-path", "s", "--volume", "web1"];
        let arguments = ["--store", &store, "serve", "--request-timeout", timeout];
        scene.run([&arguments[..], &socket[..]].concat())
    };
    assert!(serve("86401").failure(2).contains("at most 86400 seconds, or for ever (0), and 86401 is neither"));
    for timeout in ["soon", "1.5", "", "99999999999999999999"] {
        let ran = serve(timeout);
        assert!(ran.code == 2 && ran.stderr.contains("--request-timeout <SECONDS>"), "{timeout}: {}", ran.stderr);
    }
    assert!(!scene.path("store").exists(), "nothing was begun");
}

#[test]
fn configuration_errors_name_the_file_and_the_line() {
    let scene = Scene::new();
    let cases = [
        ("store = \"memory:\"\nstoer = 1\n", "line 2"),
        ("poll_us = \"fast\"\n", "line 1"),
        ("request_timeout = -1\n", "line 1"),
        ("request_timeout = 100000\n", "line 1"),
        ("\n\ncache = \"sometimes\"\n", "line 3"),
        ("[[attach]]\nvolume = \"../x\"\nsocket = \"/s\"\n", "line 2"),
        ("map_cache = 1e9\n", "line 1"),
        ("store = ", "line 1"),
    ];
    for (text, line) in cases {
        std::fs::write(scene.path("archvhost.toml"), text).unwrap();
        let ran = scene.run(["serve", "--config", "archvhost.toml"]);
        let failure = ran.failure(2);
        assert!(failure.contains("archvhost.toml") && failure.contains(line), "{failure}");
    }
    assert!(scene.run(["serve", "--config", "nothing.toml"]).failure(2).contains("nothing.toml"));
}
