use crate::scene::{OBJECT, Random, SECTOR, Site, len, name};
use archvhost::admin::diff::{Difference, Flow, diff};
use archvhost::admin::job::Job;
use archvhost::units::ByteRange;
use archvhost::volume::VolumeErrorKind;

fn differences(site: &Site, from: &str, to: &str) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut visit = |difference| {
        all.push(difference);
        Flow::GoOn
    };
    diff(&site.store, &name(from), &name(to), &site.options, &mut visit, &Job::default()).unwrap();
    all
}

fn data(offset: u64, len: u64) -> Difference {
    Difference { range: ByteRange::new(offset, len), zero: false }
}

#[test]
fn a_snapshot_does_not_differ_from_itself_or_from_an_unchanged_volume() {
    let site = Site::new();
    site.create("disk", 10 * OBJECT);
    site.with("disk", |disk| disk.write(OBJECT, &[1; 4096]));
    site.snapshot("disk", "mon");
    assert_eq!(differences(&site, "mon", "mon"), []);
    assert_eq!(differences(&site, "mon", "disk"), []);
}

#[test]
fn a_write_to_a_shared_block_differs_in_its_granules_only() {
    let site = Site::new();
    site.create("disk", 10 * OBJECT);
    site.with("disk", |disk| disk.write(0, &vec![1; 3 << 16]));
    site.snapshot("disk", "mon");
    site.with("disk", |disk| {
        disk.write(OBJECT + 8192, &[2; 4096]);
        disk.write(OBJECT + 12288, &[2; 512]);
        disk.write(2 * OBJECT, &vec![2; 1 << 16]);
        disk.write(7 * OBJECT, &[2; 512]);
    });
    site.snapshot("disk", "tue");
    let expected = [data(OBJECT + 8192, 8192), data(2 * OBJECT, OBJECT), data(7 * OBJECT, OBJECT)];
    assert_eq!(differences(&site, "mon", "tue"), expected);
}

#[test]
fn a_dropped_block_is_a_difference_that_reads_as_zeros() {
    let site = Site::new();
    site.create("disk", 4 * OBJECT);
    site.with("disk", |disk| disk.write(0, &vec![1; 4 << 16]));
    site.snapshot("disk", "mon");
    site.with("disk", |disk| {
        let range = ByteRange::new(OBJECT, 2 * OBJECT);
        disk.request(archvhost::volume::Request::Discard { range });
    });
    let expected = [Difference { range: ByteRange::new(OBJECT, 2 * OBJECT), zero: true }];
    assert_eq!(differences(&site, "mon", "disk"), expected);
}

#[test]
fn whoever_visits_can_stop() {
    let site = Site::new();
    site.create("disk", 10 * OBJECT);
    site.snapshot("disk", "mon");
    site.with("disk", |disk| [1, 3, 5].into_iter().for_each(|block| disk.write(block * OBJECT, &[1; 512])));
    let mut visited = 0;
    let mut visit = |_| {
        visited += 1;
        Flow::Stop
    };
    diff(&site.store, &name("mon"), &name("disk"), &site.options, &mut visit, &Job::default()).unwrap();
    assert_eq!(visited, 1);
}

#[test]
fn a_volume_that_is_open_for_writing_is_not_compared() {
    let site = Site::new();
    site.create("disk", OBJECT);
    site.snapshot("disk", "mon");
    let disk = site.open("disk");
    let mut visit = |_| Flow::GoOn;
    let error = diff(&site.store, &name("mon"), &name("disk"), &site.options, &mut visit, &Job::default());
    assert_eq!(error.unwrap_err().kind(), VolumeErrorKind::Held);
    disk.close();
}

/// Checks what a difference promises: outside of it the bytes are equal, and where it says zero they are zero.
fn check(differences: &[Difference], from: &[u8], to: &[u8]) {
    let mut at = 0;
    for Difference { range, zero } in differences {
        let (start, end) = (len(range.offset), len(range.offset + range.len));
        assert!(at <= start && start < end && end <= from.len().max(to.len()), "{differences:?}");
        assert!(from[at..start] == to[at..start], "a difference between {at} and {start} was not found");
        assert!(!zero || to[start..end].iter().all(|byte| *byte == 0), "{start}..{end} is not zero");
        at = end;
    }
    assert!(from[at..] == to[at..], "a difference behind {at} was not found");
}

#[test]
fn no_difference_between_any_two_of_a_family_is_missed() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let site = Site::new();
        let bytes = 40 * OBJECT + SECTOR * random.below(64);
        site.create("disk", bytes);
        let mut model = vec![0; len(bytes)];
        let mut known = Vec::new();
        for step in 0..4 {
            site.with("disk", |disk| (0..12).for_each(|_| disk.change(&mut random, &mut model)));
            let (snapshot, clone) = (format!("snap{step}"), format!("clone{step}"));
            site.snapshot("disk", &snapshot);
            known.push((snapshot.clone(), model.clone()));
            site.clone_of(&snapshot, &clone);
            let mut other = model.clone();
            site.with(&clone, |disk| (0..6).for_each(|_| disk.change(&mut random, &mut other)));
            known.push((clone, other));
        }
        for (from, old) in &known {
            for (to, new) in &known {
                check(&differences(&site, from, to), old, new);
            }
        }
    }
}
