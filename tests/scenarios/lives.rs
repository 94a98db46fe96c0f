//! Making, opening, closing, describing, flushing, restarting.

use crate::scene::{GIB, MIB, NOTHING, OBJECT, Scene, bytes, refusal, size};
use archvhost::admin::info::VolumeState;
use archvhost::units::{ByteRange, UnitError, VolumeSize};
use archvhost::volume::{Access, Request, Stability, VolumeErrorKind};
use std::sync::Arc;
use std::thread;

#[test]
fn a_volume_that_is_not_there_cannot_be_opened_described_or_removed() {
    let scene = Scene::new();
    assert_eq!(refusal(scene.try_open("missing", Access::ReadWrite)), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.try_open("missing", Access::ReadOnly)), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.info("missing")), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.remove("missing")), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.try_snapshot("missing", "s", &NOTHING)), VolumeErrorKind::NotFound);
    assert_eq!(refusal(scene.try_clone("missing", "c", None, &NOTHING)), VolumeErrorKind::NotFound);
}

#[test]
fn no_volume_has_no_bytes_and_no_name_is_made_twice() {
    assert_eq!(VolumeSize::new(0), Err(UnitError::VolumeSize(0)));
    let scene = Scene::new();
    let made = scene.create("web1", GIB);
    assert_eq!(refusal(scene.try_create("web1", 2 * GIB)), VolumeErrorKind::Exists);
    assert_eq!(scene.info("web1").unwrap(), made);
}

#[test]
fn opening_twice_is_refused_and_closing_twice_does_nothing() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    assert_eq!(refusal(scene.try_open("web1", Access::ReadWrite)), VolumeErrorKind::Held);
    disk.write(0, &bytes(1, 4096));
    let volume = Arc::clone(&disk.volume);
    disk.close();
    volume.close().unwrap();
    drop(volume);
    assert_eq!(scene.info("web1").unwrap().state, VolumeState::Closed);
    assert_eq!(scene.read("web1", 0, 4096), bytes(1, 4096));
}

#[test]
fn many_at_once_are_told_the_same_of_an_open_volume() {
    let scene = Scene::new();
    scene.create("web1", 3 * GIB);
    let disk = scene.open("web1");
    thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| scene.info("web1").unwrap())).collect();
        for asker in askers {
            let info = asker.join().unwrap();
            assert_eq!((info.size, info.state), (size(3 * GIB), VolumeState::Open));
        }
    });
    disk.close();
}

#[test]
fn a_flush_completes_with_nothing_written_with_data_and_while_writes_are_in_flight() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    let disk = scene.open("web1");
    disk.run(Request::Flush);
    disk.write(0, &bytes(1, MIB));
    disk.run(Request::Flush);
    thread::scope(|scope| {
        for writer in 0..6_u8 {
            let volume = Arc::clone(&disk.volume);
            scope.spawn(move || {
                let port = archvhost::volume::Port::open(&volume).unwrap();
                let disk = crate::scene::Disk { volume, port };
                (0..13).for_each(|n| disk.write(u64::from(writer) * 64 * MIB + n * MIB, &bytes(writer, MIB)));
            });
        }
        (0..10).for_each(|_| disk.run(Request::Flush));
    });
    disk.run(Request::Flush);
    for writer in 0..6 {
        assert_eq!(disk.read(u64::from(writer) * 64 * MIB + 12 * MIB, MIB), bytes(writer, MIB));
    }
    disk.close();
}

#[test]
fn after_a_restart_every_answer_is_the_same() {
    let scene = Scene::new();
    scene.create("web1", 100 * GIB);
    scene.write("web1", 90 * GIB, &bytes(1, 3 * MIB));
    scene.snapshot("web1", "s1", &NOTHING);
    scene.write("web1", 90 * GIB + MIB, &bytes(2, 4096));
    scene.clone("s1", "c1");
    let names = ["web1", "s1", "c1"];
    let before: Vec<_> = names.map(|name| (scene.info(name).unwrap().size, scene.read(name, 90 * GIB, 3 * MIB))).into();
    let scene = scene.restarted();
    let after: Vec<_> = names.map(|name| (scene.info(name).unwrap().size, scene.read(name, 90 * GIB, 3 * MIB))).into();
    assert_eq!(before, after);
}

#[test]
fn nothing_is_read_or_written_beyond_the_end() {
    let scene = Scene::new();
    scene.create("web1", OBJECT + 4096);
    let disk = scene.open("web1");
    for (offset, len) in [(OBJECT, 8192), (OBJECT + 4096, 512), (u64::MAX - 4095, 4096), (100 * GIB, 512)] {
        assert_eq!(refusal(disk.try_write(offset, &bytes(1, len))), VolumeErrorKind::OutOfRange);
        assert_eq!(refusal(disk.try_read(offset, len)), VolumeErrorKind::OutOfRange);
    }
    disk.write(OBJECT, &bytes(1, 4096));
    assert_eq!(disk.read(OBJECT, 4096), bytes(1, 4096));
    disk.close();
}

#[test]
fn a_write_across_a_block_border_far_out_reads_back_with_its_neighbours() {
    let scene = Scene::new();
    scene.create("web1", 100 * GIB);
    let disk = scene.open("web1");
    disk.write(90 * GIB - 1024, &bytes(1, 2048));
    assert_eq!(disk.read(90 * GIB - 1024, 2048), bytes(1, 2048));
    assert_eq!(disk.read(90 * GIB - 2048, 1024), vec![0; 1024]);
    assert_eq!(disk.read(90 * GIB + 1024, 1024), vec![0; 1024]);
    disk.close();
}

#[test]
fn seven_writers_of_one_range_leave_what_one_of_them_wrote_in_every_sector() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(9, OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    let disk = scene.open("web1");
    thread::scope(|scope| {
        for writer in 1..=7_u8 {
            let volume = Arc::clone(&disk.volume);
            scope.spawn(move || {
                let port = archvhost::volume::Port::open(&volume).unwrap();
                crate::scene::Disk { volume, port }.write(1024, &vec![writer; 64 << 10]);
            });
        }
    });
    for sector in disk.read(1024, 64 << 10).chunks(512) {
        assert!((1..=7).contains(&sector[0]) && sector.iter().all(|&byte| byte == sector[0]));
    }
    assert_eq!(disk.read(0, 1024), bytes(9, OBJECT)[..1024]);
    disk.close();
    assert_eq!(scene.read("s1", 0, OBJECT), bytes(9, OBJECT));
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros_also_over_a_snapshot() {
    let scene = Scene::new();
    scene.create("web1", GIB);
    scene.write("web1", 0, &bytes(1, 3 * OBJECT));
    scene.snapshot("web1", "s1", &NOTHING);
    let disk = scene.open("web1");
    disk.run(Request::Discard { range: ByteRange::new(0, OBJECT) });
    let space = archvhost::store::Space::Free;
    disk.run(Request::WriteZeroes { range: ByteRange::new(OBJECT + 512, 8192), space, stability: Stability::Cached });
    assert_eq!(disk.read(0, OBJECT), vec![0; 4 << 20]);
    assert_eq!(disk.read(OBJECT + 512, 8192), vec![0; 8192]);
    let all = bytes(1, 3 * OBJECT);
    assert_eq!(disk.read(OBJECT, 512), all[4 << 20..(4 << 20) + 512]);
    disk.close();
    assert!(scene.read("s1", 0, 3 * OBJECT) == all);
}
