//! A device that is stopped under load, and a front-end that goes on with the next one: nothing is done twice, nothing lost.

use super::machine::{DATA, Machine, WRITE};
use super::served::{PATIENCE, Served, eventually};
use super::stuck;
use archvhost::device::{Device, DeviceOptions};
use archvhost::store::Op;
use archvhost::store::faulty::{Action, Rule};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const QUEUES: u16 = 2;
const OUT: u32 = 1;

/// A header and a status per request; 16 requests of three descriptors fit each ring of 64.
const DEPTH: u16 = 16;
const BODY: u64 = DATA + 0x10_0000;

/// Puts a write of its own sector on the queue.
fn write(machine: &Machine, queue: usize, number: u64) {
    let (header, body) = (DATA + 32 * number, BODY + 512 * number);
    machine.ram.put(header, &OUT.to_le_bytes());
    machine.ram.put(header + 4, &[0; 4]);
    machine.ram.put(header + 8, &number.to_le_bytes());
    machine.ram.put(body, &[number.to_le_bytes()[0]; 512]);
    machine.submit(queue, &[(header, 16, 0), (body, 512, 0), (header + 16, 1, WRITE)]);
}

fn writes_of(device: &Device) -> u64 {
    device.statistics().iter().map(|queue| queue.writes).sum()
}

/// How often each head is in the queue's used ring.
fn finished(machine: &Machine, queue: usize) -> BTreeMap<u32, u32> {
    let mut heads = BTreeMap::new();
    (0..machine.used_index(queue)).for_each(|index| *heads.entry(machine.used(queue, index).0).or_default() += 1);
    heads
}

#[test]
fn a_stop_under_load_and_a_reconnection_do_each_request_once() {
    let (served, faults) = stuck::served(QUEUES);
    let mut machine = Machine::start(&served, QUEUES);
    let slow = Action::Delay(Duration::from_millis(20));
    faults.add(Rule::when(|op| matches!(op, Op::Write { .. }), slow));
    for number in 0..u64::from(DEPTH) {
        (0..usize::from(QUEUES)).for_each(|queue| write(&machine, queue, 2 * number + queue as u64));
    }
    eventually("some are taken", || served.device.statistics().iter().all(|queue| queue.in_flight != 0));

    served.device.stop();
    // Whatever the device said before, the front-end looks at its rings when it sees the end.
    assert_eq!(machine.socket().read(&mut [0]).unwrap(), 0, "closed");
    let next = served.another_device(&DeviceOptions { queues: QUEUES, ..DeviceOptions::default() });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = Arc::clone(&next);
    let thread = thread::spawn(move || serving.serve(theirs));
    machine.reconnect(ours);

    let all = u64::from(QUEUES * DEPTH);
    eventually("all are done", || writes_of(&served.device) + writes_of(&next) >= all);
    (0..usize::from(QUEUES)).for_each(|queue| machine.wait_used(queue, DEPTH));
    next.stop();
    thread.join().unwrap().unwrap();
    served.end().unwrap();
    assert_eq!(writes_of(&served.device) + writes_of(&next), all, "none is done twice");
    for queue in 0..usize::from(QUEUES) {
        let once: BTreeMap<u32, u32> = (0..u32::from(DEPTH)).map(|number| (3 * number, 1)).collect();
        assert_eq!(finished(&machine, queue), once);
    }
}

#[test]
fn the_front_end_sees_the_end_only_when_its_requests_are_finished() {
    let (served, faults) = stuck::served(1);
    let machine = Machine::start(&served, 1);
    let held = stuck::on_data(&faults, Action::Hold);
    write(&machine, 0, 0);
    eventually("it is taken", || served.device.statistics()[0].in_flight == 1);
    served.device.stop();
    let mut socket = machine.socket();
    socket.set_read_timeout(Some(stuck::A_WHILE)).unwrap();
    let before = socket.read(&mut [0]);
    faults.remove(held);
    assert!(before.is_err(), "not closed yet");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    assert_eq!(machine.used_index(0), 1);
}

#[test]
fn a_front_end_that_reads_no_replies_cannot_keep_its_device_from_stopping() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    stream.set_write_timeout(Some(stuck::A_WHILE)).unwrap();
    // GET_FEATURES, until both directions are full: the device sleeps in its reply.
    let asking = super::messages::frame(1, super::messages::VERSION, &[]);
    while super::messages::send(&stream, &asking, &[]) {}
    assert!(served.device.is_connected());
    served.device.stop();
    served.end().unwrap();
}
