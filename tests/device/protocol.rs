//! The rules of vhost-user, one test each.

use super::machine::{DATA, EVENT_IDX, Machine, PROTOCOL_FEATURES, RAM_BYTES, RING_SIZE, Ram, VERSION_1, WRITE};
use super::messages::{self, call, frame, receive, send};
use super::served::{Served, VOLUME_BYTES, eventually};
use archvhost::device::{DeviceError, DeviceOptions, Serial, Writes};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

const IN: u32 = 0;
const OUT: u32 = 1;
const GET_ID: u32 = 8;
const BODY: u64 = DATA + 0x1000;

const CONFIG_WCE: u64 = 1 << 11;
const FLUSH: u64 = 1 << 9;

fn config(machine: &mut Machine, offset: u32, len: u32) -> Vec<u8> {
    let room = vec![0; usize::try_from(len).unwrap()];
    machine.frontend.get_config(offset, len, VhostUserConfigFlags::empty(), &room).unwrap().1
}

fn has_signal(event: &vmm_sys_util::eventfd::EventFd) -> bool {
    event.read().is_ok()
}

#[test]
fn the_configuration_is_read_at_either_offset_and_any_length() {
    let served = Served::with_queues(4);
    let mut machine = Machine::connect(&served, 0, VERSION_1 | PROTOCOL_FEATURES);
    let whole = config(&mut machine, 0x100, 60);
    assert_eq!(whole[..8], (VOLUME_BYTES / 512).to_le_bytes());
    assert_eq!(config(&mut machine, 0x100, 8), whole[..8]);
    assert_eq!(config(&mut machine, 0x122, 2), 4_u16.to_le_bytes());
    let long = config(&mut machine, 0x100, 2048);
    assert_eq!(long[..60], whole);
    assert!(long[60..].iter().all(|byte| *byte == 0));

    // Offset 0, which the library refuses to send.
    let stream = served_after(served, machine);
    let body = [0_u32, 60, 0].iter().flat_map(|word| word.to_ne_bytes()).chain([0; 60]).collect::<Vec<_>>();
    send(&stream.1, &frame(24, messages::VERSION, &body), &[]);
    assert_eq!(receive(&stream.1).unwrap().1[12..], whole);
}

/// The served device with a fresh connection in place of the machine's.
fn served_after(served: Served, machine: Machine) -> (Served, UnixStream) {
    drop(machine);
    served.end().unwrap();
    let stream = served.connect();
    (served, stream)
}

#[test]
fn every_message_that_asks_for_a_reply_gets_one() {
    let served = Served::with_queues(1);
    // `connect` and `start` ask for a reply to everything and wait for it.
    let mut machine = Machine::start(&served, 1);
    machine.frontend.set_vring_enable(0, false).unwrap();
    machine.frontend.reset_device().unwrap();
    machine.frontend.reset_owner().unwrap();
    assert_eq!(machine.frontend.get_queue_num().unwrap(), 1);
    assert_eq!(machine.frontend.get_max_mem_slots().unwrap(), 509);
}

