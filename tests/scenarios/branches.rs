//! Snapshots, clones, chains of both.

use crate::scene::{GIB, Here, MIB, NOTHING, OBJECT, Scene, bytes, refusal, size};
use archvhost::admin::branch::{SnapshotRequest, snapshot};
use archvhost::volume::{Access, VolumeErrorKind};

#[test]
fn a_snapshot_of_data_far_out_stays_as_it_was_and_its_clone_begins_as_it() {
    let scene = Scene::new();
    scene.create("web1", 100 * GIB);
    let data = bytes(1, 10 * MIB);
    let disk = scene.open("web1");
    disk.write(90 * GIB, &data);
    assert_eq!(scene.snapshot("web1", "s1", &Here(&[&disk])).size, size(100 * GIB));
    disk.write(90 * GIB + MIB, &bytes(2, 5 * MIB));
    assert!(scene.read("s1", 90 * GIB, 10 * MIB) == data);
    scene.clone("s1", "c1");
    let clone = scene.open("c1");
    assert!(clone.read(90 * GIB, 10 * MIB) == data);
    clone.write(90 * GIB, &bytes(3, MIB));
    assert!(scene.read("s1", 90 * GIB, 10 * MIB) == data);
    assert!(disk.read(90 * GIB, MIB) == data[..1 << 20]);
    assert!(disk.read(90 * GIB + MIB, 5 * MIB) == bytes(2, 5 * MIB));
    clone.close();
    disk.close();
}

#[test]
fn a_clone_may_be_larger_than_its_source_and_reads_zeros_behind_it() {
    let scene = Scene::new();
    // The source ends within a block, so that the clone's zeros begin within one.
    scene.create("web1", 10 * OBJECT + 8192);
    scene.write("web1", 9 * OBJECT, &bytes(1, OBJECT + 8192));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.try_clone("s1", "c1", Some(200 * GIB), &NOTHING).unwrap();
    let clone = scene.open("c1");
    assert_eq!(clone.volume.size(), size(200 * GIB));
    assert!(clone.read(9 * OBJECT, OBJECT + 8192) == bytes(1, OBJECT + 8192));
    assert!(clone.read(10 * OBJECT + 8192, 2 * OBJECT).iter().all(|&byte| byte == 0));
    assert!(clone.read(200 * GIB - MIB, MIB).iter().all(|&byte| byte == 0));
    clone.write(10 * OBJECT + 4096, &bytes(2, 8192));
    assert_eq!(
        clone.read(10 * OBJECT, 16384),
        [&bytes(1, OBJECT + 8192)[4 << 20..][..4096], &bytes(2, 8192), &[0; 4096]].concat()
    );
    clone.close();
}

#[test]
fn a_clone_is_never_smaller_than_its_source() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.snapshot("web1", "s1", &NOTHING);
    scene.try_clone("s1", "c1", Some(GIB - 4096), &NOTHING).unwrap_err();
    assert_eq!(refusal(scene.info("c1")), VolumeErrorKind::NotFound);
}

#[test]
fn a_snapshot_is_never_written() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, 4096));
    scene.snapshot("web1", "s1", &NOTHING);
    assert!(scene.try_open("s1", Access::ReadWrite).is_err());
    let reader = scene.open_read_only("s1");
    assert_eq!(refusal(reader.try_write(0, &[0; 512])), VolumeErrorKind::ReadOnly);
    reader.close();
    assert_eq!(scene.read("s1", 0, 4096), bytes(1, 4096));
}

