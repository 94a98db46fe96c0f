//! Who may have a volume, and how many.

use crate::scene::{GIB, Here, MIB, NOTHING, Scene, bytes, refusal};
use archvhost::volume::{Access, VolumeErrorKind};
use std::thread;

#[test]
fn any_number_may_read_a_snapshot_while_its_volume_is_written() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    disk.write(0, &bytes(1, 4 * MIB));
    scene.snapshot("web1", "s1", &Here(&[&disk]));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reader = scene.open_read_only("s1");
                (0..20).for_each(|_| assert!(reader.read(0, 4 * MIB) == bytes(1, 4 * MIB)));
                reader.close();
            });
        }
        (0..200).for_each(|n| disk.write(n * 4096 % (4 * MIB), &bytes(2, 4096)));
    });
    disk.close();
}

#[test]
fn a_snapshot_may_be_cloned_while_it_is_read() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    let reader = scene.open_read_only("s1");
    scene.clone("s1", "c1");
    scene.write("c1", 0, &bytes(2, 4096));
    assert!(reader.read(0, MIB) == bytes(1, MIB));
    reader.close();
}

#[test]
fn what_somebody_else_has_open_is_not_captured() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    // Without being told that it is open in this process, as another process would find it.
    assert_eq!(refusal(scene.try_snapshot("web1", "s1", &NOTHING)), VolumeErrorKind::Held);
    assert_eq!(refusal(scene.info("s1")), VolumeErrorKind::NotFound);
    disk.close();
    scene.snapshot("web1", "s1", &NOTHING);
}

#[test]
fn a_closed_volume_is_read_by_many_or_written_by_one() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    let readers = [scene.open_read_only("web1"), scene.open_read_only("web1")];
    assert_eq!(refusal(scene.try_open("web1", Access::ReadWrite)), VolumeErrorKind::Held);
    readers.iter().for_each(|reader| assert!(reader.read(0, MIB) == bytes(1, MIB)));
    readers.into_iter().for_each(crate::scene::Disk::close);
    scene.write("web1", 0, &bytes(2, MIB));
    assert!(scene.read("web1", 0, MIB) == bytes(2, MIB));
}
