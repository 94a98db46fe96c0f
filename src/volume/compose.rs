//! Composition: which parts of which blocks make up a range of the volume.

use crate::units::{BlockIndex, ByteRange, ObjectSize};

/// A part of a request that lies in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub block: BlockIndex,
    /// Where it begins in the block's object.
    pub offset: u64,
    pub len: u64,
    /// Where it begins in the request's buffer.
    pub buffer_offset: u64,
}

/// The range's extents, in order.
///
/// # Panics
/// When the range's end overflows; whoever let the range in has checked that.
pub fn extents(range: ByteRange, object_size: ObjectSize) -> impl Iterator<Item = Extent> {
    let end = range.end().expect("the range was checked against the volume's size");
    let mut at = range.offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let offset = object_size.offset_in_block(at);
        let len = (object_size.bytes() - offset).min(end - at);
        let extent = Extent { block: object_size.block_of(at), offset, len, buffer_offset: at - range.offset };
        at += len;
        Some(extent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_block_borders() {
        let object_size = ObjectSize::new(64 << 10).unwrap();
        let cut: Vec<_> = extents(ByteRange::new((64 << 10) - 512, (64 << 10) + 1024), object_size).collect();
        let extent =
            |block, offset, len, buffer_offset| Extent { block: BlockIndex(block), offset, len, buffer_offset };
        assert_eq!(
            cut,
            [extent(0, (64 << 10) - 512, 512, 0), extent(1, 0, 64 << 10, 512), extent(2, 0, 512, (64 << 10) + 512),]
        );
    }

    #[test]
    fn an_empty_range_has_no_extents() {
        assert_eq!(extents(ByteRange::new(512, 0), ObjectSize::DEFAULT).count(), 0);
    }
}
