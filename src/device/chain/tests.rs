//! Chains as a guest may build them, whole and broken.

use super::*;
use crate::device::ring::Notification;
use crate::device::test_guest::{DATA, Guest, INDIRECT, MEMORY_BYTES, NEXT, SIZE, WRITE};

/// Collects the chain at descriptor 0: lengths of the readable and of the writable pieces, and what is broken.
type Collected = Result<(Vec<usize>, Vec<usize>, Option<&'static str>), RingFault>;

fn collect(guest: &Guest) -> Collected {
    let mut chain = Chain::default();
    let ring = guest.ring(Notification::Flags);
    chain.collect(&ring, &guest.memory, 0)?;
    let lens = |list: &[iovec]| list.iter().map(|piece| piece.iov_len).collect();
    Ok((lens(&chain.readable), lens(&chain.writable), chain.broken))
}

fn is_broken(collected: Collected) -> bool {
    collected.is_ok_and(|(_, _, broken)| broken.is_some())
}

#[test]
fn the_last_writable_byte_is_the_status() {
    let guest = Guest::new();
    guest.chain(&[(DATA, 16, 0), (DATA + 512, 512, WRITE), (DATA + 64, 1, WRITE)]);
    let status = {
        let mut chain = Chain::default();
        chain.collect(&guest.ring(Notification::Flags), &guest.memory, 0).unwrap()
    };
    assert_eq!(Some(status), guest.memory.contiguous(DATA + 64, 1));
    assert_eq!(collect(&guest), Ok((vec![16], vec![512, 0], None)));
}

#[test]
fn indirect_tables_are_walked_in_place_of_their_descriptor() {
    let guest = Guest::new();
    let table = DATA + 0x1000;
    guest.descriptor(0, table, 48, INDIRECT, 0);
    guest.descriptor_at(table, DATA, 16, NEXT, 2);
    guest.descriptor_at(table + 32, DATA + 512, 513, WRITE, 0);
    assert_eq!(collect(&guest), Ok((vec![16], vec![512], None)));
}

#[test]
fn a_chain_that_loops_ends() {
    let guest = Guest::new();
    guest.descriptor(0, DATA, 16, NEXT, 1);
    guest.descriptor(1, DATA, 16, NEXT | WRITE, 0);
    assert_eq!(collect(&guest), Err(RingFault::Endless(0)));
    guest.descriptor(0, DATA, 16, NEXT, 0);
    assert_eq!(collect(&guest), Err(RingFault::Endless(0)));
}

#[test]
fn an_indirect_table_that_loops_ends() {
    let guest = Guest::new();
    let table = DATA + 0x1000;
    guest.descriptor(0, table, 32, INDIRECT, 0);
    guest.descriptor_at(table, DATA, 16, NEXT, 1);
    guest.descriptor_at(table + 16, DATA, 16, NEXT | WRITE, 0);
    assert_eq!(collect(&guest), Err(RingFault::Endless(0)));
}

#[test]
fn indirect_tables_of_impossible_length_or_place_break_the_ring() {
    let guest = Guest::new();
    let cases = [(DATA, 0), (DATA, 15), (DATA, 17), (DATA, 16 * 1025), (MEMORY_BYTES, 16), (MEMORY_BYTES - 16, 32)];
    for (address, len) in cases {
        guest.descriptor(0, address, len, INDIRECT, 0);
        assert_eq!(collect(&guest), Err(RingFault::NoStatus(0)), "{address:#x} {len}");
    }
}

#[test]
fn nested_indirect_tables_are_an_error_with_a_status() {
    let guest = Guest::new();
    let table = DATA + 0x1000;
    guest.descriptor(0, table, 32, INDIRECT, 0);
    guest.descriptor_at(table, table, 32, INDIRECT | NEXT, 1);
    guest.descriptor_at(table + 16, DATA, 1, WRITE, 0);
    assert!(is_broken(collect(&guest)));
}

#[test]
fn an_indirect_descriptor_with_a_successor_is_an_error_with_a_status() {
    let guest = Guest::new();
    let table = DATA + 0x1000;
    guest.descriptor(0, table, 16, INDIRECT | NEXT, 1);
    guest.descriptor_at(table, DATA, 1, WRITE, 0);
    assert!(is_broken(collect(&guest)));
}

#[test]
fn addresses_outside_memory_are_an_error_with_a_status_if_that_lies_inside() {
    let guest = Guest::new();
    for outside in [MEMORY_BYTES, MEMORY_BYTES - 8, u64::MAX, u64::MAX - 15] {
        guest.chain(&[(outside, 16, 0), (DATA, 1, WRITE)]);
        assert!(is_broken(collect(&guest)), "readable {outside:#x}");
        guest.chain(&[(DATA, 16, 0), (outside, 512, WRITE), (DATA, 1, WRITE)]);
        assert!(is_broken(collect(&guest)), "writable {outside:#x}");
        guest.chain(&[(DATA, 16, 0), (DATA, 512, WRITE), (outside, 9, WRITE)]);
        assert_eq!(collect(&guest), Err(RingFault::NoStatus(0)), "status {outside:#x}");
    }
}

#[test]
fn a_chain_without_a_writable_byte_breaks_the_ring() {
    let guest = Guest::new();
    guest.chain(&[(DATA, 16, 0)]);
    assert_eq!(collect(&guest), Err(RingFault::NoStatus(0)));
    guest.chain(&[(DATA, 16, 0), (DATA, 0, WRITE)]);
    assert_eq!(collect(&guest), Err(RingFault::NoStatus(0)));
}

#[test]
fn zero_length_segments_are_passed_over_wherever_they_point() {
    let guest = Guest::new();
    guest.chain(&[(u64::MAX, 0, 0), (DATA, 16, 0), (u64::MAX, 0, WRITE), (DATA, 1, WRITE), (u64::MAX, 0, WRITE)]);
    assert_eq!(collect(&guest), Ok((vec![16], vec![0], None)));
}

#[test]
fn a_readable_descriptor_after_a_writable_one_is_an_error_with_a_status() {
    let guest = Guest::new();
    guest.chain(&[(DATA, 1, WRITE), (DATA, 16, 0)]);
    assert!(is_broken(collect(&guest)));
}

#[test]
fn a_successor_outside_the_table_is_an_error_with_a_status() {
    let guest = Guest::new();
    guest.descriptor(0, DATA, 1, WRITE | NEXT, SIZE);
    assert!(is_broken(collect(&guest)));
}

#[test]
fn more_segments_than_seg_max_are_an_error_with_a_status() {
    let guest = Guest::new();
    let (table, count) = (DATA + 0x1000, 200_u16);
    guest.descriptor(0, table, 16 * u32::from(count), INDIRECT, 0);
    for i in 0..count {
        let next = if i + 1 < count { NEXT } else { 0 };
        guest.descriptor_at(table + 16 * u64::from(i), DATA, 512, WRITE | next, i + 1);
    }
    assert!(is_broken(collect(&guest)));
}

#[test]
fn the_largest_conforming_chain_is_taken() {
    let guest = Guest::new();
    let (table, count) = (DATA + 0x1000, 128_u16);
    guest.descriptor(0, table, 16 * u32::from(count), INDIRECT, 0);
    for i in 0..count {
        let (len, write) = if i == 0 { (16, 0) } else { (512, WRITE) };
        let next = if i + 1 < count { NEXT } else { 0 };
        guest.descriptor_at(table + 16 * u64::from(i), DATA, len, write | next, i + 1);
    }
    assert!(collect(&guest).is_ok_and(|(_, writable, broken)| writable.len() == 127 && broken.is_none()));
}