#[test]
fn a_refused_message_is_told_and_the_connection_goes_on() {
    let served = Served::with_queues(2);
    let mut machine = Machine::start(&served, 2);
    assert!(machine.frontend.set_vring_num(0, 48).is_err(), "not a power of two");
    assert!(machine.frontend.set_vring_num(0, RING_SIZE / 2).is_err(), "running");
    assert!(machine.frontend.set_vring_base(0, 3).is_err(), "running");
    assert!(machine.frontend.set_vring_num(2, RING_SIZE).is_err(), "no such queue");
    assert!(machine.frontend.set_vring_enable(63, true).is_err(), "no such queue");
    assert!(machine.frontend.set_features(1 << 26).is_err(), "not offered");
    assert!(machine.frontend.add_mem_region(&machine.ram.region()).is_err(), "overlaps");
    let unknown = VhostUserMemoryRegionInfo { guest_phys_addr: 1 << 40, ..machine.ram.region() };
    assert!(machine.frontend.remove_mem_region(&unknown).is_err(), "unknown region");
    assert_eq!(machine.request(1, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn a_refused_message_that_asks_for_no_reply_ends_the_connection() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    send(&stream, &frame(8, messages::VERSION, &[0; 8]), &[]);
    assert!(matches!(served.end(), Err(DeviceError::Protocol { .. })));
    assert!(receive(&stream).is_none());
}

#[test]
fn get_vring_base_is_answered_when_nothing_is_in_flight() {
    let served = Served::with_queues(1);
    let mut machine = Machine::start(&served, 1);
    machine.header(OUT, 0);
    for round in 0..40_u16 {
        (0..16).for_each(|_| _ = machine.submit(0, &[(DATA, 16, 0), (BODY, 4096, 0), (DATA + 16, 1, WRITE)]));
        let base = machine.frontend.get_vring_base(0).unwrap();
        let used = machine.used_index(0);
        assert_eq!(base, u32::from(used), "round {round}: all that was taken is finished");
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(machine.used_index(0), used, "round {round}: a stopped ring stays as it is");
        machine.start_queue(0, used);
        machine.wait_used(0, 16 * (round + 1));
    }
}

#[test]
fn a_ring_that_never_started_gives_its_base_back() {
    let served = Served::with_queues(1);
    let machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    machine.frontend.set_vring_base(0, 77).unwrap();
    assert_eq!(machine.frontend.get_vring_base(0).unwrap(), 77);
}

#[test]
fn requests_made_while_a_ring_was_stopped_are_served_when_it_starts_without_a_kick() {
    let served = Served::with_queues(1);
    let mut machine = Machine::start(&served, 1);
    let base = machine.frontend.get_vring_base(0).unwrap();
    machine.header(IN, 0);
    machine.descriptor(0, 0, DATA, 16, 1, 1);
    machine.descriptor(0, 1, BODY, 513, WRITE, 0);
    machine.make_available(0, 0);
    machine.start_queue(0, u16::try_from(base).unwrap());
    machine.wait_used(0, 1);
    assert_eq!(machine.ram.get(BODY + 512, 1), [0], "the status is the last writable byte");
}

#[test]
fn a_disabled_ring_takes_nothing_until_it_is_enabled() {
    let served = Served::with_queues(1);
    let mut machine = Machine::start(&served, 1);
    machine.frontend.set_vring_enable(0, false).unwrap();
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (BODY, 512, WRITE), (DATA + 16, 1, WRITE)]);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(machine.used_index(0), 0);
    machine.frontend.set_vring_enable(0, true).unwrap();
    machine.wait_used(0, 1);
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1);
    machine.set_up_queue(0, 0);
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn the_call_descriptor_is_signalled_at_the_start_and_when_it_is_replaced() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    machine.set_up_queue(0, 0);
    assert!(!has_signal(&machine.queues[0].call), "nobody is notified while all rings are stopped");
    machine.frontend.set_vring_enable(0, true).unwrap();
    eventually("a call at the start", || has_signal(&machine.queues[0].call));
    machine.frontend.set_vring_call(0, &machine.queues[0].call).unwrap();
    assert!(has_signal(&machine.queues[0].call));
}

#[test]
fn an_interrupt_comes_with_each_answer_unless_event_indexes_say_later() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX);
    machine.start_queue(0, 0);
    eventually("a call at the start", || has_signal(&machine.queues[0].call));
    let used_event = 0x1000 + 4 + 2 * u64::from(RING_SIZE);
    machine.ram.put(used_event, &1_u16.to_le_bytes());
    machine.request(0, IN, 0, &[(BODY, 512, WRITE)]);
    std::thread::sleep(Duration::from_millis(5));
    assert!(!has_signal(&machine.queues[0].call), "the driver waits for entry 1");
    machine.request(0, IN, 0, &[(BODY, 512, WRITE)]);
    eventually("a call for entry 1", || has_signal(&machine.queues[0].call));
}

