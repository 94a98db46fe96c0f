use crate::scene::{OBJECT, Site, name};
use archvhost::admin::increment::received::before_writing;
use archvhost::admin::info::list;
use archvhost::admin::job::Job;
use archvhost::admin::remove::remove;
use archvhost::admin::transfer::TransferError;
use archvhost::volume::VolumeErrorKind;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

const HEAD_BYTES: usize = 512;
const RECORD_BYTES: usize = 24 + 32;

/// Snapshots of a volume, the second of which differs in every other block: each a record of its own.
fn site() -> (Site, Vec<u8>, Vec<u8>) {
    let site = Site::new();
    site.create("disk", 16 * OBJECT);
    site.with("disk", |disk| (0..16).step_by(2).for_each(|block| disk.write(block * OBJECT, &vec![1; 1 << 16])));
    site.snapshot("disk", "mon");
    let mon = site.content("mon");
    site.with("disk", |disk| {
        (0..14).step_by(2).for_each(|block| disk.write(block * OBJECT + 4096, &[2; 8192]));
        disk.write(14 * OBJECT, &vec![0; 1 << 16]);
    });
    site.snapshot("disk", "tue");
    let tue = site.content("tue");
    (site, mon, tue)
}

/// Where each record ends.
fn ends_of_records(stream: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (vec![HEAD_BYTES], HEAD_BYTES);
    while at < stream.len() {
        let kind = u32::from_le_bytes(stream[at..at + 4].try_into().unwrap());
        let data = u64::from_le_bytes(stream[at + 16..at + 24].try_into().unwrap());
        at += RECORD_BYTES + if kind == 1 { usize::try_from(data).unwrap() } else { 0 };
        ends.push(at);
    }
    ends
}

/// The token in an import's failure.
fn token(error: &TransferError) -> String {
    let text = error.to_string();
    let (_, rest) = text.split_once("--resume ").unwrap_or_else(|| panic!("no token in: {text}"));
    rest.split(' ').next().unwrap().to_owned()
}

#[test]
fn an_increment_interrupted_at_any_record_goes_on_to_the_same_content() {
    let (here, mon, tue) = site();
    let full = here.stream(None, "mon", None).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    let ends = ends_of_records(&increment);
    assert!(ends.len() > 8, "{ends:?}");
    for end in &ends[1..ends.len() - 1] {
        let there = Site::new();
        there.import("copy", &full).unwrap();
        there.snapshot("copy", "mon");
        let error = there.import("copy", &increment[..*end]).unwrap_err();
        let half = there.header("copy");
        assert_eq!((half.content, half.receiving.unwrap().to), (Some(here.id("mon")), here.id("tue")));
        let rest = here.stream(Some("mon"), "tue", Some(token(&error))).unwrap();
        assert!(rest.len() < increment.len(), "the rest is less than the whole");
        there.import("copy", &rest).unwrap();
        assert!(there.content("copy") == tue && there.content("mon") == mon, "interrupted at {end}");
        let whole = there.header("copy");
        assert_eq!((whole.content, whole.receiving), (Some(here.id("tue")), None));
    }
}

#[test]
fn a_full_import_interrupted_at_any_record_goes_on_under_its_own_name() {
    let (here, _, tue) = site();
    let full = here.stream(None, "tue", None).unwrap();
    let ends = ends_of_records(&full);
    for end in &ends[1..ends.len() - 1] {
        let there = Site::new();
        let error = there.import("copy", &full[..*end]).unwrap_err();
        let listed: Vec<_> = list(&there.store).unwrap().into_iter().map(|(name, _)| name.to_string()).collect();
        assert!(listed.len() == 1 && listed[0].starts_with("importing.copy."), "{listed:?}");
        // The whole again is told how to go on.
        let again = there.import("copy", &full).unwrap_err();
        assert_eq!(again.volume_kind(), Some(VolumeErrorKind::Exists));
        assert_eq!(token(&again), token(&error));
        there.import("copy", &here.stream(None, "tue", Some(token(&error))).unwrap()).unwrap();
        assert!(there.content("copy") == tue, "interrupted at {end}");
        assert_eq!(list(&there.store).unwrap().len(), 1);
    }
}

