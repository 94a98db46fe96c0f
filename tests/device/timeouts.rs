//! A store that does not answer in time: the guest gets errors, and nothing that it was told about is undone later.
//!
//! Operations are held before they reach the store, so that a late write happens when the test lets it: what must
//! wait for it would be overtaken if it did not.

use super::machine::{DATA, Machine, PROTOCOL_FEATURES, RING_SIZE, VERSION_1, WRITE};
use super::served::{Served, eventually};
use super::stuck::{A_WHILE, on_data, served_with};
use archvhost::device::{DeviceOptions, RequestTimeout};
use archvhost::map::format::header::Limits;
use archvhost::store::faulty::{Action, Faults, Rule, RuleId};
use archvhost::store::{ObjectName, Op};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vhost::VhostBackend;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const BODY: u64 = DATA + 0x1_0000;
const FLUSH_FEATURE: u64 = 1 << 9;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNANSWERED: u8 = 0xee;

/// Longer than anything on a healthy store takes on a busy machine, shorter than a test may.
const TIMEOUT: Duration = Duration::from_millis(400);
/// The last moment at which an answer may come: a clock's ticks, and a quarter when the thread itself was late.
const AT_LAST: Duration = Duration::from_millis(1500);

fn served(queues: u16) -> (Served, Arc<Faults>) {
    served_with(&DeviceOptions { queues, request_timeout: RequestTimeout::After(TIMEOUT), ..DeviceOptions::default() })
}

/// With a write cache, so that writes in place are single operations of the store.
fn start(served: &Served, queues: u16) -> Machine {
    let mut machine = Machine::connect(served, queues, VERSION_1 | PROTOCOL_FEATURES | FLUSH_FEATURE);
    (0..usize::from(queues)).for_each(|queue| machine.start_queue(queue, 0));
    machine
}

fn first_data_operation(faults: &Faults, action: Action) -> RuleId {
    let rule = Rule::when(
        |op| match op {
            Op::Read { object, .. }
            | Op::Write { object, .. }
            | Op::Create { object, .. }
            | Op::Zero { object, .. } => matches!(object, ObjectName::Data { .. }),
            _ => false,
        },
        action,
    );
    faults.add(rule.times(1))
}

/// One request with a place of its own in the guest's memory for header, data and status, so that several may be out.
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    fn header(self) -> u64 {
        DATA + 64 * self.0
    }

    fn status_at(self) -> u64 {
        self.header() + 16
    }

    fn body(self) -> u64 {
        BODY + 4096 * self.0
    }

    fn submit(self, machine: &Machine, queue: usize, kind: u32, sector: u64, data: &[(u64, u32, u16)]) {
        machine.ram.put(self.header(), &kind.to_le_bytes());
        machine.ram.put(self.header() + 4, &[0; 4]);
        machine.ram.put(self.header() + 8, &sector.to_le_bytes());
        machine.ram.put(self.status_at(), &[UNANSWERED]);
        machine.submit(queue, &[&[(self.header(), 16, 0)], data, &[(self.status_at(), 1, WRITE)]].concat());
    }

    fn write(self, machine: &Machine, queue: usize, sector: u64, byte: u8) {
        machine.ram.put(self.body(), &[byte; 512]);
        self.submit(machine, queue, OUT, sector, &[(self.body(), 512, 0)]);
    }

    fn read(self, machine: &Machine, queue: usize, sector: u64) {
        machine.ram.put(self.body(), &[0xaa; 512]);
        self.submit(machine, queue, IN, sector, &[(self.body(), 512, WRITE)]);
    }

    fn segment(self, machine: &Machine, queue: usize, kind: u32, sector: u64, sectors: u32) {
        machine.ram.put(self.body(), &sector.to_le_bytes());
        machine.ram.put(self.body() + 8, &sectors.to_le_bytes());
        machine.ram.put(self.body() + 12, &[0; 4]);
        self.submit(machine, queue, kind, 0, &[(self.body(), 16, 0)]);
    }

    fn answer(self, machine: &Machine) -> u8 {
        machine.ram.get(self.status_at(), 1)[0]
    }

    fn wait(self, machine: &Machine) -> u8 {
        eventually("the request is answered", || self.answer(machine) != UNANSWERED);
        self.answer(machine)
    }

    fn data(self, machine: &Machine) -> Vec<u8> {
        machine.ram.get(self.body(), 512)
    }
}