#[test]
fn snapshots_of_clones_of_snapshots_each_keep_their_own_bytes() {
    let scene = Scene::new();
    scene.create("v0", GIB);
    let mut now = vec![0; 3 << 20];
    let mut kept = Vec::new();
    // More links than an overlay has layers; each writes a page that its predecessors wrote, one of its own, and a part of one.
    for link in 0..20_u8 {
        let (volume, snap) = (format!("v{link}"), format!("s{link}"));
        let disk = scene.open(&volume);
        for (offset, len) in [(0, 4096), (u64::from(link + 1) * 8192, 4096), (MIB + u64::from(link) * 1536, 2048)] {
            disk.write(offset, &bytes(link, len));
            let at = usize::try_from(offset).unwrap();
            now[at..at + usize::try_from(len).unwrap()].copy_from_slice(&bytes(link, len));
        }
        scene.snapshot(&volume, &snap, &Here(&[&disk]));
        disk.close();
        kept.push((snap.clone(), now.clone()));
        scene.clone(&snap, &format!("v{}", link + 1));
    }
    for (snap, bytes) in &kept {
        assert!(scene.read(snap, 0, 3 * MIB) == *bytes, "{snap}");
    }
    assert!(scene.read("v20", 0, 3 * MIB) == now);
}

#[test]
fn many_snapshots_of_one_volume_each_keep_their_own_bytes() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    let mut now = vec![0; 1 << 20];
    let mut kept = Vec::new();
    for round in 1..=20_u8 {
        for page in [0, u64::from(round), u64::from(round) * 3 % 17] {
            disk.write(page * 4096 + 512, &bytes(round, 5120));
            let at = usize::try_from(page * 4096 + 512).unwrap();
            now[at..at + 5120].copy_from_slice(&bytes(round, 5120));
        }
        let snap = format!("s{round}");
        scene.snapshot("web1", &snap, &Here(&[&disk]));
        kept.push((snap, now.clone()));
    }
    disk.close();
    for (snap, bytes) in &kept {
        assert!(scene.read(snap, 0, MIB) == *bytes, "{snap}");
    }
}

#[test]
fn a_clone_of_a_live_volume_has_what_it_had_then() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    disk.write(0, &bytes(1, OBJECT));
    scene.try_clone("web1", "c1", None, &Here(&[&disk])).unwrap();
    disk.write(4096, &bytes(2, 4096));
    assert!(scene.read("c1", 0, OBJECT) == bytes(1, OBJECT));
    disk.close();
}

#[test]
fn a_group_is_captured_together_or_not_at_all() {
    let scene = Scene::new();
    for volume in ["one", "two"] {
        scene.create(volume, GIB);
        scene.write(volume, 0, &bytes(1, 4096));
    }
    let request = |volume: &str, snap: &str| SnapshotRequest {
        volume: crate::scene::name(volume),
        name: crate::scene::name(snap),
    };
    let group = [request("one", "s1"), request("two", "s2")];
    assert_eq!(snapshot(&scene.store, &group, &NOTHING, &scene.options).unwrap().volumes.len(), 2);
    let taken = [request("one", "s3"), request("two", "s2")];
    assert_eq!(refusal(snapshot(&scene.store, &taken, &NOTHING, &scene.options)), VolumeErrorKind::Exists);
    assert_eq!(refusal(scene.info("s3")), VolumeErrorKind::NotFound);
    let missing = [request("one", "s3"), request("three", "s4")];
    assert_eq!(refusal(snapshot(&scene.store, &missing, &NOTHING, &scene.options)), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.info("s3")), VolumeErrorKind::NotFound);
    for snap in ["s1", "s2"] {
        assert_eq!(scene.read(snap, 0, 4096), bytes(1, 4096));
    }
}

#[test]
fn a_name_that_is_taken_is_not_captured_or_cloned_to() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.create("web2", 2 * GIB);
    assert_eq!(refusal(scene.try_snapshot("web1", "web2", &NOTHING)), VolumeErrorKind::Exists);
    assert_eq!(refusal(scene.try_snapshot("web1", "web1", &NOTHING)), VolumeErrorKind::Exists);
    assert_eq!(refusal(scene.try_clone("web1", "web2", None, &NOTHING)), VolumeErrorKind::Exists);
    assert_eq!(scene.info("web2").unwrap().size, size(2 * GIB));
}