#[test]
fn an_import_that_brought_nothing_leaves_everything_as_it_was() {
    let (here, mon, _) = site();
    let there = Site::new();
    let full = here.stream(None, "mon", None).unwrap();
    for len in [8, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 100] {
        there.import("copy", &full[..len]).unwrap_err();
        assert_eq!(list(&there.store).unwrap().len(), 0, "{len}");
    }
    there.import("copy", &full).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    there.import("copy", &increment[..HEAD_BYTES + 100]).unwrap_err();
    let header = there.header("copy");
    assert_eq!((header.content, header.receiving), (Some(here.id("mon")), None));
    assert!(there.content("copy") == mon);
}

#[test]
fn a_half_received_volume_is_not_for_guests_and_takes_no_other_stream() {
    let (here, _, tue) = site();
    here.with("disk", |disk| disk.write(0, &[9; 512]));
    here.snapshot("disk", "wed");
    let there = Site::new();
    there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    there.import("copy", &increment[..ends_of_records(&increment)[3]]).unwrap_err();
    let error = there.with("copy", |disk| before_writing(&there.store, &disk.volume)).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Busy);
    assert!(error.to_string().contains("half received"), "{error}");
    let other = there.import("copy", &here.stream(Some("mon"), "wed", None).unwrap()).unwrap_err();
    assert!(other.to_string().contains("must be finished first"), "{other}");
    // A snapshot of it is nobody's content.
    there.snapshot("copy", "half");
    assert_eq!(there.header("half").content, None);
    // The same increment from its beginning is as good as the rest of it.
    there.import("copy", &increment).unwrap();
    assert!(there.content("copy") == tue);
}

#[test]
fn a_rest_that_does_not_fit_is_refused() {
    let (here, mon, _) = site();
    let there = Site::new();
    let full = here.stream(None, "mon", None).unwrap();
    there.import("copy", &full).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    let ends = ends_of_records(&increment);
    let early = there.import("copy", &increment[..ends[2]]).unwrap_err();
    let late = {
        let elsewhere = Site::new();
        elsewhere.import("copy", &full).unwrap();
        token(&elsewhere.import("copy", &increment[..ends[6]]).unwrap_err())
    };
    let rest = here.stream(Some("mon"), "tue", Some(late.clone())).unwrap();
    let error = there.import("copy", &rest).unwrap_err();
    assert_eq!(token(&error), token(&early), "{error}");
    // Nor does the token go with other snapshots, or survive a slip of the pen.
    assert!(matches!(here.stream(None, "tue", Some(late.clone())), Err(TransferError::OtherToken(_))));
    assert!(matches!(here.stream(Some("mon"), "tue", Some(late[1..].into())), Err(TransferError::Token(_))));
    // A volume with nothing of the stream takes no rest.
    let fresh = Site::new();
    fresh.import("copy", &full).unwrap();
    assert!(fresh.import("copy", &rest).unwrap_err().to_string().contains("nothing of it"));
    assert!(fresh.content("copy") == mon);
}

#[test]
fn a_cancelled_import_from_a_silent_pipe_ends_and_can_go_on() {
    let (here, _, tue) = site();
    let there = Site::new();
    there.import("copy", &here.stream(None, "mon", None).unwrap()).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&increment[..ends_of_records(&increment)[4]]).unwrap();
    let job = Job::default();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while job.progress().done == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            job.cancel();
        });
        there.import_file("copy", File::from(OwnedFd::from(reader)), &job).unwrap_err()
    });
    assert!(error.to_string().starts_with("cancelled; "), "{error}");
    there.import("copy", &here.stream(Some("mon"), "tue", Some(token(&error))).unwrap()).unwrap();
    assert!(there.content("copy") == tue);
}

#[test]
fn a_stream_cannot_go_on_without_its_snapshots() {
    let (here, _, _) = site();
    let there = Site::new();
    let full = here.stream(None, "tue", None).unwrap();
    let error = there.import("copy", &full[..ends_of_records(&full)[2]]).unwrap_err();
    let _removed = remove(&here.store, &name("tue"), &Job::default()).unwrap();
    let gone = here.stream(None, "tue", Some(token(&error))).unwrap_err();
    assert_eq!(gone.volume_kind(), Some(VolumeErrorKind::NotFound));
}
