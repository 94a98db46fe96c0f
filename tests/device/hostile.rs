//! Guests and front-ends that do what they must not. The device answers with an error, or gives up that ring or that
//! connection; it never panics, and everybody else goes on.

use super::machine::{DATA, INDIRECT, Machine, PROTOCOL_FEATURES, RAM_BYTES, RING_SIZE, Ram, VERSION_1, WRITE};
use super::messages::{self, NEED_REPLY, VERSION, call, frame, receive, send};
use super::served::{Served, VOLUME_BYTES, eventually};
use archvhost::device::DeviceError;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::ftruncate;
use std::os::fd::AsFd;
use std::time::Duration;
use vhost::VhostBackend;

const IN: u32 = 0;
const OUT: u32 = 1;
const DISCARD: u32 = 11;
const BODY: u64 = DATA + 0x1000;
const OUTSIDE: u64 = RAM_BYTES as u64;
const LAST_SECTOR: u64 = VOLUME_BYTES / 512 - 1;

/// What it is, type, sector, data segments; expected status and used length.
type Case = (&'static str, u32, u64, &'static [(u64, u32, u16)], (u8, u32));

#[test]
fn requests_that_make_no_sense_are_answered_with_an_error() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    let (error, unsupported) = ((1, 1), (2, 1));
    let cases: [Case; 11] = [
        ("read past the end", IN, LAST_SECTOR, &[(BODY, 1024, WRITE)], error),
        ("write past the end", OUT, LAST_SECTOR, &[(BODY, 1024, 0)], error),
        ("sector that overflows", IN, u64::MAX, &[(BODY, 512, WRITE)], error),
        ("offset that overflows", OUT, u64::MAX / 512, &[(BODY, 512, 0)], error),
        ("half a sector", IN, 0, &[(BODY, 256, WRITE)], error),
        ("data outside memory", IN, 0, &[(OUTSIDE, 512, WRITE)], error),
        ("data partly outside memory", OUT, 0, &[(OUTSIDE - 256, 512, 0)], error),
        ("address that overflows", OUT, 0, &[(u64::MAX - 100, 512, 0)], error),
        ("no such type", 77, 0, &[], unsupported),
        ("half a discard segment", DISCARD, 0, &[(BODY, 8, 0)], error),
        ("two discard segments", DISCARD, 0, &[(BODY, 32, 0)], unsupported),
    ];
    for (what, kind, sector, data, expected) in cases {
        assert_eq!(machine.request(0, kind, sector, data), expected, "{what}");
    }
    assert_eq!(machine.request(0, IN, LAST_SECTOR, &[(BODY, 512, WRITE)]), (0, 513));
    assert_eq!(served.device.statistics()[0].errors, 11);
}

#[test]
fn overlapping_and_empty_segments_are_served() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    let overlapping = [(BODY, 512, WRITE), (BODY + 128, 512, WRITE)];
    assert_eq!(machine.request(0, IN, 0, &overlapping), (0, 1025));
    let with_empty = [(OUTSIDE, 0, WRITE), (BODY, 512, WRITE), (0, 0, WRITE)];
    assert_eq!(machine.request(0, IN, 0, &with_empty), (0, 513));
}

#[test]
fn a_header_split_over_descriptors_is_read_whole() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    machine.header(IN, 3);
    let pieces = [(DATA, 3, 0), (DATA + 3, 1, 0), (DATA + 4, 11, 0), (DATA + 15, 1, 0), (BODY, 513, WRITE)];
    machine.submit(0, &pieces);
    machine.wait_used(0, 1);
    assert_eq!((machine.used(0, 0).1, machine.ram.get(BODY + 512, 1)), (513, vec![0]));
}

/// Breaks queue 0 with `wrong` and checks that only queue 0 is broken, and that a restart mends it.
fn breaks_its_ring_only(wrong: impl FnOnce(&Machine)) {
    let served = Served::with_queues(2);
    let mut machine = Machine::start(&served, 2);
    wrong(&machine);
    machine.kick(0);
    eventually("the error descriptor tells", || machine.queues[0].error.read().is_ok());
    assert_eq!(machine.request(1, IN, 0, &[(BODY, 512, WRITE)]), (0, 513), "the other ring goes on");
    assert_eq!(machine.used_index(0), 0);

    machine.frontend.get_vring_base(0).unwrap();
    machine.set_available_index(0, 0);
    machine.start_queue(0, 0);
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513), "a new start mends it");
}

#[test]
fn an_available_index_that_jumps_breaks_its_ring_only() {
    breaks_its_ring_only(|machine| machine.set_available_index(0, RING_SIZE + 1));
    breaks_its_ring_only(|machine| machine.set_available_index(0, u16::MAX));
}

#[test]
fn a_head_outside_the_table_breaks_its_ring_only() {
    breaks_its_ring_only(|machine| machine.make_available(0, RING_SIZE));
    breaks_its_ring_only(|machine| machine.make_available(0, u16::MAX));
}

