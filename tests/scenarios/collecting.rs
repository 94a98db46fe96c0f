//! Removing in any order, collecting, and checking.

use crate::scene::{GIB, Here, MIB, NOTHING, OBJECT, Scene, bytes};

#[test]
fn a_volume_made_again_under_a_removed_name_is_new() {
    let scene = Scene::new();
    let before = scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.remove("web1").unwrap();
    let after = scene.create("web1", GIB);
    assert_ne!(before.id, after.id);
    assert!(scene.read("web1", 0, MIB).iter().all(|&byte| byte == 0));
    assert!(scene.read("s1", 0, MIB) == bytes(1, MIB));
}

/// web1 ─ s1 ─ c1 ─ s2 ─ c2, each with bytes of its own at its own place.
fn family(scene: &Scene) {
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.write("web1", 4096, &bytes(2, 4096));
    scene.clone("s1", "c1");
    scene.write("c1", 8192, &bytes(3, 4096));
    scene.snapshot("c1", "s2", &NOTHING);
    scene.clone("s2", "c2");
    scene.write("c2", 12288, &bytes(4, 4096));
}

const FAMILY: [&str; 5] = ["web1", "s1", "c1", "s2", "c2"];

#[test]
fn whatever_is_removed_first_the_others_keep_their_bytes_and_at_last_nothing_is_left() {
    // Each rotation of the family, both ways round.
    for order in 0..10 {
        let scene = Scene::new();
        family(&scene);
        let mut left: Vec<&str> = (0..5).map(|at| FAMILY[(at + order) % 5]).collect();
        if order >= 5 {
            left.reverse();
        }
        let read = |name: &str| scene.read(name, 0, OBJECT);
        let contents: Vec<_> = left.iter().map(|name| (*name, read(name))).collect();
        for (removed, (name, _)) in contents.iter().enumerate() {
            scene.remove(name).unwrap();
            scene.collect(&NOTHING);
            assert_eq!(scene.findings(&NOTHING), Vec::<String>::new(), "order {order}, {name} removed");
            for (name, bytes) in &contents[removed + 1..] {
                assert!(read(name) == *bytes, "order {order}: {name}");
            }
        }
        scene.collect(&NOTHING);
        assert_eq!(scene.objects(), 0, "order {order}");
    }
}

#[test]
fn a_collection_beside_open_volumes_takes_nothing_that_is_used() {
    let scene = Scene::new();
    family(&scene);
    let (disk, clone) = (scene.open("web1"), scene.open("c2"));
    let before = (disk.read(0, OBJECT), clone.read(0, OBJECT));
    disk.write(2 * OBJECT, &bytes(5, MIB));
    for name in ["s1", "c1", "s2"] {
        scene.remove(name).unwrap();
    }
    scene.collect(&Here(&[&disk, &clone]));
    assert!((disk.read(0, OBJECT), clone.read(0, OBJECT)) == before);
    assert!(disk.read(2 * OBJECT, MIB) == bytes(5, MIB));
    clone.close();
    disk.close();
    assert_eq!(scene.findings(&NOTHING), Vec::<String>::new());
    assert!((scene.read("web1", 0, OBJECT), scene.read("c2", 0, OBJECT)) == before);
}

#[test]
fn check_tells_an_object_that_is_lost() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, 2 * OBJECT));
    assert_eq!(scene.findings(&NOTHING), Vec::<String>::new());
    scene.lose_a_data_object();
    // This process may still have it open.
    let scene = scene.restarted();
    assert_eq!(scene.findings(&NOTHING).len(), 1);
}

/// A process that dies between making an object known to the store and making it leaves such a name in some stores.
#[test]
fn a_removed_volume_is_forgotten_though_an_object_of_it_is_gone_already() {
    let scene = Scene::new();
    scene.create("web", 64 * MIB);
    scene.write("web", 0, &bytes(1, MIB));
    scene.snapshot("web", "s1", &NOTHING);
    scene.remove("s1").unwrap();
    scene.remove("web").unwrap();
    scene.lose_a_data_object();
    scene.collect(&NOTHING);
    assert_eq!(scene.objects(), 0);
}
