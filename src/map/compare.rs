//! Comparing two maps: where a volume may differ from another of the same descent, found without reading data.
//!
//! Pages and objects that others may read never change, so what two maps name alike is alike:
//! ```text
//!   page by page     same checksum in both parents          nothing differs below: not read
//!   entry by entry   granules that the same object holds    are the same bytes
//!                    other objects                          may differ
//!                    an object on one side only             differs, or reads as zeros
//! ```
//! So the cost is that of the pages that differ, whatever the volume's size. What was replayed in memory has no page yet, and
//! is looked at in any case. Volume ids are compared, never indexes: every table is its own. Behind its end a volume counts as
//! zeros. Both maps must hold still: they are those of volumes that are open read-only.

use super::entry::Entry;
use super::format::page::{Children, LEAF_SLOTS, PageAddress, PageIndex};
use super::leaf::{Leaf, leaf_of};
use super::overlay::{GranuleRange, Mask};
use super::scan::{LEAVES_MAX, first_leaf};
use super::state::Map;
use super::tree::{ROOT_LEVEL, TreeError, ancestor, slot_in};
use crate::store::ObjectName;
use crate::store::io::Io;
use crate::units::{BlockIndex, ByteRange, ObjectSize};
use std::sync::Arc;

/// A range in which the second volume may differ from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    pub range: ByteRange,
    /// In the second it reads as zeros, and nothing holds it.
    pub zero: bool,
}

/// The differences of one leaf, ascending and disjoint; perhaps none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub differences: Vec<Difference>,
    /// What lies below has been compared.
    pub next: u64,
}

/// Two maps of blocks of one size.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Without one, the second is compared with nothing.
    pub from: Option<Side<'a>>,
    pub to: Side<'a>,
    pub object_size: ObjectSize,
}

#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub map: &'a Map,
    /// The volume's size in bytes.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    From,
    To,
}

/// Whose map could not be read, and why.
#[derive(Debug)]
pub struct CompareError {
    pub which: Which,
    pub source: TreeError,
}

impl Pair<'_> {
    /// Compares the first leaf that may differ at `offset` or behind it; `None` when there is no such leaf.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub async fn part(&self, io: &Io, offset: u64) -> Result<Option<Part>, CompareError> {
        let leaf_bytes = self.object_size.bytes() * LEAF_SLOTS as u64;
        let wanted = leaf_of(self.object_size.block_of(offset));
        let Some(index) = self.next_leaf(io, wanted).await? else { return Ok(None) };
        let inside = |start: &u64| *start < self.end();
        let Some(start) = index.checked_mul(leaf_bytes).filter(inside) else { return Ok(None) };
        let from = match self.from {
            Some(side) => Some(load(io, side.map, index, Which::From).await?),
            None => None,
        };
        let to = load(io, self.to.map, index, Which::To).await?;
        let mut differences = Vec::new();
        let first = BlockIndex(index * LEAF_SLOTS as u64);
        for block in (first.0..first.0 + LEAF_SLOTS as u64).map(BlockIndex) {
            self.compare_block(block, from.as_deref(), &to, &mut differences);
        }
        clip(&mut differences, offset);
        Ok(Some(Part { differences, next: start.saturating_add(leaf_bytes) }))
    }

    fn end(&self) -> u64 {
        self.to.size.max(self.size_before())
    }

    fn size_before(&self) -> u64 {
        self.from.map_or(0, |from| from.size)
    }

    /// The first leaf from `index` on that may differ.
    async fn next_leaf(&self, io: &Io, index: u64) -> Result<Option<u64>, CompareError> {
        let changed =
            [self.from, Some(self.to)].into_iter().flatten().filter_map(|side| side.map.first_changed(index).1);
        let changed = changed.min();
        Ok(changed.into_iter().chain(self.next_leaf_in_trees(io, index).await?).min())
    }

    async fn next_leaf_in_trees(&self, io: &Io, mut index: u64) -> Result<Option<u64>, CompareError> {
        let from_root = self.from.and_then(|side| side.map.root().address);
        let to_root = self.to.map.root().address;
        if same(from_root.as_ref(), to_root.as_ref()) {
            return Ok(None);
        }
        'from_root: while index < LEAVES_MAX {
            let (mut from_at, mut to_at) = (from_root, to_root);
            for level in (1..=ROOT_LEVEL).rev() {
                let page = ancestor(index, level);
                let below = ancestor(index, level - 1);
                let from = match self.from {
                    Some(side) => children(io, side.map, page, from_at, Which::From).await?,
                    None => Arc::default(),
                };
                let to = children(io, self.to.map, page, to_at, Which::To).await?;
                let wanted = slot_in(below);
                let Some(slot) = first_unlike(&from, &to, wanted) else {
                    index = first_leaf(PageIndex { index: page.index + 1, ..page });
                    continue 'from_root;
                };
                if slot != wanted {
                    index = first_leaf(PageIndex { index: below.index + u64::from(slot - wanted), ..below });
                }
                (from_at, to_at) = (from.get(&slot).copied(), to.get(&slot).copied());
            }
            return Ok(Some(index));
        }
        Ok(None)
    }

    /// Appends where the block differs. Where a volume ends inside the block, what lies behind is compared with zeros.
    fn compare_block(&self, block: BlockIndex, from: Option<&Leaf>, to: &Leaf, differences: &mut Vec<Difference>) {
        if to.is_zero(block) && from.is_none_or(|from| from.is_zero(block)) {
            return;
        }
        let start = block.0.saturating_mul(self.object_size.bytes());
        let end = start.saturating_add(self.object_size.bytes()).min(self.end());
        let from_layers = || self.from.zip(from).map_or_else(Layers::none, |(s, leaf)| Layers::of(s.map, leaf, block));
        let (size_before, to_size) = (self.size_before(), self.to.size);
        let mut cuts = [start, size_before.clamp(start, end.max(start)), to_size.clamp(start, end.max(start)), end];
        cuts.sort_unstable();
        for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1] && cut[0] >= start) {
            let from = if cut[0] < size_before { from_layers() } else { Layers::none() };
            let to = if cut[0] < to_size { Layers::of(self.to.map, to, block) } else { Layers::none() };
            let zero = to.0.is_empty();
            let (unlike, unit_bytes) = unlike(&from, &to, self.object_size);
            for run in unlike.runs() {
                let (first, last) =
                    (start + u64::from(run.first) * unit_bytes, start + u64::from(run.end()) * unit_bytes);
                let (first, last) = (first.max(cut[0]), last.min(cut[1]));
                if first < last {
                    append(differences, Difference { range: ByteRange::new(first, last - first), zero });
                }
            }
        }
    }
}