#[test]
fn a_front_end_that_reconnects_is_served_again_and_finds_its_data() {
    let served = Served::with_queues(1);
    for round in 0..5_u8 {
        let machine = Machine::start(&served, 1);
        if round != 0 {
            assert_eq!(machine.request(0, IN, 8, &[(BODY, 512, WRITE)]), (0, 513));
            assert_eq!(machine.ram.get(BODY, 512), [round; 512]);
        }
        machine.ram.put(BODY, &[round + 1; 512]);
        assert_eq!(machine.request(0, OUT, 8, &[(BODY, 512, 0)]), (0, 1));
        drop(machine);
        served.end().unwrap();
    }
}

#[test]
fn a_second_front_end_is_turned_away() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(matches!(served.device.serve(ours), Err(DeviceError::Busy)));
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn stopping_the_device_ends_its_connection_with_all_requests_finished() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    machine.header(OUT, 0);
    (0..16).for_each(|_| _ = machine.submit(0, &[(DATA, 16, 0), (BODY, 4096, 0), (DATA + 16, 1, WRITE)]));
    assert!(served.device.is_connected());
    served.device.stop();
    served.end().unwrap();
    assert!(!served.device.is_connected());
    assert_eq!(served.device.statistics()[0].in_flight, 0);
    let used = machine.used_index(0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(machine.used_index(0), used);
}

#[test]
fn memory_added_while_rings_run_can_be_used_at_once_and_no_more_when_removed() {
    let served = Served::with_queues(2);
    let mut machine = Machine::start(&served, 2);
    machine.header(OUT, 0);
    for round in 0..20_u64 {
        // Requests stay in flight on the other queue while the table changes.
        (0..16).for_each(|_| _ = machine.submit(1, &[(DATA, 16, 0), (BODY, 4096, 0), (DATA + 24, 1, WRITE)]));
        let module = Ram::new((1 << 32) + (round << 24), 1 << 20);
        let place = module.guest_address + 4096;
        machine.frontend.add_mem_region(&module.region()).unwrap();
        module.put(place, &[9; 512]);
        let before = machine.used_index(0);
        machine.header(IN, 0);
        assert_eq!(machine.request(0, IN, 0, &[(place, 512, WRITE)]), (0, 513), "round {round}");
        machine.frontend.remove_mem_region(&module.region()).unwrap();
        assert_eq!(machine.request(0, IN, 0, &[(place, 512, WRITE)]), (1, 1), "round {round}: removed");
        machine.wait_used(0, before.wrapping_add(2));
        machine.wait_used(1, u16::try_from(16 * (round + 1)).unwrap());
        machine.header(OUT, 0);
    }
}

#[test]
fn a_new_table_may_put_the_rings_memory_elsewhere_while_they_run() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    for _ in 0..20 {
        machine.frontend.set_mem_table(&[machine.ram.region()]).unwrap();
        assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
    }
}

#[test]
fn a_ring_whose_memory_goes_waits_until_it_is_back() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    let other = Ram::new(1 << 32, 1 << 20);
    machine.frontend.set_mem_table(&[other.region()]).unwrap();
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (BODY, 512, WRITE), (DATA + 16, 1, WRITE)]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.used_index(0), 0);
    machine.frontend.set_mem_table(&[machine.ram.region()]).unwrap();
    machine.wait_used(0, 1);
    assert_eq!(machine.status(), 0);
}

