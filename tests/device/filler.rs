//! Front-ends that keep their call and error descriptors full, so that whoever signals them blocks: they can hold up their
//! own queue, but not its stop, nor a change of the descriptor.

use super::machine::{DATA, Machine, PROTOCOL_FEATURES, VERSION_1, WRITE};
use super::served::{Served, eventually};
use rustix::fs::OFlags;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vmm_sys_util::eventfd::EventFd;

/// A stop takes this long at most, on a busy machine too.
const BOUND: Duration = Duration::from_secs(5);

const FULL: u64 = u64::MAX - 1;

fn blocking() -> EventFd {
    EventFd::new(libc::EFD_CLOEXEC).unwrap()
}

/// Threads that wait for any room in a descriptor's counter and fill it at once.
struct Filler {
    event: EventFd,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Filler {
    fn of(event: &EventFd) -> Self {
        event.write(FULL).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let fill = |event: EventFd, done: Arc<AtomicBool>| {
            thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let _ = event.write(FULL);
                }
            })
        };
        let threads = (0..3).map(|_| fill(event.try_clone().unwrap(), Arc::clone(&done))).collect();
        Self { event: event.try_clone().unwrap(), done, threads }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        #[allow(unsafe_code, reason = "the library shows its descriptor as a number only")]
        // SAFETY: open for as long as `self.event` lives.
        let event = unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) };
        rustix::fs::fcntl_setfl(event, OFlags::NONBLOCK).unwrap();
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                let _ = self.event.read();
                thread::yield_now();
            }
            let _ = thread.join();
        }
    }
}

/// A machine of so many queues with blocking descriptors, and a queue's thread that is about to signal a full one.
fn machine(served: &Served, queues: u16) -> Machine {
    let mut machine = Machine::connect(served, queues, VERSION_1 | PROTOCOL_FEATURES);
    for queue in 0..usize::from(queues) {
        (machine.queues[queue].call, machine.queues[queue].error) = (blocking(), blocking());
        machine.start_queue(queue, 0);
        machine.queues[queue].call.read().unwrap();
    }
    machine
}

/// Has the device answer a request on the queue and interrupt.
fn provoke_interrupt(machine: &Machine, queue: usize) {
    machine.header(0, 0);
    machine.submit(queue, &[(DATA, 16, 0), (DATA + 0x1000, 512, WRITE), (DATA + 16, 1, WRITE)]);
    machine.wait_used(queue, 1);
    thread::sleep(Duration::from_millis(20));
}

fn stops_in_time(served: &Served) {
    let start = Instant::now();
    served.device.stop();
    served.end().unwrap();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

#[test]
fn call_descriptors_that_are_kept_full_do_not_hold_up_a_stop() {
    let served = Served::with_queues(16);
    let machine = machine(&served, 16);
    let _fillers: Vec<Filler> = machine.queues.iter().map(|queue| Filler::of(&queue.call)).collect();
    (0..16).for_each(|queue| provoke_interrupt(&machine, queue));
    stops_in_time(&served);
}

#[test]
fn an_error_descriptor_that_is_kept_full_does_not_hold_up_a_stop() {
    let served = Served::with_queues(1);
    let machine = machine(&served, 1);
    let _filler = Filler::of(&machine.queues[0].error);
    machine.set_available_index(0, u16::MAX);
    machine.kick(0);
    thread::sleep(Duration::from_millis(20));
    stops_in_time(&served);
}

#[test]
fn a_call_descriptor_that_is_kept_full_can_be_replaced() {
    let served = Served::with_queues(1);
    let mut machine = machine(&served, 1);
    let filler = Filler::of(&machine.queues[0].call);
    provoke_interrupt(&machine, 0);
    machine.queues[0].call = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    machine.frontend.set_vring_call(0, &machine.queues[0].call).unwrap();
    eventually("the new one is signalled", || machine.queues[0].call.read().is_ok());
    drop(filler);
    stops_in_time(&served);
}

#[test]
fn a_call_descriptor_and_its_replacement_that_are_both_kept_full_do_not_hold_up_a_stop() {
    let served = Served::with_queues(1);
    let mut machine = machine(&served, 1);
    let _old = Filler::of(&machine.queues[0].call);
    provoke_interrupt(&machine, 0);
    machine.queues[0].call = blocking();
    let _new = Filler::of(&machine.queues[0].call);
    machine.frontend.set_vring_call(0, &machine.queues[0].call).unwrap();
    stops_in_time(&served);
}
