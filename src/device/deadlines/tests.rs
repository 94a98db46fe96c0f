//! Who is given up when: the clock is what each test says it is.

use super::*;
use crate::device::late::LATE_BYTES_MAX;
use crate::units::VolumeName;
use crate::volume::Stability;

const TIMEOUT: u64 = 1000;
const NONE: [u32; 0] = [];

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

fn deadlines() -> Deadlines {
    let late = Arc::new(LateRequests::new(VolumeName::new("v").unwrap()));
    Deadlines::new(Duration::from_nanos(TIMEOUT), late, Arc::new(Nobody), 8)
}

fn write(offset: u64, len: usize) -> Request {
    let range = ByteRange::new(offset, len as u64);
    Request::Write { range, buffer: Buffer::zeroed(len), stability: Stability::Cached }
}

impl Deadlines {
    fn begin_at(&mut self, now: u64, tag: u32, request: Request) {
        self.now = Some(now);
        let wait = self.admit(&request) == Admission::Wait;
        assert_eq!(self.begin(tag, request, wait).is_none(), wait);
    }

    /// Gives up what is overdue, with these held back.
    fn overdue_at(&mut self, now: u64, held_back: &[u32]) -> Vec<u32> {
        self.now = Some(now);
        let tags: Vec<u32> = self.overdue(|| held_back.to_vec()).iter().map(|overdue| overdue.tag).collect();
        tags.iter().for_each(|tag| self.give_up(*tag));
        tags
    }
}

#[test]
fn each_request_is_given_up_when_its_own_time_is_over_and_not_before() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 512));
    deadlines.begin_at(600, 2, write(512, 512));
    assert_eq!(deadlines.overdue_at(999, &[]), NONE);
    assert_eq!(deadlines.overdue_at(1000, &[]), [1]);
    assert_eq!(deadlines.overdue_at(1599, &[]), NONE);
    assert_eq!(deadlines.overdue_at(1600, &[]), [2]);
    assert!(deadlines.is_late(1) && deadlines.is_late(2));
}

#[test]
fn a_request_that_ended_in_time_is_forgotten() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 512));
    deadlines.begin_at(10, 2, write(512, 512));
    deadlines.end(1, None);
    assert_eq!(deadlines.overdue_at(1000, &[]), NONE);
    deadlines.end(2, None);
    assert_eq!(deadlines.time_left(), None, "an idle queue sleeps without a limit");
    deadlines.begin_at(5000, 1, write(0, 512));
    assert_eq!(deadlines.overdue_at(5999, &[]), NONE);
}

#[test]
fn the_time_of_a_request_begins_when_limits_let_it_start() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 512));
    deadlines.hold(1);
    for now in [250, 500, 750, 1000, 1250] {
        assert_eq!(deadlines.overdue_at(now, &[1]), NONE, "at {now}");
    }
    // It started at some time until the next look.
    assert_eq!(deadlines.overdue_at(1500, &[]), NONE);
    assert_eq!(deadlines.overdue_at(2499, &[]), NONE);
    assert_eq!(deadlines.overdue_at(2500, &[]), [1]);
}

#[test]
fn who_looks_much_too_late_gives_the_store_more_time_once() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 512));
    assert_eq!(deadlines.overdue_at(9000, &[]), NONE);
    assert_eq!(deadlines.overdue_at(9249, &[]), NONE);
    assert_eq!(deadlines.overdue_at(9999, &[]), [1]);
}

#[test]
fn what_waited_for_a_late_change_starts_when_that_has_ended() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 1024));
    assert_eq!(deadlines.overdue_at(1000, &[]), [1]);
    deadlines.begin_at(1001, 2, write(512, 1024));
    deadlines.begin_at(1001, 3, write(1024, 512));
    assert!(deadlines.freed().is_empty());
    deadlines.end_late(1);
    assert_eq!(deadlines.freed().iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [2]);
    assert!(deadlines.freed().is_empty());
}

#[test]
fn what_was_given_up_while_it_waited_is_not_late() {
    let mut deadlines = deadlines();
    deadlines.begin_at(0, 1, write(0, 512));
    assert_eq!(deadlines.overdue_at(1000, &[]), [1]);
    deadlines.begin_at(1001, 2, write(0, 512));
    assert_eq!(deadlines.overdue_at(2001, &[]), [2]);
    assert!(!deadlines.is_late(2));
    deadlines.end_late(1);
    assert!(deadlines.freed().is_empty());
}

#[test]
fn data_of_requests_in_flight_are_bounded() {
    let mut deadlines = deadlines();
    let large = usize::try_from(PRIVATE_BYTES_MAX).unwrap();
    deadlines.begin_at(0, 1, write(0, large));
    assert!(!deadlines.has_room());
    assert_eq!(deadlines.overdue_at(1000, &[]), [1]);
    assert!(deadlines.has_room());
    deadlines.begin_at(1000, 2, write(PRIVATE_BYTES_MAX, large));
    assert_eq!(deadlines.overdue_at(2000, &[]), [2]);
    assert_eq!(2 * PRIVATE_BYTES_MAX, LATE_BYTES_MAX);
    assert_eq!(deadlines.admit(&write(1 << 30, 512)), Admission::Refuse);
    deadlines.end_late(1);
    assert_eq!(deadlines.admit(&write(1 << 30, 512)), Admission::Go);
}