#[test]
fn a_request_may_span_two_regions_that_touch() {
    let served = Served::with_queues(1);
    let mut machine = Machine::start(&served, 1);
    let above = Ram::new(RAM_BYTES as u64, 1 << 20);
    machine.frontend.add_mem_region(&above.region()).unwrap();
    let place = RAM_BYTES as u64 - 100;
    machine.ram.put(BODY, &[0x5a; 512]);
    assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (0, 1));
    assert_eq!(machine.request(0, IN, 0, &[(place, 512, WRITE)]), (0, 513));
    assert_eq!(machine.ram.get(place, 100), [0x5a; 100]);
    assert_eq!(above.get(RAM_BYTES as u64, 412), [0x5a; 412]);
}

#[test]
fn a_ring_set_up_before_its_memory_starts_when_that_comes() {
    let served = Served::with_queues(1);
    let machine = Machine::connect(&served, 1, VERSION_1);
    let machine = {
        let Machine { frontend, ram, queues } = machine;
        drop(frontend);
        served.end().unwrap();
        let mut frontend = vhost::vhost_user::Frontend::from_stream(served.connect(), 64);
        frontend.set_owner().unwrap();
        frontend.get_features().unwrap();
        frontend.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(offered).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        Machine { frontend, ram, queues }
    };
    let mut machine = machine;
    machine.start_queue(0, 0);
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (BODY, 512, WRITE), (DATA + 16, 1, WRITE)]);
    machine.frontend.set_mem_table(&[machine.ram.region()]).unwrap();
    machine.wait_used(0, 1);
    assert_eq!(machine.status(), 0);
}

#[test]
fn a_ring_outside_the_memory_is_refused() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    machine.set_up_queue(0, 0);
    let elsewhere = Ram::new(1 << 32, 1 << 20);
    machine.frontend.set_mem_table(&[elsewhere.region()]).unwrap();
    assert!(machine.frontend.set_vring_enable(0, true).is_err());
}

#[test]
fn the_guest_switches_the_write_cache() {
    let served = Served::with_queues(1);
    let features = VERSION_1 | PROTOCOL_FEATURES | CONFIG_WCE | FLUSH;
    let mut machine = Machine::connect(&served, 1, features);
    machine.start_queue(0, 0);
    assert_eq!(config(&mut machine, 0x120, 1), [1]);
    machine.frontend.set_config(0x120, VhostUserConfigFlags::empty(), &[0]).unwrap();
    assert_eq!(config(&mut machine, 0x120, 1), [0]);
    machine.ram.put(BODY, &[3; 512]);
    assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (0, 1));
    assert!(machine.frontend.set_config(0x100, VhostUserConfigFlags::empty(), &[0; 8]).is_err(), "capacity");
    assert!(machine.frontend.set_config(0x120, VhostUserConfigFlags::empty(), &[2]).is_err(), "neither 0 nor 1");
    drop(machine);
    served.end().unwrap();
    let mut again = Machine::connect(&served, 1, features);
    assert_eq!(config(&mut again, 0x120, 1), [0], "the front-end may not have asked again");
}

#[test]
fn the_write_cache_starts_off_for_a_driver_that_cannot_flush() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES | CONFIG_WCE);
    assert_eq!(config(&mut machine, 0x120, 1), [0]);
}