fn write(machine: &Machine, queue: usize, sector: u64, byte: u8) -> u8 {
    Slot(60).write(machine, queue, sector, byte);
    Slot(60).wait(machine)
}

fn read(machine: &Machine, queue: usize, sector: u64) -> (u8, Vec<u8>) {
    Slot(61).read(machine, queue, sector);
    (Slot(61).wait(machine), Slot(61).data(machine))
}

/// A write of 1 to sector 0 that the guest got an error for, and that happens when the rule is removed. The block was written before,
/// so it and what follows are writes in place.
fn late_write(machine: &Machine, faults: &Faults) -> RuleId {
    assert_eq!(write(machine, 0, 0, 9), OK);
    let held = first_data_operation(faults, Action::Hold);
    assert_eq!(write(machine, 0, 0, 1), IOERR);
    held
}

#[test]
fn a_request_that_the_store_does_not_answer_gets_an_error_in_time_and_others_go_on() {
    let (served, faults) = served(2);
    let machine = start(&served, 2);
    assert_eq!(write(&machine, 0, 0, 9), OK);
    let held = first_data_operation(&faults, Action::Hold);
    let start = Instant::now();
    Slot(0).write(&machine, 0, 0, 1);
    eventually("the store has it", || served.device.statistics()[0].in_flight == 1);
    assert_eq!([write(&machine, 0, 2048, 2), write(&machine, 1, 4096, 3)], [OK; 2]);
    assert_eq!(Slot(0).wait(&machine), IOERR);
    assert!((TIMEOUT..AT_LAST).contains(&start.elapsed()), "{:?}", start.elapsed());
    let statistics = served.device.statistics()[0];
    assert_eq!((statistics.errors, statistics.in_flight), (1, 0));
    faults.remove(held);
}

#[test]
fn service_resumes_by_itself_when_the_store_answers_again() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    assert_eq!(write(&machine, 0, 0, 9), OK);
    let silent = on_data(&faults, Action::Hold);
    assert_eq!((write(&machine, 0, 0, 1), read(&machine, 0, 8).0), (IOERR, IOERR));
    faults.remove(silent);
    assert_eq!(write(&machine, 0, 0, 2), OK);
    assert_eq!(read(&machine, 0, 0), (OK, vec![2; 512]));
}

#[test]
fn a_late_read_does_not_touch_the_guests_memory() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    assert_eq!(write(&machine, 0, 0, 9), OK);
    let held = first_data_operation(&faults, Action::Hold);
    Slot(0).read(&machine, 0, 0);
    assert_eq!(Slot(0).wait(&machine), IOERR);
    faults.remove(held);
    // A read beside it that ends after it.
    assert_eq!(read(&machine, 0, 0), (OK, vec![9; 512]));
    thread::sleep(A_WHILE);
    assert_eq!((Slot(0).data(&machine), Slot(0).answer(&machine)), (vec![0xaa; 512], IOERR));
    assert_eq!(machine.used_index(0), 3, "answered once");
}

#[test]
fn a_write_has_the_bytes_that_the_guest_gave_it() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    let held = late_write(&machine, &faults);
    machine.ram.put(Slot(60).body(), &[0xbb; 512]);
    faults.remove(held);
    assert_eq!(read(&machine, 0, 0), (OK, vec![1; 512]));
}

#[test]
fn a_late_write_never_overwrites_a_newer_one() {
    let (served, faults) = served(2);
    let machine = start(&served, 2);
    let held = late_write(&machine, &faults);
    Slot(0).write(&machine, 0, 0, 2);
    Slot(1).write(&machine, 1, 8, 3);
    assert_eq!(Slot(1).wait(&machine), OK, "what lies beside it does not wait");
    thread::sleep(A_WHILE);
    assert_eq!(Slot(0).answer(&machine), UNANSWERED);
    faults.remove(held);
    assert_eq!(Slot(0).wait(&machine), OK);
    assert_eq!(read(&machine, 1, 0), (OK, vec![2; 512]));
}

