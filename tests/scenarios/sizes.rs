//! Growing and shrinking.

use crate::scene::{GIB, Here, MIB, NOTHING, OBJECT, Scene, bytes, refusal, size};
use archvhost::admin::resize::Shrink;
use archvhost::volume::VolumeErrorKind;

#[test]
fn a_volume_that_grows_in_use_has_zeros_behind_its_old_end() {
    let scene = Scene::new();
    scene.create("web1", OBJECT + 8192);
    let disk = scene.open("web1");
    disk.write(OBJECT, &bytes(1, 8192));
    let info = scene.resize("web1", GIB, Shrink::Refuse, &Here(&[&disk])).unwrap();
    assert_eq!((info.size, disk.volume.size()), (size(GIB), size(GIB)));
    assert_eq!(disk.read(OBJECT, 16384), [bytes(1, 8192), vec![0; 8192]].concat());
    disk.write(GIB - 4096, &bytes(2, 4096));
    disk.close();
    let scene = scene.restarted();
    assert_eq!(scene.info("web1").unwrap().size, size(GIB));
    assert_eq!(scene.read("web1", GIB - 4096, 4096), bytes(2, 4096));
}

#[test]
fn a_volume_shrinks_only_with_leave_and_its_old_bytes_do_not_come_back() {
    let scene = Scene::new();
    scene.create("web1", 4 * OBJECT);
    let disk = scene.open("web1");
    disk.write(0, &bytes(1, 4 * OBJECT));
    scene.resize("web1", OBJECT + 12288, Shrink::Refuse, &Here(&[&disk])).unwrap_err();
    assert_eq!(disk.volume.size(), size(4 * OBJECT));
    scene.resize("web1", OBJECT + 12288, Shrink::Allow, &Here(&[&disk])).unwrap();
    assert_eq!(refusal(disk.try_read(OBJECT + 12288, 4096)), VolumeErrorKind::OutOfRange);
    scene.resize("web1", 4 * OBJECT, Shrink::Refuse, &Here(&[&disk])).unwrap();
    let kept = bytes(1, 4 * OBJECT)[..(4 << 20) + 12288].to_vec();
    assert!(disk.read(0, OBJECT + 12288) == kept);
    assert!(disk.read(OBJECT + 12288, 3 * OBJECT - 12288).iter().all(|&byte| byte == 0));
    disk.close();
    let scene = scene.restarted();
    assert!(scene.read("web1", 0, OBJECT + 12288) == kept);
    assert!(scene.read("web1", OBJECT + 12288, 3 * OBJECT - 12288).iter().all(|&byte| byte == 0));
}

#[test]
fn a_snapshot_keeps_its_size_and_bytes_when_its_volume_shrinks_and_grows() {
    let scene = Scene::new();
    scene.create("web1", 4 * OBJECT);
    scene.write("web1", 0, &bytes(1, 4 * OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.resize("web1", OBJECT + 1024, Shrink::Allow, &NOTHING).unwrap();
    scene.resize("web1", 8 * OBJECT, Shrink::Refuse, &NOTHING).unwrap();
    assert_eq!(scene.info("s1").unwrap().size, size(4 * OBJECT));
    assert!(scene.read("s1", 0, 4 * OBJECT) == bytes(1, 4 * OBJECT));
    assert!(scene.read("web1", OBJECT + 1024, 7 * OBJECT - 1024).iter().all(|&byte| byte == 0));
    assert!(scene.read("web1", OBJECT, 1024) == bytes(1, 4 * OBJECT)[4 << 20..][..1024]);
}

#[test]
fn rollback_brings_the_size_back_too() {
    let scene = Scene::new();
    scene.create("web1", 2 * OBJECT);
    scene.write("web1", 0, &bytes(1, 2 * OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.resize("web1", 4 * OBJECT, Shrink::Refuse, &NOTHING).unwrap();
    scene.write("web1", 3 * OBJECT, &bytes(2, MIB));
    assert_eq!(scene.roll_back("web1", "s1").unwrap().size, size(2 * OBJECT));
    assert!(scene.read("web1", 0, 2 * OBJECT) == bytes(1, 2 * OBJECT));
}

#[test]
fn a_snapshot_has_no_other_size() {
    let scene = Scene::new();
    scene.create("web1", 2 * OBJECT);
    scene.snapshot("web1", "s1", &NOTHING);
    scene.resize("s1", 4 * OBJECT, Shrink::Allow, &NOTHING).unwrap_err();
    assert_eq!(scene.info("s1").unwrap().size, size(2 * OBJECT));
}