#[test]
fn a_chain_that_loops_breaks_its_ring_only() {
    breaks_its_ring_only(|machine| {
        machine.descriptor(0, 0, DATA, 16, 1, 1);
        machine.descriptor(0, 1, BODY, 512, 1 | WRITE, 0);
        machine.make_available(0, 0);
    });
}

#[test]
fn a_chain_without_room_for_a_status_breaks_its_ring_only() {
    breaks_its_ring_only(|machine| _ = machine.submit(0, &[(DATA, 16, 0)]));
    breaks_its_ring_only(|machine| _ = machine.submit(0, &[(DATA, 16, 0), (OUTSIDE, 1, WRITE)]));
}

#[test]
fn indirect_tables_of_impossible_length_break_their_ring_only() {
    for len in [0, 8, 17, 16 * 1025] {
        breaks_its_ring_only(|machine| _ = machine.submit(0, &[(BODY, len, INDIRECT)]));
    }
}

#[test]
fn nested_indirect_tables_are_answered_with_an_error() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    machine.header(IN, 0);
    machine.descriptor_at(BODY, BODY, 48, INDIRECT | 1, 1);
    machine.descriptor_at(BODY + 16, DATA, 16, 1, 2);
    machine.descriptor_at(BODY + 32, DATA + 16, 1, WRITE, 0);
    machine.submit(0, &[(BODY, 48, INDIRECT)]);
    machine.wait_used(0, 1);
    assert_eq!(machine.status(), 1);
}

#[test]
fn indirect_requests_are_served() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    machine.header(IN, 0);
    machine.descriptor_at(BODY, DATA, 16, 1, 2);
    machine.descriptor_at(BODY + 32, BODY + 4096, 513, WRITE, 0);
    machine.submit(0, &[(BODY, 48, INDIRECT)]);
    machine.wait_used(0, 1);
    assert_eq!((machine.used(0, 0).1, machine.ram.get(BODY + 4096 + 512, 1)), (513, vec![0]));
}

#[test]
fn a_front_end_that_truncates_its_memory_loses_its_connection_and_nobody_else_does() {
    let (victim, witness) = (Served::with_queues(1), Served::with_queues(1));
    let (machine, other) = (Machine::start(&victim, 1), Machine::start(&witness, 1));
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
    ftruncate(&machine.ram.file, 0).unwrap();
    machine.kick(0);
    assert!(matches!(victim.end(), Err(DeviceError::MemoryLost)));
    assert_eq!(other.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
    let again = Machine::start(&victim, 1);
    assert_eq!(again.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513), "an honest front-end is welcome");
}

#[test]
fn garbage_ends_the_connection_and_the_next_one_is_served() {
    let served = Served::with_queues(1);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let stream = served.connect();
        let len = usize::try_from(random() % 200).unwrap();
        let noise: Vec<u8> = (0..len).map(|_| random().to_le_bytes()[0]).collect();
        send(&stream, &noise, &[]);
        drop(stream);
        // Ends as an error or, when the noise was too short to be a message, as a disconnection; never by a panic.
        let _ = served.end();
    }
    let machine = Machine::start(&served, 1);
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn well_framed_messages_with_random_bodies_do_no_harm() {
    let served = Served::with_queues(2);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 11).unwrap() % below
    };
    let ram = Ram::new(0, 1 << 20);
    for _ in 0..100 {
        let stream = served.connect();
        for _ in 0..30 {
            let number = u32::try_from(random(48)).unwrap();
            let len = [0, 8, 8, 8, 12, 40, 40, 72][random(8)];
            let body: Vec<u8> = (0..len).map(|_| [0, 0, 0, 1, 0xff][random(5)]).collect();
            let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            let fds = [[event.as_fd(), ram.file.as_fd()], [ram.file.as_fd(), event.as_fd()]][random(2)];
            let fds = &fds[..random(3)];
            if !send(&stream, &frame(number, VERSION | NEED_REPLY, &body), fds) || receive(&stream).is_none() {
                break;
            }
        }
        drop(stream);
        let _ = served.end();
    }
    let machine = Machine::start(&served, 2);
    assert_eq!(machine.request(1, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn messages_with_wrong_framing_end_the_connection() {
    let served = Served::with_queues(1);
    let too_long = [1_u32, VERSION, 4097].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let huge = [1_u32, VERSION, u32::MAX].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let frames = [frame(1, 0, &[]), frame(1, 2, &[]), frame(1, VERSION | 4, &[]), too_long, huge];
    for bytes in frames {
        let stream = served.connect();
        send(&stream, &bytes, &[]);
        assert!(matches!(served.end(), Err(DeviceError::Protocol { .. })), "{bytes:?}");
    }
}

#[test]
fn too_many_descriptors_end_the_connection() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    let ram = Ram::new(0, 4096);
    send(&stream, &frame(5, VERSION | NEED_REPLY, &[0; 8]), &[ram.file.as_fd(); 40]);
    assert!(matches!(served.end(), Err(DeviceError::Protocol { .. })));
}

#[test]
fn missing_wrong_or_surplus_descriptors_are_refused() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    let (ram, event) = (Ram::new(0, 1 << 20), eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let (queue_0, region) = (0_u64.to_ne_bytes(), region_body(0, 1 << 20));
    let one_region = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &region[8..]].concat();
    for number in [12, 13, 14] {
        assert_eq!(call(&stream, number, &queue_0, &[]), Some(1), "{number}: none");
        assert_eq!(call(&stream, number, &queue_0, &[ram.file.as_fd()]), Some(1), "{number}: not an eventfd");
        assert_eq!(call(&stream, number, &queue_0, &[event.as_fd(); 2]), Some(1), "{number}: two");
        assert_eq!(call(&stream, number, &9_u64.to_ne_bytes(), &[event.as_fd()]), Some(1), "{number}: no such queue");
    }
    assert_eq!(call(&stream, 37, &region, &[]), Some(1));
    assert_eq!(call(&stream, 37, &region, &[event.as_fd()]), Some(1), "an eventfd cannot be mapped");
    assert_eq!(call(&stream, 37, &region[..32], &[ram.file.as_fd()]), Some(1), "too short");
    assert_eq!(call(&stream, 5, &one_region, &[]), Some(1));
    assert_eq!(call(&stream, 5, &one_region, &[ram.file.as_fd(); 2]), Some(1));
    assert_eq!(call(&stream, 5, &one_region[..16], &[ram.file.as_fd()]), Some(1));
    assert_eq!(call(&stream, 21, &[], &[]), Some(1));
    assert_eq!(call(&stream, 5, &one_region, &[ram.file.as_fd()]), Some(0), "and the right one is taken");
}

