//! The device's configuration space: `struct virtio_blk_config` (virtio 1.2, section 5.2.4) as bytes.
//!
//! Everything is little-endian; padding and fields of features that we do not offer are zero. Front-ends read it at
//! offset 0 or, as older ones do, at offset 0x100 where it lies in PCI terms; both are the same bytes here.
//!
//! | offset | field | value |
//! |---:|---|---|
//! | 0 | capacity | sectors of 512 bytes |
//! | 8 | size_max | [`SEGMENT_BYTES_MAX`] |
//! | 12 | seg_max | [`SEGMENTS_MAX`] |
//! | 20 | blk_size | 512 |
//! | 24 | topology: physical block exponent, alignment offset, min_io, opt_io | from the store's alignment and the object size |
//! | 32 | writeback | 1: a flush makes writes durable; 0: they are durable when they complete |
//! | 34 | num_queues | |
//! | 36 | max_discard_sectors, max_discard_seg, discard_sector_alignment | 1 GiB, 1, the store's alignment |
//! | 48 | max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap | 1 GiB, 1, 1 |

use crate::units::SECTOR_BYTES;

/// Bytes of the configuration space that we fill; what lies behind reads as zeros.
pub(super) const CONFIG_BYTES: usize = 60;

/// Largest segment: with [`SEGMENTS_MAX`] it bounds a request at 31.5 MiB.
pub(super) const SEGMENT_BYTES_MAX: u32 = 256 << 10;

/// Most data segments of a request: with header and status they fit a ring of 128, the usual size.
pub(super) const SEGMENTS_MAX: u32 = 126;

/// Most sectors of one discard or write-zeroes: 1 GiB, so that one request is a bounded piece of work (rule P10).
pub(super) const DISCARD_SECTORS_MAX: u32 = 1 << 21;

/// Where the configuration space begins for front-ends that count from the PCI common configuration.
const PCI_OFFSET: u32 = 0x100;

/// The one field that a guest may change.
const WRITEBACK: usize = 32;

/// What the configuration space is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfigSource {
    pub(super) capacity_sectors: u64,
    /// What requests should be aligned to, in bytes: a power of two, at least 512.
    pub(super) io_align: u32,
    pub(super) object_bytes: u64,
    pub(super) queues: u16,
    pub(super) writeback: bool,
}

impl ConfigSource {
    pub(super) fn bytes(&self) -> [u8; CONFIG_BYTES] {
        let align_sectors = u64::from(self.io_align).div_ceil(SECTOR_BYTES).next_power_of_two();
        let align = u32::try_from(align_sectors).unwrap_or(1);
        let optimal = u32::try_from(self.object_bytes / SECTOR_BYTES).unwrap_or(0);
        let mut config = [0; CONFIG_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &self.capacity_sectors.to_le_bytes());
        put(8, &SEGMENT_BYTES_MAX.to_le_bytes());
        put(12, &SEGMENTS_MAX.to_le_bytes());
        put(20, &512_u32.to_le_bytes());
        put(24, &[u8::try_from(align.trailing_zeros()).unwrap_or(0)]);
        put(26, &u16::try_from(align).unwrap_or(1).to_le_bytes());
        put(28, &optimal.to_le_bytes());
        put(WRITEBACK, &[u8::from(self.writeback)]);
        put(34, &self.queues.to_le_bytes());
        put(36, &DISCARD_SECTORS_MAX.to_le_bytes());
        put(40, &1_u32.to_le_bytes());
        put(44, &align.to_le_bytes());
        put(48, &DISCARD_SECTORS_MAX.to_le_bytes());
        put(52, &1_u32.to_le_bytes());
        put(56, &[1]);
        config
    }
}

