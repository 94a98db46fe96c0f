//! A holder that was cut off while it could not know: what it still does hurts nobody, and it learns of it soon.

use crate::host::{Host, PLACES, Site, name};
use archvhost::store::FreeLock;
use archvhost::volume::{Access, OpenOptions, Port, Request, Volume};
use std::thread;
use std::time::{Duration, Instant};

/// A holder with content, stopped; and another host, which has cut it off and opened the volume.
fn stopped_and_replaced(site: &Site, valid_for: Duration) -> (Host, Host) {
    let mut first = site.host_that_looks("a", valid_for);
    first.ask("open").unwrap();
    for place in 0..PLACES {
        first.ask(&format!("write {place} {}", 100 + place)).unwrap();
    }
    first.ask("flush").unwrap();
    first.stop();
    let mut second = site.host("b");
    assert!(second.ask("open").unwrap_err().contains("in use by"));
    let report = second.ask("break").unwrap();
    assert_eq!(report, format!("process {} on host a (held: true, fenced: false)", first.pid()));
    second.ask("open").unwrap();
    (first, second)
}

#[test]
fn c17_a_holder_that_was_stopped_looks_before_it_goes_on() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let (mut first, mut second) = stopped_and_replaced(&site, Duration::from_millis(300));
    second.ask("write 1 21").unwrap();
    thread::sleep(Duration::from_millis(400));
    first.order("write 1 11");
    first.go_on();
    let error = first.answer().unwrap_err();
    assert!(error.starts_with("Superseded "), "{error}");
    for order in ["read 1", "flush", "write 2 12"] {
        assert!(first.ask(order).unwrap_err().starts_with("Superseded "));
    }
    assert!(first.ask("close").is_err());
    assert_eq!(second.read(1), 21);
    assert_eq!(second.read(2), 102);
}

#[test]
fn an_idle_holder_learns_that_it_was_cut_off() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let (mut first, _second) = stopped_and_replaced(&site, Duration::from_millis(300));
    first.go_on();
    let start = Instant::now();
    while first.ask("read 1").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_reader_that_was_cut_off_reads_nothing_any_more() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let mut first = site.host("a");
    first.ask("open").unwrap();
    first.ask("write 1 11").unwrap();
    first.ask("close").unwrap();
    let mut reader = site.host_that_looks("b", Duration::from_millis(100));
    reader.ask("view").unwrap();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(reader.read(1), 11, "a look that shows nothing hinders nobody");
    assert!(first.ask("open").unwrap_err().contains("is being read"));
    first.ask("break").unwrap();
    // Twice: the header that the first opening made is gone after the second.
    for order in ["open", "write 1 12", "close", "open"] {
        first.ask(order).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let error = reader.ask("read 1").unwrap_err();
    assert!(error.starts_with("Superseded "), "{error}");
    assert!(reader.ask("read 2").unwrap_err().starts_with("Superseded "));
}

/// Its last look counts for an hour, so nothing keeps it from writing: the longest window that there can be.
#[test]
fn c4_late_writes_of_a_holder_that_was_cut_off_never_show() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let (mut first, mut second) = stopped_and_replaced(&site, Duration::from_secs(3600));
    // Seen once, so it must not change; and written, so it is the other's.
    assert_eq!((second.read(1), second.read(2)), (101, 102));
    second.ask("write 2 22").unwrap();
    second.ask("snapshot before").unwrap();
    first.go_on();
    for place in 0..PLACES {
        first.ask(&format!("write {place} {}", 900 + place)).unwrap();
    }
    let error = first.ask("flush").unwrap_err();
    assert!(error.starts_with("Superseded "), "{error}");
    second.ask("snapshot after").unwrap();
    let expected = |place| if place == 2 { 22 } else { 100 + place };
    (0..PLACES).for_each(|place| assert_eq!(second.read(place), expected(place), "place {place}"));
    second.ask("close").unwrap();
    for volume in ["before", "after", "web"] {
        assert_eq!(values(&site, volume), (0..PLACES).map(expected).collect::<Vec<_>>(), "{volume}");
    }
}

/// The same while the other host reads and copies: each place is seen with one value, old or new, and keeps it.
#[test]
fn c4_late_writes_show_either_always_or_never() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let mut first = site.host("a");
    first.ask("open").unwrap();
    (0..PLACES).for_each(|place| drop(first.ask(&format!("write {place} {}", 100 + place)).unwrap()));
    first.ask("flush").unwrap();
    let mut second = site.host("b");
    second.ask("break").unwrap();
    // The first goes on writing all the while.
    for place in 0..PLACES {
        first.order(&format!("write {place} {}", 900 + place));
    }
    second.ask("open").unwrap();
    let seen: Vec<u64> = (0..PLACES).map(|place| second.read(place)).collect();
    (0..PLACES).for_each(|_| drop(first.answer()));
    for (place, seen) in (0..PLACES).zip(&seen) {
        assert!([100 + place, 900 + place].contains(seen), "place {place}: {seen}");
    }
    second.ask("snapshot s").unwrap();
    for place in 0..PLACES {
        drop(first.ask(&format!("write {place} {}", 1900 + place)));
    }
    let again: Vec<u64> = (0..PLACES).map(|place| second.read(place)).collect();
    assert_eq!(again, seen);
    assert_eq!(values(&site, "s"), seen);
}

/// What a volume that nobody has holds, place by place.
fn values(site: &Site, volume: &str) -> Vec<u64> {
    let options = OpenOptions { access: Access::ReadOnly, ..site.options("c") };
    let volume = Volume::open(&site.store(), &name(volume), &options).unwrap();
    let port = Port::open(&volume).unwrap();
    let read = |place: u64| {
        let buffer = archvhost::store::Buffer::zeroed(4096);
        let range = archvhost::units::ByteRange::new(place * crate::host::PLACE, crate::host::PLACE);
        let read = port.block_on(port.request(Request::Read { range, buffer })).unwrap();
        crate::host::value_of(&read.unwrap().to_vec())
    };
    (0..PLACES).map(read).collect()
}