#[test]
fn a_newer_write_through_another_queue_waits_as_well_and_is_woken() {
    let (served, faults) = served(2);
    let machine = start(&served, 2);
    let held = late_write(&machine, &faults);
    Slot(0).write(&machine, 1, 0, 2);
    thread::sleep(A_WHILE);
    assert_eq!(Slot(0).answer(&machine), UNANSWERED);
    faults.remove(held);
    assert_eq!(Slot(0).wait(&machine), OK);
    assert_eq!(read(&machine, 0, 0), (OK, vec![2; 512]));
}

#[test]
fn what_waits_for_a_late_write_gets_an_error_itself_and_never_happens() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    let held = late_write(&machine, &faults);
    assert_eq!((write(&machine, 0, 0, 2), read(&machine, 0, 0).0), (IOERR, IOERR));
    faults.remove(held);
    assert_eq!(read(&machine, 0, 0), (OK, vec![1; 512]));
}

#[test]
fn late_zeroes_and_discards_never_overwrite_a_newer_write() {
    // The last drops a whole block, which asks no store, before it comes to a part of the next one.
    for (kind, sectors) in [(WRITE_ZEROES, 8), (WRITE_ZEROES, 2048), (DISCARD, 128), (DISCARD, 2048 + 128)] {
        let (served, faults) = served(1);
        let machine = start(&served, 1);
        assert_eq!([write(&machine, 0, 0, 9), write(&machine, 0, 2048, 9)], [OK; 2]);
        let held = first_data_operation(&faults, Action::Hold);
        Slot(0).segment(&machine, 0, kind, 0, sectors);
        assert_eq!(Slot(0).wait(&machine), IOERR, "kind {kind}, {sectors} sectors");
        Slot(1).write(&machine, 0, 0, 2);
        thread::sleep(A_WHILE);
        assert_eq!(Slot(1).answer(&machine), UNANSWERED, "kind {kind}, {sectors} sectors");
        faults.remove(held);
        assert_eq!(Slot(1).wait(&machine), OK);
        assert_eq!(read(&machine, 0, 0), (OK, vec![2; 512]), "kind {kind}, {sectors} sectors");
    }
}

#[test]
fn a_stop_is_not_held_up_and_the_rule_holds_after_a_new_start() {
    let (served, faults) = served(1);
    let mut machine = start(&served, 1);
    let held = late_write(&machine, &faults);
    let start = Instant::now();
    let base = machine.frontend.get_vring_base(0).unwrap();
    assert!(start.elapsed() < TIMEOUT, "nothing is unanswered: {:?}", start.elapsed());
    machine.start_queue(0, u16::try_from(base).unwrap());
    Slot(0).write(&machine, 0, 0, 2);
    assert_eq!(write(&machine, 0, 8, 3), OK, "the new queue works");
    thread::sleep(A_WHILE);
    assert_eq!(Slot(0).answer(&machine), UNANSWERED);
    faults.remove(held);
    assert_eq!(Slot(0).wait(&machine), OK);
    assert_eq!(read(&machine, 0, 0), (OK, vec![2; 512]));
}

#[test]
fn a_stop_waits_for_unanswered_requests_no_longer_than_their_time() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    assert_eq!(write(&machine, 0, 0, 9), OK);
    let silent = on_data(&faults, Action::Hold);
    Slot(0).write(&machine, 0, 0, 1);
    Slot(1).read(&machine, 0, 8);
    eventually("the store has both", || served.device.statistics()[0].in_flight == 2);
    let start = Instant::now();
    machine.frontend.get_vring_base(0).unwrap();
    assert!(start.elapsed() < AT_LAST, "{:?}", start.elapsed());
    assert_eq!([Slot(0).answer(&machine), Slot(1).answer(&machine)], [IOERR; 2]);
    faults.remove(silent);
}

