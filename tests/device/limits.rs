//! A limited volume, as its guest's driver sees it. The clock of the limits is set by the test; the queue's thread sleeps
//! by the kernel's, and finds that no time has passed.

#![allow(unsafe_code, reason = "the driver takes shared memory")]

use super::driver::Disk;
use super::machine::{DATA, Machine, WRITE};
use super::served::{Served, eventually};
use archvhost::clock::Monotonic;
use archvhost::map::format::header::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use virtio_driver::VirtioFeatureFlags;

#[derive(Default)]
struct SetByHand(AtomicU64);

impl Monotonic for SetByHand {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Limited to a request per millisecond.
fn limited(queues: u16) -> (Served, Arc<SetByHand>) {
    let (served, clock) = (Served::with_queues(queues), Arc::new(SetByHand::default()));
    served.volume.set_limits_clock(Arc::clone(&clock) as Arc<dyn Monotonic>);
    served.volume.set_limits_in_memory(Limits { iops: 1000, ..Limits::default() });
    (served, clock)
}

fn writes(served: &Served) -> u64 {
    served.device.statistics().iter().map(|queue| queue.writes).sum()
}

#[test]
fn a_driver_gets_as_many_requests_as_the_limit_allows_and_each_is_done_once() {
    let (served, clock) = limited(1);
    let mut disk = Disk::new(&served, 1, VirtioFeatureFlags::RING_EVENT_IDX);
    for number in 0..20 {
        let place = disk.slot_address(2).wrapping_add(512 * number);
        // SAFETY: shared memory, untouched until the request is finished.
        unsafe { disk.queues[0].write_raw(512 * number as u64, place, 512, number).unwrap() }
    }
    disk.finish(0, 0);
    eventually("all are taken", || served.device.statistics()[0].in_flight == 20);
    assert_eq!(writes(&served), 0);
    for (at, expected) in [(3, 3), (4, 4), (11, 11)] {
        clock.0.store(at, Ordering::SeqCst);
        eventually("those whose turn has come are written", || writes(&served) >= expected);
        thread::sleep(Duration::from_millis(3));
        assert_eq!(writes(&served), expected, "and no more");
    }
    clock.0.store(20, Ordering::SeqCst);
    let results = disk.finish(0, 20);
    assert!(results.iter().enumerate().all(|(i, result)| *result == (i, 0)), "{results:?}");
}

#[test]
fn requests_that_are_held_back_cost_no_processor_time() {
    let (served, _clock) = limited(1);
    served.volume.set_limits_in_memory(Limits { iops: 1, ..Limits::default() });
    let mut disk = Disk::new(&served, 1, VirtioFeatureFlags::empty());
    let place = disk.slot_address(2);
    // SAFETY: shared memory, untouched until the request is finished.
    unsafe { disk.queues[0].write_raw(0, place, 512, 0).unwrap() }
    disk.finish(0, 0);
    eventually("it is taken", || served.device.statistics()[0].in_flight == 1);
    let before = served.queue_cpu_time();
    thread::sleep(Duration::from_millis(300));
    let used = served.queue_cpu_time() - before;
    assert!(used < Duration::from_millis(30), "{used:?}");
    served.volume.set_limits_in_memory(Limits::default());
    assert_eq!(disk.finish(0, 1), [(0, 0)]);
}

#[test]
fn a_queue_that_is_stopped_finishes_what_was_held_back() {
    let (served, _clock) = limited(1);
    let machine = Machine::start(&served, 1);
    for number in 0..8_u64 {
        let header = DATA + 32 * number;
        machine.ram.put(header, &[1, 0, 0, 0, 0, 0, 0, 0]);
        machine.ram.put(header + 8, &number.to_le_bytes());
        machine.ram.put(header + 16, &[0xee]);
        machine.submit(0, &[(header, 16, 0), (DATA + 0x1000, 512, 0), (header + 16, 1, WRITE)]);
    }
    eventually("all are taken", || served.device.statistics()[0].in_flight == 8);
    // The clock stands still: at the limited rate this would last for ever.
    assert_eq!(vhost::VhostBackend::get_vring_base(&machine.frontend, 0).unwrap(), 8);
    assert_eq!(machine.used_index(0), 8);
    assert!((0..8).all(|number| machine.ram.get(DATA + 32 * number + 16, 1) == [0]));
}
