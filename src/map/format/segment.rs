//! A segment: the pages that one checkpoint wrote, behind a head that says whose they are.

use super::FormatError;
use super::bytes::{Reader, Writer, unseal};
use super::page::{PAGE_ALIGN, PageAddress, page_checksum};
use crate::units::{Generation, VolumeId};

const STRUCTURE: &str = "a map segment's head";
const MAGIC: &[u8; 8] = b"AVHSEGM1";
const VERSION: u32 = 1;
/// Bytes of the head; the first page follows.
pub const SEGMENT_HEAD_BYTES: usize = PAGE_ALIGN;

/// Collects pages and gives each its address.
#[derive(Debug)]
pub struct SegmentBuilder {
    volume: VolumeId,
    generation: Generation,
    number: u32,
    pages: u32,
    bytes: Vec<u8>,
}

impl SegmentBuilder {
    pub fn new(volume: VolumeId, generation: Generation, number: u32) -> Self {
        Self { volume, generation, number, pages: 0, bytes: vec![0; SEGMENT_HEAD_BYTES] }
    }

    pub fn push(&mut self, page: &[u8]) -> PageAddress {
        let address = PageAddress {
            volume: self.volume,
            generation: self.generation,
            number: self.number,
            offset: self.bytes.len() as u64,
            len: u32::try_from(page.len()).expect("a page is at most 64 KiB"),
            checksum: page_checksum(page),
        };
        self.bytes.extend_from_slice(page);
        self.pages += 1;
        address
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole segment.
    pub fn finish(mut self) -> Vec<u8> {
        let mut head = Writer::with_capacity(SEGMENT_HEAD_BYTES);
        head.put(MAGIC).u32(VERSION).u32(self.pages).id(self.volume).u64(self.generation.0).u32(self.number);
        self.bytes[..SEGMENT_HEAD_BYTES].copy_from_slice(&head.sealed(SEGMENT_HEAD_BYTES));
        self.bytes
    }
}

/// Checks that the bytes are the head of this segment.
///
/// # Errors
/// When they are not.
pub fn check_head(bytes: &[u8], volume: VolumeId, generation: Generation, number: u32) -> Result<(), FormatError> {
    let head = bytes.get(..SEGMENT_HEAD_BYTES).unwrap_or(bytes);
    let mut reader = Reader::new(unseal(head, STRUCTURE)?, STRUCTURE);
    reader.magic(MAGIC)?;
    let version = reader.u32("version")?;
    reader.version(version, VERSION)?;
    reader.u32("number of pages")?;
    let found = (reader.id("volume id")?, Generation(reader.u64("generation")?), reader.u32("number")?);
    if found == (volume, generation, number) { Ok(()) } else { Err(reader.error("it is another segment's")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_says_whose_it_is() {
        let mut builder = SegmentBuilder::new(VolumeId([1; 16]), Generation(2), 3);
        let address = builder.push(&[7; 1024]);
        assert_eq!((address.offset, address.len), (512, 1024));
        let bytes = builder.finish();
        assert_eq!(check_head(&bytes, VolumeId([1; 16]), Generation(2), 3), Ok(()));
        assert!(check_head(&bytes, VolumeId([1; 16]), Generation(2), 4).is_err());
        assert!(check_head(&bytes[..100], VolumeId([1; 16]), Generation(2), 3).is_err());
    }
}
