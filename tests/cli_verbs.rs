//! Every verb, directly on a store and through a daemon: both tell and do the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Ran, Scene, both_ways, image};
use std::fs::File;
use std::process::Stdio;

#[test]
fn a_created_volume_is_listed_described_and_removed() {
    both_ways(|_, run| {
        let created = run(&["create", "web1", "--size", "20GiB", "--object-size", "64KiB", "--json"]).json();
        assert_eq!((created["size"].as_u64(), created["object_size"].as_u64()), (Some(20 << 30), Some(64 << 10)));
        assert_eq!(created["id"].as_str().map(str::len), Some(32));
        let info = run(&["info", "web1", "--json"]).json();
        assert_eq!(info, created);
        run(&["create", "a", "--size", "1MiB"]).text();
        let names: Vec<_> =
            run(&["list", "--json"]).json().as_array().unwrap().iter().map(|v| v["name"].clone()).collect();
        assert_eq!(names, ["a", "web1"]);
        let table = run(&["list"]);
        assert!(table.text().contains("NAME") && table.text().contains("20GiB"), "{}", table.text());
        assert_eq!(run(&["remove", "web1", "--json"]).json(), serde_json::json!({ "name": "web1" }));
        run(&["remove", "a"]).text();
        assert_eq!(run(&["list", "--json"]).json(), serde_json::json!([]));
        assert!(run(&["info", "web1"]).failure(3).contains("web1"));
        assert!(run(&["remove", "web1"]).failure(3).contains("web1"));
    });
}

#[test]
fn an_existing_volume_is_not_made_again() {
    both_ways(|_, run| {
        run(&["create", "web1", "--size", "1GiB"]).text();
        assert!(run(&["create", "web1", "--size", "2GiB"]).failure(4).contains("web1"));
        assert_eq!(run(&["info", "web1", "--json"]).json()["size"].as_u64(), Some(1 << 30));
    });
}

#[test]
fn an_image_comes_out_as_it_went_in_and_stays_sparse() {
    both_ways(|scene, run| {
        let content = image(&scene.path("in"), (40 << 20) + 512, 9 << 20);
        let imported = run(&["import", "web1", "in", "--object-size", "1MiB", "--json"]).json();
        assert_eq!(imported["size"].as_u64(), Some((40 << 20) + 512));
        assert!(imported["bytes_written"].as_u64().unwrap() < 10 << 20, "{imported}");
        let exported = run(&["export", "web1", "out", "--json"]).json();
        assert_eq!(exported["size"], imported["size"]);
        assert!(std::fs::read(scene.path("out")).unwrap() == content);
        use std::os::unix::fs::MetadataExt;
        assert!(std::fs::metadata(scene.path("out")).unwrap().blocks() * 512 < 12 << 20);
        assert!(std::fs::metadata(scene.path("out")).unwrap().blocks() > 0);
    });
}

#[test]
fn images_travel_through_pipes() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let content = image(&scene.path("in"), 3 << 20, 2 << 20);
    let piped = |size: &[&str]| {
        let mut feeder = std::process::Command::new("cat");
        let mut feeder = feeder.arg(scene.path("in")).stdout(Stdio::piped()).spawn().unwrap();
        let mut command = scene.command();
        command.arg("--control").arg(&daemon.control).args(["import", "web1", "-"]).args(size);
        let ran = Ran::of(command.stdin(feeder.stdout.take().unwrap()));
        // The command keeps our end of the pipe open, and with it a feeder that is not read any more.
        drop(command);
        feeder.wait().unwrap();
        ran
    };
    assert!(piped(&[]).failure(2).contains("--size"));
    assert!(piped(&["--size", "1MiB"]).failure(2).contains("larger"));
    piped(&["--size", "3MiB"]).text();
    assert!(daemon.run(["export", "web1", "-"]).stdout == content);
}

#[test]
fn an_import_that_fails_leaves_no_volume() {
    both_ways(|scene, run| {
        image(&scene.path("in"), 3 << 20, 2 << 20);
        assert!(run(&["import", "web1", "in", "--size", "1MiB"]).failure(2).contains("larger"));
        assert!(run(&["import", "web1", "missing"]).failure(3).contains("missing"));
        assert!(run(&["import", "web1", "."]).failure(2).contains("directory"));
        File::create(scene.path("empty")).unwrap();
        assert!(run(&["import", "web1", "empty"]).failure(2).contains("no bytes"));
        assert_eq!(run(&["list", "--json"]).json(), serde_json::json!([]));
    });
}