/// Fills `out` with what a front-end reads at `offset`.
pub(super) fn read(config: &[u8; CONFIG_BYTES], offset: u32, out: &mut [u8]) {
    let start = usize::try_from(from_device_start(offset)).unwrap_or(usize::MAX).min(CONFIG_BYTES);
    let known = &config[start..];
    let len = known.len().min(out.len());
    out[..len].copy_from_slice(&known[..len]);
    out[len..].fill(0);
}

/// Who changes the configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigWriter {
    Guest,
    /// A migration target restores what the source had.
    Migration,
}

/// The new `writeback` that a change asks for. A guest may write that field and nothing else; of what a migration restores,
/// that field is taken and the rest is what we know better. `None` when the change is refused.
pub(super) fn written_writeback(writer: ConfigWriter, offset: u32, bytes: &[u8]) -> Option<bool> {
    let start = usize::try_from(from_device_start(offset)).ok()?;
    let place = WRITEBACK.checked_sub(start)?;
    let value = *bytes.get(place)?;
    let alone = place == 0 && bytes.len() == 1;
    match (writer, value) {
        (ConfigWriter::Guest, _) if !alone => None,
        (_, 0) => Some(false),
        (_, 1) => Some(true),
        (_, _) => None,
    }
}

fn from_device_start(offset: u32) -> u32 {
    offset.checked_sub(PCI_OFFSET).unwrap_or(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> ConfigSource {
        ConfigSource { capacity_sectors: 0x1122, io_align: 4096, object_bytes: 4 << 20, queues: 4, writeback: true }
    }

    fn read_at(offset: u32, len: usize) -> Vec<u8> {
        let mut out = vec![0xff; len];
        read(&source().bytes(), offset, &mut out);
        out
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let config = source().bytes();
        let word = |at: usize| u32::from_le_bytes([config[at], config[at + 1], config[at + 2], config[at + 3]]);
        assert_eq!((word(0), word(4)), (0x1122, 0), "capacity");
        assert_eq!(word(12), 126, "seg_max");
        assert_eq!(word(20), 512, "blk_size");
        assert_eq!((config[24], config[25], config[26]), (3, 0, 8), "physical blocks of 4 KiB");
        assert_eq!(word(28), 8192, "optimal size in blocks of 512");
        assert_eq!((config[32], config[33], config[34]), (1, 0, 4), "writeback, padding, queues");
        assert_eq!((word(36), word(40), word(44)), (1 << 21, 1, 8), "discard");
        assert_eq!((word(48), word(52), word(56)), (1 << 21, 1, 1), "write zeroes");
    }

    #[test]
    fn offset_0_and_offset_0x100_are_the_same_bytes() {
        assert_eq!(read_at(0, 60), read_at(0x100, 60));
        assert_eq!(read_at(34, 2), read_at(0x122, 2));
    }

    #[test]
    fn reads_of_any_length_are_padded_with_zeros() {
        assert_eq!(read_at(0, 60)[..], read_at(0, 256)[..60]);
        assert!(read_at(0, 256)[60..].iter().all(|byte| *byte == 0));
        assert_eq!(read_at(u32::MAX, 8), [0; 8]);
        assert_eq!(read_at(99, 8), [0; 8]);
        assert!(read_at(0, 0).is_empty());
    }

    #[test]
    fn a_guest_changes_the_writeback_field_and_nothing_else() {
        assert_eq!(written_writeback(ConfigWriter::Guest, 32, &[0]), Some(false));
        assert_eq!(written_writeback(ConfigWriter::Guest, 0x120, &[1]), Some(true));
        for (offset, bytes) in [(32, &[0, 0][..]), (31, &[0, 0]), (0, &[0; 8]), (33, &[0]), (32, &[]), (32, &[2])] {
            assert_eq!(written_writeback(ConfigWriter::Guest, offset, bytes), None, "{offset} {bytes:?}");
        }
    }

    #[test]
    fn a_migration_may_restore_the_whole_space() {
        let mut config = source().bytes();
        config[32] = 0;
        assert_eq!(written_writeback(ConfigWriter::Migration, 0, &config), Some(false));
    }
}
