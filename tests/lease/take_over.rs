//! Who gets a volume, and when.

use crate::host::Site;
use archvhost::store::FreeLock;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_second_is_told_who_holds_the_volume() {
    let site = Site::new(FreeLock::ProvesNothing);
    let (mut first, mut second) = (site.host("a"), site.host("b"));
    first.ask("open").unwrap();
    let error = second.ask("open").unwrap_err();
    assert!(error.starts_with("Held "), "{error}");
    assert!(error.ends_with(&format!("is in use by process {} on host a", first.pid())), "{error}");
    first.ask("write 1 11").unwrap();
    first.ask("close").unwrap();
    second.ask("open").unwrap();
    assert_eq!(second.read(1), 11);
}

#[test]
fn m12_a_killed_holder_of_this_host_is_taken_over_at_once_with_all_it_had_completed() {
    for free_lock in [FreeLock::ProvesTheEnd, FreeLock::ProvesNothing] {
        let site = Site::new(free_lock);
        let mut first = site.host("a");
        first.ask("open").unwrap();
        first.ask("write 1 11").unwrap();
        first.kill();
        let mut second = site.host("a");
        second.ask("open").unwrap();
        assert_eq!(second.read(1), 11);
        second.ask("write 1 12").unwrap();
        second.kill();
        let mut third = site.host("a");
        third.ask("open").unwrap();
        assert_eq!(third.read(1), 12);
    }
}

#[test]
fn a_free_lock_proves_the_end_of_its_holder_where_one_host_uses_the_store() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let mut first = site.host("a name that the host had");
    first.ask("open").unwrap();
    first.kill();
    let mut second = site.host("a");
    second.ask("open").unwrap();
}

#[test]
fn a_killed_holder_of_another_host_is_refused_until_it_is_given_up() {
    let site = Site::new(FreeLock::ProvesNothing);
    let mut first = site.host("a");
    first.ask("open").unwrap();
    for place in 0..8 {
        first.ask(&format!("write {place} {}", 10 + place)).unwrap();
    }
    first.ask("flush").unwrap();
    first.kill();
    let mut second = site.host("b");
    let whom = format!("process {} on host a", first.pid());
    for _ in 0..2 {
        let error = second.ask("open").unwrap_err();
        assert!(error.starts_with("Held ") && error.contains(&whom) && error.contains("unlock --force"), "{error}");
    }
    // Also by a process of the host that was refused, and had the lock for a moment.
    assert!(site.host("b").ask("open").unwrap_err().contains(&whom));
    assert_eq!(second.ask("break").unwrap(), format!("{whom} (held: false, fenced: false)"));
    second.ask("open").unwrap();
    (0..8).for_each(|place| assert_eq!(second.read(place), 10 + place));
    second.ask("snapshot s").unwrap();
    // What was in doubt is accounted for: nobody asks again.
    second.kill();
    let mut third = site.host("b");
    third.ask("open").unwrap();
    (0..8).for_each(|place| assert_eq!(third.read(place), 10 + place));
}

#[test]
fn a_volume_is_not_removed_while_its_last_holder_is_in_doubt() {
    let site = Site::new(FreeLock::ProvesNothing);
    let mut first = site.host("a");
    first.ask("open").unwrap();
    first.ask("write 1 11").unwrap();
    first.kill();
    let mut second = site.host("b");
    for _ in 0..2 {
        let error = second.ask("remove").unwrap_err();
        assert!(error.starts_with("Held ") && error.contains(&format!("process {} on host a", first.pid())), "{error}");
    }
    second.ask("break").unwrap();
    second.ask("remove").unwrap();
}

#[test]
fn a_killed_holder_of_another_host_is_taken_over_at_once_when_it_can_be_fenced() {
    let site = Site::new(FreeLock::ProvesNothing);
    let mut first = site.host("a");
    first.ask("open").unwrap();
    first.ask("write 1 11").unwrap();
    first.ask("flush").unwrap();
    first.kill();
    let (fence, fenced) = (site.directory.path().join("fence"), site.directory.path().join("fenced"));
    fs::write(&fence, format!("#!/bin/sh\necho \"$1 $2\" >> {}\n", fenced.display())).unwrap();
    fs::set_permissions(&fence, fs::Permissions::from_mode(0o755)).unwrap();
    let mut second = site.host("b");
    second.ask("open").unwrap();
    assert_eq!(second.read(1), 11);
    assert_eq!(fs::read_to_string(&fenced).unwrap(), "a web\n", "once, with the host and the volume");
}

#[test]
fn c2_of_those_that_race_for_a_dead_holder_one_wins() {
    let site = Site::new(FreeLock::ProvesNothing);
    for round in 0..5 {
        let mut first = site.host("a");
        first.ask("open").unwrap();
        first.ask(&format!("write 1 {round}")).unwrap();
        first.kill();
        let mut racers = [(); 4].map(|()| site.host("a"));
        racers.iter_mut().for_each(|racer| racer.order("open"));
        let answers = racers.each_mut().map(|racer| racer.answer());
        let winners: Vec<_> = answers.iter().zip(racers).filter(|(answer, _)| answer.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let losers = answers.iter().filter_map(|answer| answer.as_ref().err());
        losers.for_each(|error| assert!(error.starts_with("Held "), "{error}"));
        let (_, mut winner) = winners.into_iter().next().unwrap();
        assert_eq!(winner.read(1), round);
        winner.ask("close").unwrap();
    }
}