#[test]
fn a_changed_capacity_is_announced_when_a_ring_runs_and_not_before() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    machine.frontend.set_backend_request_fd(&theirs).unwrap();
    served.device.capacity_changed();
    assert_eq!(ours.read(&mut [0; 12]).unwrap_err().kind(), ErrorKind::WouldBlock);
    machine.start_queue(0, 0);
    let mut announced = [0; 12];
    ours.read_exact(&mut announced).unwrap();
    assert_eq!(announced, frame(2, messages::VERSION, &[])[..]);
    served.device.capacity_changed();
    ours.read_exact(&mut announced).unwrap();
    assert_eq!(ours.read(&mut announced).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_read_only_device_serves_reads_and_refuses_writes() {
    let served = Served::new(&DeviceOptions { writes: Writes::Refused, ..DeviceOptions::default() });
    let machine = Machine::start(&served, 1);
    assert_eq!(machine.request(0, OUT, 0, &[(BODY, 512, 0)]), (1, 1));
    assert_eq!(machine.request(0, IN, 0, &[(BODY, 512, WRITE)]), (0, 513));
}

#[test]
fn the_serial_number_is_the_options_or_comes_from_the_volume() {
    let served = Served::new(&DeviceOptions { serial: Serial::new("web1"), ..DeviceOptions::default() });
    let machine = Machine::start(&served, 1);
    assert_eq!(machine.request(0, GET_ID, 0, &[(BODY, 20, WRITE)]), (0, 21));
    assert_eq!(machine.ram.get(BODY, 20), *b"web1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let machine = Served::with_queues(1);
    let machine = (Machine::start(&machine, 1), machine);
    machine.0.request(0, GET_ID, 0, &[(BODY, 20, WRITE)]);
    assert!(machine.0.ram.get(BODY, 20).iter().all(u8::is_ascii_hexdigit));
}

#[test]
fn a_reset_device_is_as_new() {
    let served = Served::with_queues(1);
    let mut machine = Machine::start(&served, 1);
    machine.request(0, IN, 0, &[(BODY, 512, WRITE)]);
    machine.frontend.reset_device().unwrap();
    machine.header(IN, 0);
    machine.submit(0, &[(DATA, 16, 0), (BODY, 512, WRITE), (DATA + 16, 1, WRITE)]);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(machine.used_index(0), 1, "nothing is taken after a reset");
    machine.frontend.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    machine.start_queue(0, 1);
    machine.wait_used(0, 2);
}

#[test]
fn the_status_is_kept_and_zero_stops_the_rings() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    drop(machine);
    served.end().unwrap();
    let stream = served.connect();
    assert_eq!(call(&stream, 39, &15_u64.to_ne_bytes(), &[]), Some(0));
    assert_eq!(call(&stream, 40, &[], &[]), Some(15));
    assert_eq!(call(&stream, 39, &256_u64.to_ne_bytes(), &[]), Some(1), "more than eight bits");
    assert_eq!(call(&stream, 39, &0_u64.to_ne_bytes(), &[]), Some(0));
}

#[test]
fn an_idle_queue_uses_no_cpu() {
    let served = Served::with_queues(1);
    let machine = Machine::start(&served, 1);
    (0..100).for_each(|_| _ = machine.request(0, IN, 0, &[(BODY, 512, WRITE)]));
    std::thread::sleep(Duration::from_millis(50));
    let before = served.queue_cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(served.queue_cpu_time(), before, "the thread did not run at all");
}

#[test]
fn a_ring_without_a_kick_descriptor_is_polled() {
    let served = Served::with_queues(1);
    let mut machine = Machine::connect(&served, 1, VERSION_1 | PROTOCOL_FEATURES);
    machine.set_up_queue(0, 0);
    let stream = machine.socket();
    assert_eq!(call(&stream, 12, &(1_u64 << 8).to_ne_bytes(), &[]), Some(0));
    machine.frontend.set_vring_enable(0, true).unwrap();
    machine.header(IN, 0);
    machine.descriptor(0, 0, DATA, 16, 1, 1);
    machine.descriptor(0, 1, BODY, 513, WRITE, 0);
    for round in 1..10 {
        std::thread::sleep(Duration::from_millis(2));
        machine.make_available(0, 0);
        machine.wait_used(0, round);
    }
}

#[test]
fn descriptors_that_a_message_should_not_have_are_closed() {
    let served = Served::with_queues(1);
    let stream = served.connect();
    let open_before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let file = Ram::new(0, 4096);
    let fds = [file.file.as_fd(); 4];
    for _ in 0..50 {
        send(&stream, &frame(1, messages::VERSION, &[]), &fds);
        receive(&stream).unwrap();
    }
    let open_after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests of this process open descriptors meanwhile, but not two hundred.
    assert!(open_after < open_before + 150, "{open_before} then {open_after}");
}
