//! Renaming, and names that come back.

use crate::scene::{GIB, MIB, NOTHING, Scene, bytes, name, refusal};
use archvhost::admin::rename::rename;
use archvhost::volume::{VolumeError, VolumeErrorKind};

fn move_name(scene: &Scene, from: &str, to: &str) -> Result<(), VolumeError> {
    rename(&scene.store, &name(from), &name(to), &scene.options)
}

#[test]
fn a_renamed_volume_has_its_new_name_only_and_the_old_one_is_free() {
    let scene = Scene::new();
    let id = scene.create("web1", GIB).id;
    scene.write("web1", 0, &bytes(1, MIB));
    move_name(&scene, "web1", "web2").unwrap();
    assert_eq!(refusal(scene.info("web1")), VolumeErrorKind::NotFound);
    assert_eq!(scene.info("web2").unwrap().id, id);
    scene.create("web1", GIB);
    assert!(scene.read("web1", 0, MIB).iter().all(|&byte| byte == 0));
    let scene = scene.restarted();
    assert!(scene.read("web2", 0, MIB) == bytes(1, MIB));
}

#[test]
fn a_name_that_is_taken_is_not_given_again() {
    let scene = Scene::new();
    let ids = (scene.create("web1", GIB).id, scene.create("web2", GIB).id);
    assert_eq!(refusal(move_name(&scene, "web1", "web2")), VolumeErrorKind::Exists);
    assert_eq!(refusal(move_name(&scene, "missing", "web3")), VolumeErrorKind::NotFound);
    assert_eq!((scene.info("web1").unwrap().id, scene.info("web2").unwrap().id), ids);
}

#[test]
fn a_volume_in_use_keeps_its_name() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    assert!([VolumeErrorKind::Held, VolumeErrorKind::Busy].contains(&refusal(move_name(&scene, "web1", "web2"))));
    disk.close();
    assert_eq!(refusal(scene.info("web2")), VolumeErrorKind::NotFound);
    scene.info("web1").unwrap();
}

#[test]
fn a_renamed_volume_is_captured_and_its_snapshots_and_clones_go_on() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    move_name(&scene, "web1", "web2").unwrap();
    move_name(&scene, "s1", "old").unwrap();
    scene.write("web2", 4096, &bytes(2, 4096));
    scene.snapshot("web2", "s2", &NOTHING);
    scene.clone("old", "c1");
    let both = [&bytes(1, MIB)[..4096], &bytes(2, 4096), &bytes(1, MIB)[8192..]].concat();
    assert!(scene.read("s2", 0, MIB) == both);
    assert!(scene.read("old", 0, MIB) == bytes(1, MIB));
    assert!(scene.read("c1", 0, MIB) == bytes(1, MIB));
}

#[test]
fn a_name_goes_round_many_volumes_and_each_keeps_its_bytes() {
    let scene = Scene::new();
    for round in 0..8_u8 {
        scene.create("web1", GIB);
        scene.write("web1", 0, &bytes(round, 4096));
        move_name(&scene, "web1", &format!("web1-{round}")).unwrap();
    }
    for round in 0..8_u8 {
        assert_eq!(scene.read(&format!("web1-{round}"), 0, 4096), bytes(round, 4096));
    }
}