#[test]
fn a_front_end_leaves_in_time_the_next_one_is_served_and_the_device_settles_with_the_store() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    let held = late_write(&machine, &faults);
    drop(machine);
    served.end().unwrap();
    let machine = start(&served, 1);
    assert_eq!(write(&machine, 0, 8, 3), OK);
    Slot(0).write(&machine, 0, 0, 2);
    drop(machine.frontend);
    served.end().unwrap();
    let device = Arc::clone(&served.device);
    let settling = thread::spawn(move || device.settle());
    thread::sleep(A_WHILE);
    assert!(!settling.is_finished(), "the first write is under way");
    faults.remove(held);
    settling.join().unwrap();
    let machine = start(&served, 1);
    assert_eq!(read(&machine, 0, 0), (OK, vec![1; 512]), "the second one got an error before it started");
}

#[test]
fn a_head_of_a_late_request_is_used_again_at_once() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    let silent = on_data(&faults, Action::Hold);
    // More rounds than the ring has heads for: every head is late several times.
    let rounds = 4;
    let per_round = u64::from(RING_SIZE / 3) - 1;
    for round in 0..rounds {
        let sector = |i: u64| 8 * (round * per_round + i);
        (0..per_round).for_each(|i| Slot(i).write(&machine, 0, sector(i), 1));
        (0..per_round).for_each(|i| assert_eq!(Slot(i).wait(&machine), IOERR));
    }
    faults.remove(silent);
    (0..rounds * per_round).for_each(|i| assert_eq!(read(&machine, 0, 8 * i), (OK, vec![1; 512])));
    assert_eq!(served.device.statistics()[0].errors, rounds * per_round);
}

#[test]
fn a_flush_that_was_answered_early_leaves_nothing_out_of_the_next() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    assert_eq!(write(&machine, 0, 0, 9), OK);
    let silent = faults.add(Rule::when(|_| true, Action::Hold));
    Slot(0).submit(&machine, 0, FLUSH, 0, &[]);
    assert_eq!(Slot(0).wait(&machine), IOERR);
    Slot(1).submit(&machine, 0, FLUSH, 0, &[]);
    thread::sleep(A_WHILE);
    assert_eq!(Slot(1).answer(&machine), UNANSWERED);
    faults.remove(silent);
    assert_eq!(Slot(1).wait(&machine), OK);
    assert_eq!(write(&machine, 0, 0, 2), OK);
    Slot(2).submit(&machine, 0, FLUSH, 0, &[]);
    assert_eq!(Slot(2).wait(&machine), OK);
}

#[test]
fn requests_that_only_limits_hold_back_get_no_errors() {
    let (served, _faults) = served(1);
    let machine = start(&served, 1);
    // Eight requests at four a second take four times the time-out.
    served.volume.set_limits_in_memory(Limits { iops: 4, iops_burst: 1, ..Limits::default() });
    (0..8).for_each(|i| Slot(i).write(&machine, 0, 8 * i, 5));
    (0..8).for_each(|i| assert_eq!(Slot(i).wait(&machine), OK, "request {i}"));
    assert_eq!(served.device.statistics()[0].errors, 0);
}

#[test]
fn late_requests_hold_a_bounded_amount_of_memory_and_the_next_get_errors_at_once() {
    let (served, faults) = served(1);
    let machine = start(&served, 1);
    let silent = on_data(&faults, Action::Hold);
    let mib = 1 << 20;
    // Each of a place of its own.
    for i in 0..64 {
        let parts: Vec<(u64, u32, u16)> = (0..4).map(|_| (BODY, 256 << 10, 0)).collect();
        Slot(i % 32).submit(&machine, 0, OUT, i * mib / 512, &parts);
        if i % 8 == 7 {
            (i - 7..=i).for_each(|i| assert_eq!(Slot(i % 32).wait(&machine), IOERR));
        }
    }
    let start = Instant::now();
    assert_eq!(write(&machine, 0, 62 * 2048, 1), IOERR);
    assert!(start.elapsed() < TIMEOUT, "at once: {:?}", start.elapsed());
    faults.remove(silent);
    eventually("there is room again", || write(&machine, 0, 62 * 2048, 1) == OK);
}
