//! Volumes that become again what a snapshot is.

use crate::scene::{GIB, MIB, NOTHING, OBJECT, Scene, bytes, refusal};
use archvhost::volume::VolumeErrorKind;

#[test]
fn a_volume_rolled_back_is_its_snapshot_and_goes_on_from_there() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.write("web1", 4096, &bytes(2, 2 * OBJECT));
    scene.snapshot("web1", "s2", &NOTHING);
    scene.roll_back("web1", "s1").unwrap();
    assert!(scene.read("web1", 0, OBJECT) == bytes(1, OBJECT));
    assert!(scene.read("web1", OBJECT, OBJECT).iter().all(|&byte| byte == 0));
    scene.write("web1", 8192, &bytes(3, 4096));
    assert!(scene.read("s1", 0, OBJECT) == bytes(1, OBJECT));
    assert!(scene.read("s2", 4096, 2 * OBJECT) == bytes(2, 2 * OBJECT));
    // Forward again, to a snapshot that is newer than the volume is now.
    scene.roll_back("web1", "s2").unwrap();
    assert!(scene.read("web1", 4096, 2 * OBJECT) == bytes(2, 2 * OBJECT));
}

#[test]
fn a_clone_is_rolled_back_to_what_it_was_cloned_from() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.clone("s1", "c1");
    scene.write("c1", 512, &bytes(2, 2 * MIB));
    scene.roll_back("c1", "s1").unwrap();
    assert!(scene.read("c1", 0, 3 * MIB) == [bytes(1, MIB), vec![0; 2 << 20]].concat());
}

#[test]
fn a_volume_in_use_or_of_another_line_is_not_rolled_back() {
    let scene = Scene::new();
    for volume in ["web1", "web2"] {
        scene.create(volume, GIB);
        scene.write(volume, 0, &bytes(1, 4096));
        scene.snapshot(volume, &format!("{volume}-s"), &NOTHING);
    }
    scene.roll_back("web1", "web2-s").unwrap_err();
    let disk = scene.open("web1");
    disk.write(0, &bytes(2, 4096));
    assert!([VolumeErrorKind::Held, VolumeErrorKind::Busy].contains(&refusal(scene.roll_back("web1", "web1-s"))));
    disk.close();
    assert_eq!(scene.read("web1", 0, 4096), bytes(2, 4096));
}
