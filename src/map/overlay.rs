//! Overlays: a block whose granules are in several objects.
//!
//! The first write to a block whose object is shared does not copy the block. It makes an object of the volume's own, the *top*
//! layer, and puts into it only the granules that are written; the others stay where they are. A snapshot in between makes
//! that top shared as well, and the next write puts another on it:
//! ```text
//!   layer 0 (top)   own, epoch 9      ..X.....X.......     only layer 0 is ever written, and only by its owner
//!   layer 1         own, epoch 5      .X..XX..........     shared with a snapshot
//!   layer 2         parent, epoch 3   X..X..XX.XXXXXXX     shared with the parent
//! ```
//! Each granule is in exactly one layer, so a read finds it by looking at a few bits, however many snapshots lie below, and
//! nothing is copied to keep the depth small: only an overlay that has [`LAYERS_MAX`] layers gives one up, the one with the fewest
//! granules, which are copied into the top: ahead, in the background, or at the latest when it gets a new top.
//!
//! An overlay never changes; a step makes another. Invariants: masks are disjoint and together cover the block; no mask but
//! the top's is empty; there are at least two layers (one alone is plain Data).

use super::entry::{Entry, VolumeIndex};
use crate::units::{Epoch, ObjectSize};
use std::sync::Arc;

/// Granules of a block at most, so that a mask has a fixed size.
pub const GRANULES_MAX: usize = 1024;

/// Layers of an overlay at most: a mask each, and a look at a mask for every read of the lowest.
pub const LAYERS_MAX: usize = 8;

/// How a block is cut into granules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granules {
    /// Granule size as a power of two.
    shift: u8,
    count: u16,
}

/// Some granules in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GranuleRange {
    pub first: u16,
    pub count: u16,
}

/// A set of granules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mask([u64; GRANULES_MAX / 64]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub volume: VolumeIndex,
    pub epoch: Epoch,
    pub mask: Mask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    granules: Granules,
    /// The top first.
    layers: Vec<Layer>,
}

/// One change of an entry, as small as it can be told: with the entry before it, it says the entry after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The block reads as zeros.
    Zero,
    /// The volume's own object of this epoch holds all of the block.
    Own { epoch: Epoch },
    /// A new top of this epoch, which holds the granules of the layer `absorbed`, if any, and no others.
    Cover { epoch: Epoch, absorbed: Option<u8> },
    /// The top now holds these granules.
    Fill(GranuleRange),
}

impl Granules {
    /// Granules of `granule_bytes`, or more where a block would have more than [`GRANULES_MAX`] of them.
    ///
    /// # Panics
    /// When `granule_bytes` is not a power of two of at least 512 and at most the object size.
    pub fn new(object_size: ObjectSize, granule_bytes: u64) -> Self {
        assert!(granule_bytes.is_power_of_two() && (512..=object_size.bytes()).contains(&granule_bytes));
        let bytes = granule_bytes.max(object_size.bytes() / GRANULES_MAX as u64);
        let count = u16::try_from(object_size.bytes() / bytes).expect("at most GRANULES_MAX");
        Self { shift: u8::try_from(bytes.trailing_zeros()).expect("a shift is below 64"), count }
    }

    /// From the numbers of a page or record; `None` when they make no sense.
    pub fn from_parts(shift: u8, count: u16) -> Option<Self> {
        let sound =
            (9..=24).contains(&shift) && (1..=GRANULES_MAX).contains(&usize::from(count)) && count.is_power_of_two();
        sound.then_some(Self { shift, count })
    }

    pub fn shift(self) -> u8 {
        self.shift
    }

    pub fn bytes(self) -> u64 {
        1 << self.shift
    }

    pub fn count(self) -> u16 {
        self.count
    }

    /// Whether both cut objects of one size.
    pub fn make_up_as_much_as(self, other: Self) -> bool {
        self.bytes() * u64::from(self.count) == other.bytes() * u64::from(other.count)
    }

    pub fn all(self) -> GranuleRange {
        GranuleRange { first: 0, count: self.count }
    }