#[test]
fn an_import_under_a_taken_name_harms_nothing() {
    both_ways(|scene, run| {
        image(&scene.path("in"), 1 << 20, 1000);
        run(&["create", "web1", "--size", "1GiB"]).text();
        assert!(run(&["import", "web1", "in"]).failure(4).contains("web1"));
        assert_eq!(run(&["info", "web1", "--json"]).json()["size"].as_u64(), Some(1 << 30));
        assert_eq!(run(&["list", "--json"]).json().as_array().unwrap().len(), 1);
    });
}

#[test]
fn an_interrupted_import_leaves_no_volume() {
    both_ways_interrupted(libc::SIGINT, |code, names| {
        assert_eq!(code, Some(130));
        assert!(names.is_empty(), "{names:?}");
    });
}

/// Nothing can be tidied up then, but what is left says what it is.
#[test]
fn a_killed_import_leaves_no_volume_under_the_name() {
    both_ways_interrupted(libc::SIGKILL, |_, names| {
        assert!(!names.contains(&"web1".to_owned()), "{names:?}");
    });
}

/// Feeds an import through a pipe that never ends, and signals it in the middle.
fn both_ways_interrupted(signal: i32, check: fn(Option<i32>, Vec<String>)) {
    let scene = Scene::new();
    let store = scene.file_store();
    check_interrupted(&scene, &["--store", &store], signal, check);
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    check_interrupted(&scene, &["--control", daemon.control.to_str().unwrap()], signal, check);
}

fn check_interrupted(scene: &Scene, global: &[&str], signal: i32, check: fn(Option<i32>, Vec<String>)) {
    use std::io::Write;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = scene.command();
    command.args(global).args(["import", "web1", "-", "--size", "1GiB"]).stdin(reader).stderr(Stdio::null());
    let mut process = program::Process { child: command.spawn().unwrap() };
    drop(command);
    // When so much is taken, the import is well under way.
    writer.write_all(&vec![7; 12 << 20]).unwrap();
    process.signal(signal);
    // More pieces come and then nothing: whoever reads must not wait for them.
    let feeding = std::thread::spawn(move || while writer.write_all(&[7; 65536]).is_ok() {});
    let status = process.wait();
    feeding.join().unwrap();
    let names = || {
        let list = scene.run(global.iter().copied().chain(["list", "--json"])).json();
        list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    check(status.code(), names());
}

/// Only a memory file system is sure to hold such a file.
#[test]
fn a_huge_and_nearly_empty_volume_is_exported_in_a_moment() {
    use std::os::unix::fs::FileExt;
    const SIZE: u64 = 1 << 50;
    let places = [0, SIZE / 3, SIZE - 4096];
    let scene = Scene::new();
    let store = scene.file_store();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (image, copy) = (memory.path().join("in"), memory.path().join("out"));
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(SIZE).unwrap();
    places.iter().for_each(|place| file.write_all_at(&[7; 4096], *place).unwrap());
    scene.run(["--store", &store, "import", "huge", image.to_str().unwrap()]).text();
    let start = std::time::Instant::now();
    let exported = scene.run(["--store", &store, "export", "huge", copy.to_str().unwrap(), "--json"]).json();
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    assert!(exported["bytes_written"].as_u64().unwrap() < 1 << 20, "{exported}");
    let copy = std::fs::File::open(&copy).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), SIZE);
    for place in places {
        let mut bytes = [0; 4096];
        copy.read_exact_at(&mut bytes, place).unwrap();
        assert_eq!(bytes, [7; 4096], "{place}");
    }
}

#[test]
fn a_volume_that_no_file_can_hold_is_not_exported_to_one() {
    both_ways(|scene, run| {
        if std::fs::File::create(scene.path("probe")).unwrap().set_len(7 << 60).is_ok() {
            eprintln!("skipped: the file system of {} holds files of any size", scene.dir.path().display());
            return;
        }
        run(&["create", "web1", "--size", "7EiB"]).text();
        assert!(run(&["export", "web1", "out"]).failure(1).contains("holds no file of 7EiB"));
        assert!(!scene.path("out").exists());
    });
}