/// The body of ADD_MEM_REG.
fn region_body(guest: u64, size: u64) -> Vec<u8> {
    [0, guest, size, guest, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect()
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    let ram = Ram::new(0, 1 << 20);
    let add = |guest, size| call(&stream, 37, &region_body(guest, size), &[ram.file.as_fd()]);
    assert_eq!(add(0, 2 << 20), Some(1), "longer than its file");
    assert_eq!(add(0, 0), Some(1), "empty");
    assert_eq!(add(u64::MAX - 4096, 1 << 20), Some(1), "passes the end");
    assert_eq!(add(0, 1 << 20), Some(0));
    assert_eq!(add(1 << 19, 1 << 20), Some(1), "overlaps");
}

#[test]
fn only_so_many_regions_are_taken() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    let ram = Ram::new(0, 4096);
    for i in 0..509 {
        assert_eq!(call(&stream, 37, &region_body(i << 20, 4096), &[ram.file.as_fd()]), Some(0), "{i}");
    }
    assert_eq!(call(&stream, 37, &region_body(1 << 40, 4096), &[ram.file.as_fd()]), Some(1));
}

#[test]
fn bodies_of_the_wrong_size_are_refused() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    for number in [2, 5, 8, 9, 10, 12, 13, 14, 16, 18, 25, 37, 38, 39] {
        for body in [&[][..], &[0; 7], &[0; 41]] {
            assert_eq!(call(&stream, number, body, &[]), Some(1), "message {number} with {} bytes", body.len());
        }
    }
    assert_eq!(call(&stream, 40, &[], &[]), Some(0), "and it goes on");
}

#[test]
fn messages_of_features_not_offered_are_refused() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    for number in [6, 7, 19, 20, 22, 23, 32, 33, 35, 99] {
        assert_eq!(call(&stream, number, &[0; 8], &[]), Some(1), "message {number}");
    }
    send(&stream, &frame(31, VERSION | NEED_REPLY, &[0; 24]), &[]);
    assert!(matches!(served.end(), Err(DeviceError::Protocol { .. })), "one whose reply would have to be made up");
}

#[test]
fn a_front_end_that_fills_its_call_descriptor_cannot_keep_its_queue_from_stopping() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    let blocking = vmm_sys_util::eventfd::EventFd::new(libc::EFD_CLOEXEC).unwrap();
    machine.queues[0].call = blocking;
    machine.start_queue(0, 0);
    eventually("the call at the start", || machine.queues[0].call.read().is_ok());
    machine.queues[0].call.write(u64::MAX - 1).unwrap();
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (BODY, 512, WRITE), (DATA + 16, 1, WRITE)]);
    machine.wait_used(0, 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.frontend.get_vring_base(0).unwrap(), 1);
}

#[test]
fn config_reads_larger_than_a_message_are_answered_empty() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    for size in [4085_u32, u32::MAX] {
        let body: Vec<u8> = [0, size, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        send(&stream, &frame(24, messages::VERSION, &body), &[]);
        assert_eq!(receive(&stream), Some((24, Vec::new())));
    }
}
