//! A store that takes its time, or fails: what the device does about requests in flight.

use super::machine::{DATA, Machine, RING_SIZE, Ram, WRITE};
use super::served::{Served, eventually};
use archvhost::device::DeviceOptions;
use archvhost::store::faulty::{Action, Faults, FaultyStore, Rule, RuleId};
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{ObjectName, Op, Store};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

const IN: u32 = 0;
const OUT: u32 = 1;
const BODY: u64 = DATA + 0x1000;
const WRITE_REQUEST: [(u64, u32, u16); 3] = [(DATA, 16, 0), (BODY, 512, 0), (DATA + 16, 1, WRITE)];

/// Long enough for anything that would go on by mistake.
pub(crate) const A_WHILE: Duration = Duration::from_millis(60);

pub(crate) fn served(queues: u16) -> (Served, Arc<Faults>) {
    served_with(&DeviceOptions { queues, ..DeviceOptions::default() })
}

pub(crate) fn served_with(options: &DeviceOptions) -> (Served, Arc<Faults>) {
    let store = FaultyStore::new(open("memory:", &StoreOptions::default()).unwrap());
    let faults = store.faults();
    let store: Arc<dyn Store> = Arc::new(store);
    (Served::on(&store, options), faults)
}

/// Does this to every operation on the volume's data.
pub(crate) fn on_data(faults: &Faults, action: Action) -> RuleId {
    let is_data = |object: &ObjectName| matches!(object, ObjectName::Data { .. });
    faults.add(Rule::when(
        move |op| match op {
            Op::Read { object, .. } | Op::Write { object, .. } | Op::Create { object, .. } => is_data(object),
            _ => false,
        },
        action,
    ))
}

/// Puts one write on queue 0 and waits until the device has it.
fn write_in_flight(served: &Served, machine: &Machine) {
    machine.header(OUT, 0);
    machine.ram.put(BODY, &[7; 512]);
    machine.submit(0, &WRITE_REQUEST);
    eventually("the request is taken", || served.device.statistics()[0].in_flight == 1);
}

#[test]
fn get_vring_base_waits_for_a_request_that_is_stuck_and_the_other_queue_does_not() {
    let (served, faults) = served(2);
    let machine = Machine::start(&served, 2);
    let held = on_data(&faults, Action::Hold);
    write_in_flight(&served, &machine);
    let frontend = machine.frontend.clone();
    let asking = thread::spawn(move || frontend.get_vring_base(0).unwrap());
    thread::sleep(A_WHILE);
    assert!(!asking.is_finished());
    assert_eq!(machine.used_index(0), 0);
    // Block 1 was never written: reading it asks no store.
    machine.ram.put(BODY + 0x1000, &[0; 16]);
    machine.ram.put(BODY + 0x1008, &(1_u64 << 11).to_le_bytes());
    machine.submit(1, &[(BODY + 0x1000, 16, 0), (BODY + 0x2000, 513, WRITE)]);
    machine.wait_used(1, 1);
    faults.remove(held);
    assert_eq!(asking.join().unwrap(), 1);
    assert_eq!((machine.used_index(0), machine.status()), (1, 0));
}

#[test]
fn a_front_end_that_leaves_while_a_request_is_stuck_is_waited_for() {
    let (served, faults) = served(1);
    let machine = Machine::start(&served, 1);
    let held = on_data(&faults, Action::Hold);
    write_in_flight(&served, &machine);
    let Machine { frontend, ram, .. } = machine;
    drop(frontend);
    thread::sleep(A_WHILE);
    assert!(served.device.is_connected(), "its memory is still needed");
    faults.remove(held);
    served.end().unwrap();
    assert_eq!(ram.get(DATA + 16, 1), [0], "finished with a status all the same");
    let again = Machine::start(&served, 1);
    assert_eq!(again.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
    assert_eq!(again.ram.get(BODY, 512), [7; 512]);
}

#[test]
fn memory_taken_out_of_the_table_stays_mapped_until_its_requests_are_finished() {
    let (served, faults) = served(1);
    let mut machine = Machine::start(&served, 1);
    machine.ram.put(BODY, &[9; 512]);
    assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (0, 1));
    let module = Ram::new(1 << 32, 1 << 20);
    machine.frontend.add_mem_region(&module.region()).unwrap();
    let held = on_data(&faults, Action::Hold);
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (module.guest_address, 513, WRITE)]);
    eventually("the request is taken", || served.device.statistics()[0].in_flight == 1);
    machine.frontend.remove_mem_region(&module.region()).unwrap();
    faults.remove(held);
    machine.wait_used(0, 2);
    assert_eq!(module.get(module.guest_address, 512), [9; 512]);
    assert_eq!(module.get(module.guest_address + 512, 1), [0], "its status too");
}

#[test]
fn a_head_made_available_twice_breaks_its_ring_and_the_first_request_is_finished() {
    let (served, faults) = served(1);
    let machine = Machine::start(&served, 1);
    let held = on_data(&faults, Action::Hold);
    write_in_flight(&served, &machine);
    machine.make_available(0, 0);
    machine.kick(0);
    eventually("the error descriptor tells", || machine.queues[0].error.read().is_ok());
    faults.remove(held);
    machine.wait_used(0, 1);
    assert_eq!(machine.status(), 0);
    assert_eq!(machine.frontend.get_vring_base(0).unwrap(), 2);
}

#[test]
fn a_disabled_ring_finishes_what_it_has_taken() {
    let (served, faults) = served(1);
    let mut machine = Machine::start(&served, 1);
    let held = on_data(&faults, Action::Hold);
    write_in_flight(&served, &machine);
    machine.frontend.set_vring_enable(0, false).unwrap();
    faults.remove(held);
    machine.wait_used(0, 1);
}

#[test]
fn a_store_that_fails_gives_the_guest_an_error_and_recovers() {
    let (served, faults) = served(1);
    let machine = Machine::start(&served, 1);
    let full = on_data(&faults, Action::Fail(libc::ENOSPC));
    for _ in 0..3 {
        assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (1, 1));
    }
    faults.remove(full);
    assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (0, 1));
    assert_eq!((served.device.statistics()[0].errors, served.device.statistics()[0].writes), (3, 4));
}

#[test]
fn a_ringful_of_requests_that_end_out_of_order_all_end() {
    let (served, faults) = served(1);
    let machine = Machine::start(&served, 1);
    let slow =
        faults.add(Rule::when(|op| matches!(op, Op::Write { .. }), Action::Delay(Duration::from_millis(5))).times(9));
    machine.header(OUT, 0);
    let count = RING_SIZE / 3;
    (0..count).for_each(|_| _ = machine.submit(0, &WRITE_REQUEST));
    machine.wait_used(0, count);
    let mut heads: Vec<u32> = (0..count).map(|index| machine.used(0, index).0).collect();
    heads.sort_unstable();
    assert_eq!(heads, (0..u32::from(count)).map(|i| 3 * i).collect::<Vec<_>>());
    faults.remove(slow);
}
