//! Looking for the next block that has data, past whole subtrees that are absent: an export of a thin volume takes as long
//! as its data, not as its size.
//!
//! What has changed since the last checkpoint is found in memory, the rest by way of the tree. Both are looked at as of one
//! moment, so a block that had data before the call is not missed, whatever checkpoints end meanwhile.

use super::format::page::{LEAF_SLOTS, PageIndex};
use super::leaf::{Leaf, leaf_of};
use super::state::{Map, Root};
use super::tree::{BLOCKS_MAX, ROOT_LEVEL, TreeError, ancestor, slot_in};
use crate::store::StoreErrorKind;
use crate::store::io::Io;
use crate::units::BlockIndex;

/// Leaves that a map can hold.
pub(super) const LEAVES_MAX: u64 = BLOCKS_MAX / LEAF_SLOTS as u64;

impl Map {
    /// The first block from `from` on whose entry names an object.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub async fn next_allocated(&self, io: &Io, from: BlockIndex) -> Result<Option<BlockIndex>, TreeError> {
        let mut from = from;
        while let Some(index) = self.next_leaf(io, leaf_of(from)).await? {
            let first = BlockIndex(from.0.max(index * LEAF_SLOTS as u64));
            let leaf = self.load(io, index).await?;
            if let Some(block) = first_in(&leaf, first) {
                return Ok(Some(block));
            }
            from = BlockIndex((index + 1) * LEAF_SLOTS as u64);
        }
        Ok(None)
    }

    /// The first leaf from `index` on that may hold an entry.
    async fn next_leaf(&self, io: &Io, index: u64) -> Result<Option<u64>, TreeError> {
        loop {
            let (root, changed) = self.first_changed(index);
            match self.next_leaf_in_tree(io, root, index).await {
                Ok(written) => return Ok(changed.into_iter().chain(written).min()),
                // A segment may vanish once a newer root does not need it.
                Err(TreeError::Store(error)) if error.kind() == StoreErrorKind::NotFound && !self.root_is(root) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn next_leaf_in_tree(&self, io: &Io, root: Root, mut index: u64) -> Result<Option<u64>, TreeError> {
        let Some(address) = root.address else { return Ok(None) };
        'from_root: while index < LEAVES_MAX {
            let mut at = address;
            for level in (1..=ROOT_LEVEL).rev() {
                let page = ancestor(index, level);
                let wanted = slot_in(ancestor(index, level - 1));
                let children = self.children(io, root, page, at).await?;
                let Some((slot, child)) = children.range(wanted..).next() else {
                    index = first_leaf(PageIndex { index: page.index + 1, ..page });
                    continue 'from_root;
                };
                if *slot != wanted {
                    let skipped = u64::from(slot - wanted);
                    let below = ancestor(index, level - 1);
                    index = first_leaf(PageIndex { index: below.index + skipped, ..below });
                }
                at = *child;
            }
            return Ok(Some(index));
        }
        Ok(None)
    }
}

/// The first leaf below a page.
pub(super) fn first_leaf(page: PageIndex) -> u64 {
    page.index << (8 * u32::from(page.level))
}

/// The first block from `from` on, in `from`'s leaf, whose entry names an object.
fn first_in(leaf: &Leaf, from: BlockIndex) -> Option<BlockIndex> {
    let start = leaf_of(from) * LEAF_SLOTS as u64;
    let mut blocks = (from.0..start + LEAF_SLOTS as u64).map(BlockIndex);
    blocks.find(|block| !leaf.is_zero(*block))
}
