use crate::scene::{OBJECT, Random, SECTOR, Site, len, name};
use archvhost::admin::increment::received::before_writing;
use archvhost::admin::increment::{StreamRequest, export_stream};
use archvhost::admin::info::list;
use archvhost::admin::job::Job;
use archvhost::admin::rollback::rollback;
use archvhost::admin::transfer::TransferError;
use archvhost::volume::VolumeErrorKind;
use std::fs::File;
use std::os::fd::OwnedFd;

/// A volume with two snapshots, and what they hold.
fn with_two_snapshots(seed: u64) -> (Site, Vec<u8>, Vec<u8>) {
    let mut random = Random(seed);
    let site = Site::new();
    let bytes = 40 * OBJECT + SECTOR * random.below(64);
    site.create("disk", bytes);
    let mut model = vec![0; len(bytes)];
    site.with("disk", |disk| (0..20).for_each(|_| disk.change(&mut random, &mut model)));
    site.snapshot("disk", "mon");
    let mon = model.clone();
    site.with("disk", |disk| (0..8).for_each(|_| disk.change(&mut random, &mut model)));
    site.snapshot("disk", "tue");
    (site, mon, model)
}

#[test]
fn a_full_stream_and_its_increments_make_equal_snapshots_elsewhere() {
    for seed in 0..12 {
        let (here, mon, tue) = with_two_snapshots(seed);
        let there = Site::new();
        there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
        there.snapshot("copy", "mon");
        there.import("copy", &here.stream(Some("mon"), "tue", None).unwrap()).unwrap();
        there.snapshot("copy", "tue");
        assert!(there.content("mon") == mon, "seed {seed}");
        assert!(there.content("tue") == tue, "seed {seed}");
        assert!(there.content("copy") == tue, "seed {seed}");
        assert_eq!(list(&there.store).unwrap().len(), 3);
    }
}

#[test]
fn an_increment_has_what_differs_and_little_else() {
    let site = Site::new();
    site.create("disk", 1 << 30);
    site.with("disk", |disk| (0..64).for_each(|block| disk.write(block * OBJECT, &vec![1; 1 << 16])));
    site.snapshot("disk", "mon");
    site.with("disk", |disk| disk.write(17 * OBJECT + 4096, &[2; 4096]));
    site.snapshot("disk", "tue");
    let stream = site.stream(Some("mon"), "tue", None).unwrap();
    assert!(stream.len() < 4096 + 1024, "{} bytes", stream.len());
}

#[test]
fn a_copy_of_a_copy_takes_increments_from_the_original_and_the_other_way_round() {
    let (first, mon, tue) = with_two_snapshots(1);
    let (second, third) = (Site::new(), Site::new());
    second.import("copy", &first.stream(None, "mon", None).unwrap()).unwrap();
    second.snapshot("copy", "mon");
    third.import("copy", &second.stream(None, "mon", None).unwrap()).unwrap();
    assert_eq!(third.header("copy").content, Some(first.id("mon")));
    // From the original to the copy of the copy, and by way of the copy.
    let increment = first.stream(Some("mon"), "tue", None).unwrap();
    second.import("copy", &increment).unwrap();
    second.snapshot("copy", "tue");
    third.import("copy", &second.stream(Some("mon"), "tue", None).unwrap()).unwrap();
    assert!(third.content("copy") == tue && second.content("mon") == mon);
    // Back again, as the reverse increment, into a clone of the original's.
    third.snapshot("copy", "tue");
    third.import("copy", &first.stream(Some("tue"), "mon", None).unwrap()).unwrap();
    assert!(third.content("copy") == mon && third.content("tue") == tue);
}

#[test]
fn an_increment_for_another_content_is_refused_and_changes_nothing() {
    let (here, mon, _) = with_two_snapshots(2);
    let there = Site::new();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    there.create("own", mon.len() as u64);
    there.import("copy", &here.stream(None, "tue", None).unwrap()).unwrap();
    let needed = here.id("mon").to_string();
    for volume in ["own", "copy"] {
        let before = (there.content(volume), there.header(volume).content);
        let error = there.import(volume, &increment).unwrap_err();
        assert_eq!(error.volume_kind(), Some(VolumeErrorKind::Busy), "{error}");
        assert!(volume == "copy" || error.to_string().contains(&needed), "{error}");
        assert!(before == (there.content(volume), there.header(volume).content));
    }
    assert_eq!(there.import("nowhere", &increment).unwrap_err().volume_kind(), Some(VolumeErrorKind::NotFound));
}