#[test]
fn an_export_overwrites_only_when_told_to() {
    both_ways(|scene, run| {
        let content = image(&scene.path("in"), 1 << 20, 1000);
        run(&["import", "web1", "in"]).text();
        std::fs::write(scene.path("out"), vec![9; 2 << 20]).unwrap();
        assert!(run(&["export", "web1", "out"]).failure(4).contains("--force"));
        assert_eq!(std::fs::read(scene.path("out")).unwrap(), vec![9; 2 << 20]);
        run(&["export", "web1", "out", "--force"]).text();
        assert!(std::fs::read(scene.path("out")).unwrap() == content);
        assert!(run(&["export", "nope", "new"]).failure(3).contains("nope"));
        assert!(!scene.path("new").exists());
    });
}

#[test]
fn a_raw_image_that_looks_like_another_is_taken_as_raw_aloud() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    std::fs::write(scene.path("disk.img"), [b"QFI\xfb".as_slice(), &[0; 1020]].concat()).unwrap();
    let ran = daemon.run(["import", "web1", "disk.img"]);
    assert!(ran.text().contains("imported") && ran.stderr.contains("qcow2"), "{}", ran.stderr);
}

#[test]
fn other_formats_go_through_qemu_img_and_may_not_refer_to_other_files() {
    let qemu_img = |arguments: &[&str], scene: &Scene| {
        std::process::Command::new("qemu-img").current_dir(scene.dir.path()).args(arguments).output()
    };
    let scene = Scene::new();
    if qemu_img(&["--version"], &scene).is_err() {
        eprintln!("skipped: qemu-img is not installed");
        return;
    }
    let daemon = scene.daemon("memory:");
    let content = image(&scene.path("in.raw"), 3 << 20, 2 << 20);
    assert!(qemu_img(&["convert", "-O", "qcow2", "in.raw", "in.qcow2"], &scene).unwrap().status.success());
    daemon.run(["import", "web1", "in.qcow2"]).text();
    daemon.run(["export", "web1", "out.raw"]).text();
    assert!(std::fs::read(scene.path("out.raw")).unwrap() == content);
    daemon.run(["export", "web1", "out.vmdk"]).text();
    assert!(qemu_img(&["compare", "in.raw", "out.vmdk"], &scene).unwrap().status.success());
    let backed = ["create", "-f", "qcow2", "-b", "in.raw", "-F", "raw", "backed.qcow2"];
    assert!(qemu_img(&backed, &scene).unwrap().status.success());
    assert!(daemon.run(["import", "web2", "backed.qcow2"]).failure(1).contains("in.raw"));
    assert!(daemon.run(["import", "web2", "in.raw", "--format", "qcow2"]).failure(1).contains("qcow2"));
    assert_eq!(daemon.run(["list", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_format_that_needs_qemu_img_says_so_without_it() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    std::fs::write(scene.path("disk.qcow2"), [0; 4096]).unwrap();
    let mut command = scene.command();
    command.arg("--control").arg(&daemon.control).args(["import", "web1", "disk.qcow2"]).env("PATH", "/nonexistent");
    assert!(Ran::of(&mut command).failure(1).contains("qemu-img"));
}

#[test]
fn a_volume_is_attached_described_and_detached() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    let attached = daemon.run(["attach", "web1", "--socket", "web1.sock", "--queues", "4", "--json"]).json();
    let socket = scene.path("web1.sock");
    assert_eq!(attached["socket"].as_str().unwrap(), socket.to_str().unwrap());
    assert_eq!((attached["state"].as_str(), attached["queues"].as_u64()), (Some("listening"), Some(4)));
    assert!(socket.exists());
    let attachments = daemon.run(["attachments", "--json"]).json();
    assert_eq!(attachments.as_array().unwrap().len(), 1);
    assert!(daemon.run(["attachments"]).text().contains("read-write"));
    let status = daemon.run(["status", "--json"]).json();
    assert_eq!(status["attachments"][0]["counters"]["reads"].as_u64(), Some(0));
    assert_eq!(status["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    assert!(daemon.run(["status"]).text().contains("memory:"));
    assert_eq!(daemon.run(["detach", "web1", "--json"]).json()["name"].as_str(), Some("web1"));
    assert!(!socket.exists());
    assert!(daemon.run(["detach", "web1"]).failure(3).contains("web1"));
}

#[test]
fn what_is_attached_is_not_attached_again_removed_or_exported() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    daemon.run(["create", "web2", "--size", "1GiB"]).text();
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    for arguments in [
        &["attach", "web1", "--socket", "other.sock"][..],
        &["attach", "web1", "--socket", "other.sock", "--read-only"],
        &["attach", "web2", "--socket", "web1.sock"],
        &["remove", "web1"],
        &["export", "web1", "out"],
    ] {
        assert!(daemon.run(arguments).failure(4).contains("web1.sock"), "{arguments:?}");
    }
    assert!(!scene.path("other.sock").exists() && !scene.path("out").exists());
}

#[test]
fn the_xml_is_for_libvirt() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    assert!(daemon.run(["xml", "web1"]).failure(3).contains("attach"));
    daemon.run(["attach", "web1", "--socket", "a'b&c.sock", "--queues", "2"]).text();
    let xml = daemon.run(["xml", "web1", "--target", "vdb"]);
    for part in [
        "<access mode='shared'/>",
        "type='vhostuser'",
        "a&apos;b&amp;c.sock'",
        "<target dev='vdb'",
        "queues='2'",
        "<reconnect",
    ] {
        assert!(xml.text().contains(part), "{part} in {}", xml.text());
    }
    let json = daemon.run(["xml", "web1", "--json"]).json();
    assert!(json["disk"].as_str().unwrap().starts_with("<disk") && json["memory_backing"].is_string());
    assert!(!daemon.run(["xml", "web1", "--part", "disk"]).text().contains("memoryBacking"));
}

#[test]
fn help_and_completions_need_nothing() {
    let scene = Scene::new();
    let help = scene.run(["--help"]);
    for part in ["Examples:", "Exit codes:", "ARCHVHOST_STORE", "attachments", "file:DIR"] {
        assert!(help.text().contains(part), "{part}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(scene.run(["completions", shell]).text().contains("archvhost"), "{shell}");
    }
    assert!(scene.run(["--version"]).text().starts_with("archvhost "));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let scene = Scene::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scene.command();
    let output =
        command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn capabilities_are_printed_whatever_else_is_asked() {
    let scene = Scene::new();
    for arguments in [&["serve", "--print-capabilities"][..], &["--print-capabilities", "nonsense", "--fd", "x"]] {
        let capabilities = scene.run(arguments).json();
        assert_eq!(capabilities, serde_json::json!({ "type": "block", "features": ["read-only"] }));
    }
}

#[test]
fn the_environment_stands_in_for_the_global_options() {
    let scene = Scene::new();
    let store = scene.file_store();
    let ran = |store: &str, control: &str, arguments: &[&str]| {
        Ran::of(scene.command().env("ARCHVHOST_STORE", store).env("ARCHVHOST_CONTROL", control).args(arguments))
    };
    ran(&store, "", &["create", "web1", "--size", "1GiB"]).text();
    // Nobody listens there, so the store is used.
    assert!(ran(&store, "/nonexistent/control.sock", &["list"]).text().contains("web1"));
    assert!(ran("", "/nonexistent/control.sock", &["list"]).failure(8).contains("/nonexistent/control.sock"));
    assert!(ran("", "", &["list"]).failure(2).contains("--store"));
}

#[test]
fn a_daemon_of_another_store_is_not_mistaken() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let store = scene.file_store();
    let ran = daemon.run(["--store", &store, "create", "web1", "--size", "1GiB"]);
    assert!(ran.failure(2).contains("memory:"));
    assert_eq!(daemon.run(["list", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn direct_verbs_and_the_daemon_respect_each_other() {
    let scene = Scene::new();
    let store = scene.file_store();
    let daemon = scene.daemon(&store);
    let direct = |arguments: &[&str]| scene.run(["--store", store.as_str()].iter().chain(arguments));
    direct(&["create", "web1", "--size", "1GiB"]).text();
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    assert!(direct(&["remove", "web1"]).failure(4).contains("web1"));
    assert!(direct(&["export", "web1", "out"]).failure(4).contains("web1"));
    assert_eq!(direct(&["info", "web1", "--json"]).json()["state"].as_str(), Some("open"));
    daemon.run(["detach", "web1"]).text();
    assert_eq!(direct(&["info", "web1", "--json"]).json()["state"].as_str(), Some("closed"));
    direct(&["remove", "web1"]).text();
}
