//! Streams between two real programs, through a real pipe, on two file stores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Ran, Scene, image};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// The program on one of the scene's stores.
fn command(scene: &Scene, store: &str, arguments: &[&str]) -> Command {
    let dir = scene.path(store);
    std::fs::create_dir_all(&dir).unwrap();
    let mut command = scene.command();
    command.arg("--store").arg(format!("file:{}", dir.display())).args(arguments);
    command
}

/// `export … - | import …`
fn piped(scene: &Scene, export: &[&str], import: &[&str]) -> (Ran, Ran) {
    let mut exporting = command(scene, "here", export).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stream = exporting.stdout.take().unwrap();
    let imported = Ran::of(command(scene, "there", import).stdin(stream));
    let ended = exporting.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    (Ran { code: ended.status.code().unwrap_or(-1), stdout: ended.stdout, stderr }, imported)
}

/// A volume with a snapshot, and what that has.
fn with_snapshot(scene: &Scene) -> Vec<u8> {
    let bytes = image(&scene.path("in"), 32 * MIB, 9 << 20);
    for arguments in [&["import", "web1", "in", "--object-size", "1MiB"][..], &["snapshot", "web1", "web1@1"]] {
        Ran::of(&mut command(scene, "here", arguments)).text();
    }
    bytes
}

fn content(scene: &Scene, name: &str) -> Vec<u8> {
    Ran::of(&mut command(scene, "there", &["export", name, "out", "--force"])).text();
    std::fs::read(scene.path("out")).unwrap()
}

#[test]
fn a_snapshot_goes_from_one_program_to_another() {
    let scene = Scene::new();
    let bytes = with_snapshot(&scene);
    let (exported, imported) = piped(&scene, &["export", "web1@1", "-", "--stream"], &["import", "copy"]);
    assert!(exported.code == 0, "{}", exported.stderr);
    imported.text();
    assert!(content(&scene, "copy") == bytes);
}

#[test]
fn an_export_that_fails_leaves_the_file_that_was_there() {
    let scene = Scene::new();
    with_snapshot(&scene);
    let kept = scene.path("kept");
    std::fs::write(&kept, "the last good backup").unwrap();
    // Found out only when the target is open: no snapshot, no such volume, another snapshot than the token says.
    for arguments in [
        &["export", "web1", "kept", "--stream", "--force"][..],
        &["export", "nope", "kept", "--stream", "--force"],
        &["export", "web1@1", "kept", "--resume", "0-0-0-0", "--force"],
        &["export", "nope", "kept", "--force"],
    ] {
        let ran = Ran::of(&mut command(&scene, "here", arguments));
        assert_ne!(ran.code, 0, "{arguments:?}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "the last good backup", "{arguments:?}");
    }
    Ran::of(&mut command(&scene, "here", &["export", "web1@1", "kept", "--stream", "--force"])).text();
    assert!(std::fs::metadata(&kept).unwrap().len() > MIB);
    let hidden = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".archvhost-");
    assert!(
        !std::fs::read_dir(scene.dir.path()).unwrap().any(|entry| hidden(&entry.unwrap())),
        "nothing is left beside it"
    );
}

#[test]
fn the_command_that_an_interrupted_import_prints_sends_the_rest() {
    let scene = Scene::new();
    let bytes = with_snapshot(&scene);
    Ran::of(&mut command(&scene, "here", &["export", "web1@1", "stream", "--stream"])).text();
    let stream = std::fs::read(scene.path("stream")).unwrap();
    std::fs::write(scene.path("stream"), &stream[..stream.len() / 2]).unwrap();
    let interrupted = Ran::of(&mut command(&scene, "there", &["import", "copy", "stream"]));
    let message = interrupted.failure(6).to_owned();
    assert!(message.contains("ends before its end"), "{message}");
    let printed = message.split('`').find(|part| part.starts_with("archvhost export")).unwrap();
    let (export, import) = printed.split_once(" | ").unwrap();
    let arguments = |command: &str| command.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (export, import) = (arguments(export), arguments(import));
    let export: Vec<&str> = export.iter().map(String::as_str).collect();
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    let (exported, imported) = piped(&scene, &export, &import);
    assert!(exported.code == 0, "{}", exported.stderr);
    imported.text();
    assert!(content(&scene, "copy") == bytes);
    let listed = Ran::of(&mut command(&scene, "there", &["list", "--json"])).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
}