#[test]
fn a_volume_that_a_guest_may_write_takes_no_increment_any_more() {
    let (here, _, _) = with_two_snapshots(3);
    let there = Site::new();
    there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
    there.with("copy", |disk| before_writing(&there.store, &disk.volume).unwrap());
    assert_eq!(there.header("copy").content, None);
    let error = there.import("copy", &here.stream(Some("mon"), "tue", None).unwrap()).unwrap_err();
    assert!(error.to_string().contains("none that is known"), "{error}");
}

#[test]
fn sizes_follow_the_stream_and_leave_nothing_behind() {
    let here = Site::new();
    here.create("disk", 8 * OBJECT);
    here.with("disk", |disk| disk.write(0, &vec![1; 8 << 16]));
    here.snapshot("disk", "large");
    here.resize("disk", 3 * OBJECT + 1024);
    here.with("disk", |disk| disk.write(OBJECT, &[2; 512]));
    here.snapshot("disk", "small");
    here.resize("disk", 6 * OBJECT);
    here.with("disk", |disk| disk.write(5 * OBJECT, &[3; 512]));
    here.snapshot("disk", "grown");
    let there = Site::new();
    there.import("copy", &here.stream(None, "large", None).unwrap()).unwrap();
    for (from, to) in [("large", "small"), ("small", "grown"), ("grown", "large"), ("large", "grown")] {
        there.import("copy", &here.stream(Some(from), to, None).unwrap()).unwrap();
        assert!(there.content("copy") == here.content(to), "{from} to {to}");
        assert_eq!(there.header("copy").content, Some(here.id(to)));
    }
}

#[test]
fn a_volume_of_another_size_than_what_it_received_takes_no_increment() {
    let (here, mon, _) = with_two_snapshots(8);
    let there = Site::new();
    there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
    there.resize("copy", mon.len() as u64 - 512);
    assert_eq!(there.header("copy").content, None);
}

#[test]
fn a_rolled_back_copy_takes_the_increment_again() {
    let (here, _, tue) = with_two_snapshots(9);
    let there = Site::new();
    there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
    there.snapshot("copy", "mon");
    there.with("copy", |disk| {
        before_writing(&there.store, &disk.volume).unwrap();
        disk.write(0, &[9; 4096]);
    });
    rollback(&there.store, &name("copy"), &name("mon"), &there.options).unwrap();
    there.import("copy", &here.stream(Some("mon"), "tue", None).unwrap()).unwrap();
    assert!(there.content("copy") == tue);
}

#[test]
fn a_full_stream_leaves_an_existing_volume_alone() {
    let (here, mon, _) = with_two_snapshots(4);
    let there = Site::new();
    let stream = here.stream(None, "mon", None).unwrap();
    there.import("copy", &stream).unwrap();
    assert_eq!(there.import("copy", &stream).unwrap_err().volume_kind(), Some(VolumeErrorKind::Exists));
    assert!(there.content("copy") == mon);
    assert_eq!(list(&there.store).unwrap().len(), 1);
}

#[test]
fn only_snapshots_are_exported_as_streams() {
    let (here, _, _) = with_two_snapshots(5);
    let error = here.stream(None, "disk", None).unwrap_err();
    assert!(error.to_string().contains("no snapshot"), "{error}");
    let error = here.stream(Some("mon"), "mon", None).unwrap_err();
    assert!(error.to_string().contains("nothing to export"), "{error}");
}

#[test]
fn a_stream_goes_through_a_pipe() {
    let (here, mon, tue) = with_two_snapshots(6);
    let there = Site::new();
    for (from, to) in [(None, "mon"), (Some("mon"), "tue")] {
        let (reader, writer) = std::io::pipe().unwrap();
        let request = StreamRequest { name: name(to), from: from.map(name), resume: None };
        std::thread::scope(|scope| {
            let target = File::from(OwnedFd::from(writer));
            let export = || export_stream(&here.store, &request, &here.options, target, &Job::default());
            let exporting = scope.spawn(export);
            there.import_file("copy", File::from(OwnedFd::from(reader)), &Job::default()).unwrap();
            exporting.join().unwrap().unwrap();
        });
        assert!(there.content("copy") == *if to == "mon" { &mon } else { &tue });
    }
}

#[test]
fn an_export_whose_reader_goes_away_fails() {
    let (here, _, _) = with_two_snapshots(7);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let request = StreamRequest { name: name("mon"), from: None, resume: None };
    let target = File::from(OwnedFd::from(writer));
    let error = export_stream(&here.store, &request, &here.options, target, &Job::default()).unwrap_err();
    assert!(matches!(error, TransferError::WriteImage(_)), "{error}");
}