/// Appends a difference that lies behind the last one, as a part of it where they touch and are of one kind.
pub fn append(differences: &mut Vec<Difference>, next: Difference) {
    match differences.last_mut() {
        Some(last) if last.zero == next.zero && last.range.offset + last.range.len == next.range.offset => {
            last.range.len += next.range.len;
        }
        _ => differences.push(next),
    }
}

/// Leaves out what lies below `offset`.
fn clip(differences: &mut Vec<Difference>, offset: u64) {
    differences.retain_mut(|difference| {
        let ByteRange { offset: start, len } = difference.range;
        let first = start.max(offset);
        difference.range = ByteRange::new(first, (start + len).saturating_sub(first));
        difference.range.len != 0
    });
}

/// The objects of a block, each with its granules; of one that is not cut, a single granule.
struct Layers(Vec<(ObjectName, Mask)>, u16);

impl Layers {
    fn none() -> Self {
        Self(Vec::new(), 1)
    }

    fn of(map: &Map, leaf: &Leaf, block: BlockIndex) -> Self {
        match leaf.entry(block) {
            Entry::Zero => Self::none(),
            Entry::Data { volume, epoch } => Self(vec![(map.object(volume, epoch, block), mask_of_all(1))], 1),
            Entry::Overlay(overlay) => {
                let layers = overlay.layers().iter();
                let layers = layers.map(|layer| (map.object(layer.volume, layer.epoch, block), layer.mask));
                Self(layers.collect(), overlay.granules().count())
            }
        }
    }

    /// The same, cut into `count` granules, no fewer than now.
    fn cut(&self, count: u16) -> impl Iterator<Item = (&ObjectName, Mask)> {
        let factor = count / self.1;
        self.0.iter().map(move |(object, mask)| (object, stretched(mask, factor)))
    }
}

/// The granules that not the same object holds on both sides, and how large those granules are.
fn unlike(from: &Layers, to: &Layers, object_size: ObjectSize) -> (Mask, u64) {
    let count = from.1.max(to.1);
    let unit_bytes = object_size.bytes() / u64::from(count);
    if from.0.is_empty() && to.0.is_empty() {
        return (Mask::EMPTY, unit_bytes);
    }
    let mut unlike = mask_of_all(count);
    for (object, mask) in from.cut(count) {
        for (_, same) in to.cut(count).filter(|(other, _)| *other == object) {
            let shared = mask.without(&mask.without(&same));
            unlike = unlike.without(&shared);
        }
    }
    (unlike, unit_bytes)
}

fn mask_of_all(count: u16) -> Mask {
    Mask::of(GranuleRange { first: 0, count })
}

fn stretched(mask: &Mask, factor: u16) -> Mask {
    if factor == 1 {
        return *mask;
    }
    let mut stretched = Mask::EMPTY;
    for run in mask.runs() {
        stretched.insert(GranuleRange { first: run.first * factor, count: run.count * factor });
    }
    stretched
}

/// The first slot from `slot` on at which the two pages name different children.
fn first_unlike(from: &Children, to: &Children, slot: u16) -> Option<u16> {
    let mine = from.range(slot..).find(|(slot, child)| !same(Some(child), to.get(slot)));
    let theirs = to.range(slot..).find(|(slot, child)| !same(Some(child), from.get(slot)));
    mine.into_iter().chain(theirs).map(|(slot, _)| *slot).min()
}

/// Pages of one place in the tree are the same when their checksums are, wherever they lie.
fn same(from: Option<&PageAddress>, to: Option<&PageAddress>) -> bool {
    from.map(|page| page.checksum) == to.map(|page| page.checksum)
}

async fn load(io: &Io, map: &Map, index: u64, which: Which) -> Result<Arc<Leaf>, CompareError> {
    map.load(io, index).await.map_err(|source| CompareError { which, source })
}

async fn children(
    io: &Io,
    map: &Map,
    page: PageIndex,
    at: Option<PageAddress>,
    which: Which,
) -> Result<Arc<Children>, CompareError> {
    let Some(at) = at else { return Ok(Arc::default()) };
    map.children(io, map.root(), page, at).await.map_err(|source| CompareError { which, source })
}

#[cfg(test)]
mod tests;
