//! What a block of 4 KiB holds: every sector is filled from the write's number, the block and the sector's place, so that
//! a sector tells which write it came from, and a torn, misplaced or stale one cannot pass for another. Used by the storm too.
#![allow(dead_code, reason = "included by path into two programs, each of which uses a part of it")]

pub(crate) const BLOCK_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// The number of the write that a sector came from; zero for a sector of zeroes, which no write leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Write(u64),
    Damaged,
}

/// Fills `block` as write number `write` of block `index` does.
pub(crate) fn fill(block: &mut [u8; BLOCK_BYTES], index: u64, write: u64) {
    for (place, sector) in (0u64..).zip(block.chunks_exact_mut(SECTOR_BYTES)) {
        fill_sector(sector, index, place, write);
    }
}

/// Which write each sector of `block` came from.
pub(crate) fn origins(block: &[u8; BLOCK_BYTES], index: u64) -> impl Iterator<Item = Origin> + '_ {
    (0u64..).zip(block.chunks_exact(SECTOR_BYTES)).map(move |(place, sector)| origin(sector, index, place))
}

/// Which write a sector came from that is number `place` of block `index`.
pub(crate) fn origin(sector: &[u8], index: u64, place: u64) -> Origin {
    if sector.iter().all(|&byte| byte == 0) {
        return Origin::Write(0);
    }
    let write = u64::from_le_bytes(sector[..8].try_into().expect("a sector has eight bytes"));
    let mut expected = [0; SECTOR_BYTES];
    fill_sector(&mut expected, index, place, write);
    if sector == expected { Origin::Write(write) } else { Origin::Damaged }
}

/// Fills one sector as write number `write` does.
pub(crate) fn fill_sector(sector: &mut [u8], index: u64, place: u64, write: u64) {
    let mut word = write;
    for bytes in sector.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word.to_le_bytes());
        word = mix(word ^ index.rotate_left(24) ^ place.rotate_left(56));
    }
}

/// The block of a sector of the disk, and its place there.
pub(crate) fn place_of(sector: usize) -> (u64, u64) {
    let sectors = BLOCK_BYTES / SECTOR_BYTES;
    ((sector / sectors) as u64, (sector % sectors) as u64)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): one step of a sequence of well-mixed words.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
