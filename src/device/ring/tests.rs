//! Rings as a guest drives them, and as it breaks them.

use super::*;
use crate::device::test_guest::{Guest, SIZE};

#[test]
fn chains_are_taken_in_the_order_they_became_available() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    assert_eq!(ring.take(), Ok(None));
    guest.make_available(3);
    guest.make_available(1);
    assert_eq!((ring.take(), ring.take(), ring.take()), (Ok(Some(3)), Ok(Some(1)), Ok(None)));
    assert_eq!(ring.next_available(), 2);
}

#[test]
fn a_head_outside_the_table_breaks_the_ring() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    guest.make_available(SIZE);
    assert_eq!(ring.take(), Err(RingFault::HeadOutOfRange(SIZE)));
}

#[test]
fn an_available_index_that_jumps_past_the_ring_breaks_it() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    guest.set_available_index(SIZE + 1);
    assert_eq!(ring.take(), Err(RingFault::AvailableJump(SIZE + 1)));
    guest.set_available_index(u16::MAX);
    assert_eq!(ring.take(), Err(RingFault::AvailableJump(u16::MAX)));
    guest.set_available_index(SIZE);
    assert_eq!(ring.take(), Ok(Some(0)));
}

#[test]
fn used_entries_show_after_publishing_and_say_how_much_was_written() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    ring.push(5, 513);
    assert_eq!(guest.used_index(), 0);
    assert!(ring.publish());
    assert_eq!((guest.used_index(), guest.used_entry(0)), (1, (5, 513)));
    assert!(!ring.publish(), "nothing new");
}

#[test]
fn a_ring_goes_on_at_the_used_index_that_it_finds() {
    let guest = Guest::new();
    guest.set_used_index(u16::MAX);
    let mut ring = guest.ring(Notification::Flags);
    ring.push(2, 1);
    ring.push(4, 1);
    ring.publish();
    assert_eq!(guest.used_index(), 1, "indexes wrap");
    assert_eq!(guest.used_entry(7), (2, 1));
    assert_eq!(guest.used_entry(0), (4, 1));
}

#[test]
fn without_event_indexes_the_guests_flag_suppresses_interrupts() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    guest.set_available_flags(1);
    ring.push(0, 1);
    assert!(!ring.publish());
    guest.set_available_flags(0);
    ring.push(1, 1);
    assert!(ring.publish());
}

#[test]
fn with_event_indexes_one_interrupt_comes_when_the_named_entry_is_passed() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::EventIndex);
    guest.set_used_event(2);
    ring.push(0, 1);
    ring.push(1, 1);
    assert!(!ring.publish(), "entries 0 and 1");
    ring.push(2, 1);
    assert!(ring.publish(), "entry 2");
    ring.push(3, 1);
    assert!(!ring.publish(), "passed already");
}

#[test]
fn event_indexes_wrap() {
    assert!(event_passed(65535, 0, 65534));
    assert!(event_passed(0, 1, 65534));
    assert!(!event_passed(1, 1, 65534));
    assert!(!event_passed(65533, 1, 65534));
}

#[test]
fn kicks_are_asked_for_at_the_next_chain_and_only_before_sleeping() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::EventIndex);
    guest.make_available(0);
    assert_eq!(ring.take(), Ok(Some(0)));
    assert_eq!(guest.available_event(), 0, "not yet");
    assert_eq!(ring.ask_for_kicks(), Ok(true));
    assert_eq!(guest.available_event(), 1);
    guest.make_available(1);
    assert_eq!(ring.ask_for_kicks(), Ok(false), "a chain came before we slept");
}

#[test]
fn without_event_indexes_kicks_are_refused_by_a_flag() {
    let guest = Guest::new();
    let mut ring = guest.ring(Notification::Flags);
    ring.refuse_kicks();
    assert_eq!(guest.used_flags(), 1);
    assert_eq!(ring.ask_for_kicks(), Ok(true));
    assert_eq!(guest.used_flags(), 0);
}

#[test]
fn rings_outside_the_memory_or_misaligned_are_not_found() {
    let guest = Guest::new();
    let good = Guest::address();
    let locate = |address, size| RingParts::locate(&guest.memory, address, size).is_some();
    assert!(locate(good, SIZE));
    assert!(!locate(RingAddress { descriptors: good.descriptors + 8, ..good }, SIZE));
    assert!(!locate(RingAddress { used: u64::MAX - 3, ..good }, SIZE));
    assert!(!locate(
        RingAddress { used: good.descriptors + crate::device::test_guest::MEMORY_BYTES - 64, ..good },
        SIZE
    ));
    assert!(RingParts::locate(&Memory::default(), good, SIZE).is_none());
}

#[test]
fn unaligned_descriptors_read_the_same() {
    let guest = Guest::new();
    let expected = Descriptor { address: 0x0102_0304_0506_0708, len: 0x0a0b_0c0d, flags: 0x1122, next: 0x3344 };
    for place in [0x10000, 0x10013] {
        guest.descriptor_at(place, expected.address, expected.len, expected.flags, expected.next);
        let host = guest.memory.contiguous(place, 16).unwrap();
        // SAFETY: 16 bytes are mapped there.
        assert_eq!(unsafe { Descriptor::read(host) }, expected);
    }
}