    /// The granules that `len` bytes at `offset` of the block touch; none when `len` is zero.
    pub fn touched(self, offset: u64, len: u64) -> GranuleRange {
        self.range(offset >> self.shift, (offset + len).div_ceil(self.bytes()))
    }

    /// The granules that `len` bytes at `offset` cover whole.
    pub fn covered(self, offset: u64, len: u64) -> GranuleRange {
        self.range(offset.div_ceil(self.bytes()), (offset + len) >> self.shift)
    }

    fn range(self, first: u64, end: u64) -> GranuleRange {
        let number = |n: u64| u16::try_from(n).expect("offsets lie within the block");
        GranuleRange { first: number(first), count: number(end.saturating_sub(first)) }
    }
}

impl GranuleRange {
    /// All of a block, however it is cut.
    pub const WHOLE: GranuleRange = GranuleRange { first: 0, count: 1024 };

    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    pub fn end(self) -> u16 {
        self.first + self.count
    }
}

impl Mask {
    pub const EMPTY: Mask = Mask([0; GRANULES_MAX / 64]);

    pub fn of(range: GranuleRange) -> Self {
        let mut mask = Self::EMPTY;
        mask.insert(range);
        mask
    }

    pub fn from_words(words: [u64; GRANULES_MAX / 64]) -> Self {
        Self(words)
    }

    pub fn words(&self) -> &[u64; GRANULES_MAX / 64] {
        &self.0
    }

    pub fn contains(&self, granule: u16) -> bool {
        self.0[usize::from(granule / 64)] >> (granule % 64) & 1 == 1
    }

    pub fn contains_all(&self, range: GranuleRange) -> bool {
        words_of(range).all(|(word, bits)| self.0[word] & bits == bits)
    }

    pub fn insert(&mut self, range: GranuleRange) {
        for (word, bits) in words_of(range) {
            self.0[word] |= bits;
        }
    }

    pub fn union(&self, other: &Mask) -> Mask {
        Mask(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub fn intersection(&self, other: &Mask) -> Mask {
        Mask(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// The granules of this set that are not in `other`.
    pub fn without(&self, other: &Mask) -> Mask {
        Mask(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| usize::try_from(word.count_ones()).expect("at most 64")).sum()
    }

    /// The set as runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = GranuleRange> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = self.next_from(next, |word| word)?;
            next = self.next_from(first, |word| !word).unwrap_or(GRANULES_MAX);
            let number = |granule: usize| u16::try_from(granule).expect("at most GRANULES_MAX");
            Some(GranuleRange { first: number(first), count: number(next - first) })
        })
    }

    /// The first granule from `start` on whose bit is set in what `look` makes of the words.
    fn next_from(&self, start: usize, look: impl Fn(u64) -> u64) -> Option<usize> {
        let mut from = start % 64;
        for (index, word) in self.0.iter().enumerate().skip(start / 64) {
            let left = look(*word) >> from << from;
            if left != 0 {
                return Some(index * 64 + usize::try_from(left.trailing_zeros()).expect("below 64"));
            }
            from = 0;
        }
        None
    }
}

/// The words of a mask that the range lies in, and its bits of each.
fn words_of(range: GranuleRange) -> impl Iterator<Item = (usize, u64)> {
    let (first, end) = (usize::from(range.first), usize::from(range.end()));
    let words = if range.is_empty() { 0..0 } else { first / 64..end.div_ceil(64) };
    words.map(move |word| {
        let bits = |from: usize, to: usize| u64::MAX >> (64 - (to - from)) << from;
        (word, bits(first.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64))
    })
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.runs().map(|run| run.first..run.end())).finish()
    }
}

impl Overlay {
    /// `None` when the layers break an invariant.
    pub fn new(granules: Granules, layers: Vec<Layer>) -> Option<Self> {
        let mut seen = Mask::EMPTY;
        for layer in &layers {
            if seen.union(&layer.mask).len() != seen.len() + layer.mask.len() {
                return None;
            }
            seen = seen.union(&layer.mask);
        }
        let lower_empty = layers.iter().skip(1).any(|layer| layer.mask.is_empty());
        let sound = (2..=LAYERS_MAX).contains(&layers.len()) && !lower_empty && seen == Mask::of(granules.all());
        sound.then_some(Self { granules, layers })
    }

