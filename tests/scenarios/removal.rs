//! What may be removed, and when.

use crate::scene::{GIB, MIB, NOTHING, OBJECT, Scene, bytes, refusal};
use archvhost::volume::{Access, VolumeErrorKind};

#[test]
fn a_removed_volume_is_gone_and_cannot_be_removed_again() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, OBJECT));
    scene.remove("web1").unwrap();
    assert_eq!(refusal(scene.remove("web1")), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.try_open("web1", Access::ReadWrite)), VolumeErrorKind::NotFound);
    assert_eq!(scene.objects(), 0);
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    disk.write(0, &bytes(1, 4096));
    assert_eq!(refusal(scene.remove("web1")), VolumeErrorKind::Held);
    assert_eq!(disk.read(0, 4096), bytes(1, 4096));
    disk.close();
}

#[test]
fn a_snapshot_that_is_read_is_not_removed() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    let reader = scene.open_read_only("s1");
    assert_eq!(refusal(scene.remove("s1")), VolumeErrorKind::Held);
    assert!(reader.read(0, MIB) == bytes(1, MIB));
    reader.close();
    scene.remove("s1").unwrap();
}
