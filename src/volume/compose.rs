//! Composition: which parts of which blocks make up a range of the volume, and which objects hold a part of a block.

use crate::map::entry::VolumeIndex;
use crate::map::{Entry, Map};
use crate::store::ObjectName;
use crate::units::{BlockIndex, ByteRange, Epoch, ObjectSize};

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

/// A part of an extent that lies in one object, or in none and reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub object: Option<ObjectName>,
    pub extent: Extent,
}

/// The extent's pieces, in order, as its block's entry says.
pub fn pieces(map: &Map, entry: &Entry, extent: Extent) -> Vec<Piece> {
    let name = |(volume, epoch): (VolumeIndex, Epoch)| map.object(volume, epoch, extent.block);
    let Entry::Overlay(overlay) = entry else {
        return vec![Piece { object: entry.objects().next().map(name), extent }];
    };
    let granule_bytes = overlay.granules().bytes();
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut at, end) = (extent.offset, extent.offset + extent.len);
    let mut last = None;
    while at < end {
        let granule = u16::try_from(at / granule_bytes).expect("the extent lies within its block");
        let len = (granule_bytes - at % granule_bytes).min(end - at);
        let layer = overlay.layer_of(granule);
        let holder = Some((layer.volume, layer.epoch));
        match pieces.last_mut().filter(|_| holder == last) {
            Some(piece) => piece.extent.len += len,
            None => {
                let buffer_offset = extent.buffer_offset + (at - extent.offset);
                pieces.push(Piece {
                    object: holder.map(name),
                    extent: Extent { offset: at, len, buffer_offset, ..extent },
                });
            }
        }
        last = holder;
        at += len;
    }
    pieces
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