    pub fn granules(&self) -> Granules {
        self.granules
    }

    /// The top first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub fn top(&self) -> &Layer {
        &self.layers[0]
    }

    /// The layer that holds the granule.
    ///
    /// # Panics
    /// When the block has no such granule.
    pub fn layer_of(&self, granule: u16) -> &Layer {
        let holds = |layer: &&Layer| layer.mask.contains(granule);
        self.layers.iter().find(holds).expect("the masks cover the block")
    }

    /// The layer to be given up when a new top comes: none while there is room.
    pub fn to_absorb(&self) -> Option<u8> {
        if self.layers.len() < LAYERS_MAX {
            return None;
        }
        let fewest = (0u8..).zip(&self.layers).min_by_key(|(_, layer)| layer.mask.len());
        fewest.map(|(index, _)| index)
    }

    /// The same with other volume indexes.
    ///
    /// # Errors
    /// What `index` returns.
    pub fn reindexed<E>(&self, mut index: impl FnMut(VolumeIndex) -> Result<VolumeIndex, E>) -> Result<Self, E> {
        let layers = self.layers.iter().map(|layer| Ok(Layer { volume: index(layer.volume)?, ..*layer }));
        Ok(Self { granules: self.granules, layers: layers.collect::<Result<_, E>>()? })
    }
}

impl Entry {
    /// The entry after the step; `granules` is how a block that has no overlay yet is cut. `None` when the step does not go
    /// with the entry: nothing to cover, no overlay to fill, no such layer or granule.
    pub fn after(&self, step: Step, granules: Granules) -> Option<Entry> {
        match step {
            Step::Zero => Some(Entry::Zero),
            Step::Own { epoch } => Some(Entry::Data { volume: VolumeIndex::OWN, epoch }),
            Step::Cover { epoch, absorbed } => self.covered(epoch, absorbed, granules),
            Step::Fill(range) => self.filled(range),
        }
    }

    fn covered(&self, epoch: Epoch, absorbed: Option<u8>, granules: Granules) -> Option<Entry> {
        let top = |mask| Layer { volume: VolumeIndex::OWN, epoch, mask };
        match (self, absorbed) {
            (Entry::Data { volume, epoch }, None) => {
                let below = Layer { volume: *volume, epoch: *epoch, mask: Mask::of(granules.all()) };
                Some(Entry::overlay(granules, vec![top(Mask::EMPTY), below]))
            }
            (Entry::Overlay(overlay), absorbed) => {
                let mut layers = overlay.layers.clone();
                let mask = match absorbed.map(usize::from) {
                    None => Mask::EMPTY,
                    Some(index) if index < layers.len() => layers.remove(index).mask,
                    Some(_) => return None,
                };
                layers.retain(|layer| !layer.mask.is_empty());
                layers.insert(0, top(mask));
                (layers.len() <= LAYERS_MAX).then(|| Entry::overlay(overlay.granules, layers))
            }
            (Entry::Zero, _) | (Entry::Data { .. }, Some(_)) => None,
        }
    }

    fn filled(&self, range: GranuleRange) -> Option<Entry> {
        let Entry::Overlay(overlay) = self else { return None };
        if range.first.checked_add(range.count)? > overlay.granules.count {
            return None;
        }
        let mask = Mask::of(range);
        let mut layers = overlay.layers.clone();
        for layer in &mut layers[1..] {
            layer.mask = layer.mask.without(&mask);
        }
        layers[0].mask = layers[0].mask.union(&mask);
        let mut index = 0;
        layers.retain(|layer| {
            index += 1;
            index == 1 || !layer.mask.is_empty()
        });
        Some(Entry::overlay(overlay.granules, layers))
    }

    /// Layers that keep the invariants, but for being perhaps only one.
    fn overlay(granules: Granules, layers: Vec<Layer>) -> Entry {
        match layers.as_slice() {
            [only] => Entry::Data { volume: only.volume, epoch: only.epoch },
            _ => Entry::Overlay(Arc::new(Overlay { granules, layers })),
        }
    }
}

#[cfg(test)]
mod tests;
