//! Memory tables as a front-end may send them.

use super::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const MIB: u64 = 1 << 20;

fn file(size: u64) -> OwnedFd {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

fn at(guest: u64, size: u64) -> RegionAddress {
    RegionAddress { guest, user: guest + (1 << 40), size, file_offset: 0 }
}

fn two_neighbours() -> Memory {
    Memory::map([(at(0, MIB), file(MIB)), (at(MIB, MIB), file(MIB))].into_iter()).unwrap()
}

fn pieces(memory: &Memory, guest: u64, len: u32) -> Option<Vec<usize>> {
    let mut lens = Vec::new();
    memory.pieces(guest, len, |piece| lens.push(piece.iov_len)).then_some(lens)
}

#[test]
fn a_range_across_two_regions_comes_in_two_pieces() {
    assert_eq!(pieces(&two_neighbours(), MIB - 100, 300), Some(vec![100, 200]));
}

#[test]
fn a_byte_outside_all_regions_is_refused() {
    let memory = two_neighbours();
    assert_eq!(pieces(&memory, 2 * MIB - 1, 1), Some(vec![1]));
    assert_eq!(pieces(&memory, 2 * MIB - 1, 2), None);
    assert_eq!(pieces(&memory, 2 * MIB, 1), None);
    assert_eq!(pieces(&memory, u64::MAX, u32::MAX), None);
    assert_eq!(pieces(&Memory::default(), 0, 1), None);
}

#[test]
fn user_addresses_must_lie_within_one_region() {
    let memory = two_neighbours();
    let base = 1 << 40;
    assert_eq!(memory.at_user_address(base + 8, 8), memory.contiguous(8, 8));
    assert!(memory.at_user_address(base + MIB - 4, 8).is_none());
    assert!(memory.at_user_address(base - 1, 8).is_none());
    assert!(memory.at_user_address(u64::MAX, 8).is_none());
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let memory = two_neighbours();
    let error = |address, size| memory.with(address, &file(size)).err();
    assert!(matches!(error(at(MIB / 2, MIB), MIB), Some(MemoryError::Overlap)));
    assert!(matches!(error(at(4 * MIB, 2 * MIB), MIB), Some(MemoryError::FileTooShort)));
    assert!(matches!(error(at(4 * MIB, 0), MIB), Some(MemoryError::BadRange)));
    let overflowing = RegionAddress { guest: u64::MAX - 4096, user: 0, size: MIB, file_offset: 0 };
    assert!(matches!(error(overflowing, MIB), Some(MemoryError::BadRange)));
    let far = RegionAddress { guest: 4 * MIB, user: 0, size: MIB, file_offset: u64::MAX - 1 };
    assert!(matches!(error(far, MIB), Some(MemoryError::BadRange)));
}

#[test]
fn tables_share_the_mappings_that_stay() {
    let memory = two_neighbours();
    let larger = memory.with(at(8 * MIB, MIB), &file(MIB)).unwrap();
    assert_eq!(memory.contiguous(5, 1), larger.contiguous(5, 1));
    let smaller = larger.without(at(0, MIB)).unwrap();
    assert!(smaller.contiguous(5, 1).is_none());
    assert!(smaller.without(at(0, MIB)).is_err());
}

#[test]
fn a_region_inside_a_file_is_found_at_its_offset() {
    let file = file(2 * MIB);
    let odd = RegionAddress { guest: 0, user: 0, size: MIB, file_offset: 4096 };
    let whole = Memory::map([(at(0, 2 * MIB), file.try_clone().unwrap())].into_iter()).unwrap();
    let part = Memory::map([(odd, file)].into_iter()).unwrap();
    let (at_5000, at_904) = (whole.contiguous(5000, 1).unwrap(), part.contiguous(904, 1).unwrap());
    // SAFETY: both point into live mappings of one file.
    let seen = unsafe {
        at_5000.write_volatile(77);
        at_904.read_volatile()
    };
    assert_eq!(seen, 77);
}

#[test]
fn memory_that_the_front_end_truncates_reads_as_zeros_and_is_marked_lost() {
    let file = file(MIB);
    let memory = Memory::map([(at(0, MIB), file.try_clone().unwrap())].into_iter()).unwrap();
    let other = two_neighbours();
    let before = sigbus::losses();
    let byte = memory.contiguous(MIB - 1, 1).unwrap();
    // SAFETY: a live mapping; the fault after the truncation is what is tested.
    let seen = unsafe {
        byte.write_volatile(9);
        ftruncate(&file, 0).unwrap();
        byte.read_volatile()
    };
    assert_eq!(seen, 0);
    assert!(memory.is_lost());
    assert!(!other.is_lost());
    assert_ne!(sigbus::losses(), before);
}

#[test]
fn one_front_end_cannot_take_the_whole_address_space() {
    let huge = |guest| {
        let file = memfd_create("huge", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 12 << 40).unwrap();
        (RegionAddress { guest, user: guest, size: 12 << 40, file_offset: 0 }, file)
    };
    let first = Memory::map([huge(0), huge(12 << 40)].into_iter()).unwrap();
    let (address, file) = huge(24 << 40);
    assert!(matches!(first.with(address, &file), Err(MemoryError::TooMuch)));
    assert!(matches!(first.replacement([huge(0)].into_iter()), Err(MemoryError::TooMuch)), "old ones count");
    let second = first.without(RegionAddress { file_offset: 0, guest: 0, user: 0, size: 12 << 40 }).unwrap();
    drop(first);
    assert!(second.with(address, &file).is_ok(), "what is given back can be used again");
}

#[test]
fn memory_on_a_file_system_that_may_block_is_refused() {
    let file = OwnedFd::from(std::fs::File::open("/proc/self/maps").unwrap());
    assert!(matches!(Memory::map([(at(0, MIB), file)].into_iter()), Err(MemoryError::FileSystem(0x9fa0))));
}
