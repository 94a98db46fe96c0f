//! The tree of pages: reading a leaf, and writing a checkpoint's pages.
//!
//! Fixed height: leaves at level 0, the root at level 4. Pages are read through the store by address and checked against the
//! checksum in their parent. Reading and checkpointing run side by side: what was read under an older root is not kept
//! ([`super::state::Root`]).

use super::format::FormatError;
use super::format::page::{
    Children, INNER_SLOTS, LeafItems, PageAddress, PageIndex, decode_inner, decode_leaf, encode_inner, encode_leaf,
};
use super::format::segment::SegmentBuilder;
use super::leaf::Leaf;
use super::state::{Frozen, Map, Root};
use crate::store::io::Io;
use crate::store::{Buffer, ObjectName, PublishMode, StoreError, StoreErrorKind};
use crate::units::{Generation, VolumeId};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Level of the root page.
pub const ROOT_LEVEL: u8 = 4;

/// Blocks that a map can hold: 1024 · 256^4.
pub const BLOCKS_MAX: u64 = 1 << 42;

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot read or write the map")]
    Store(#[from] StoreError),
    #[error("{place}: {source}")]
    Damaged { place: String, source: FormatError },
}

impl Map {
    /// The leaf, from memory or from its page.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub async fn load(&self, io: &Io, index: u64) -> Result<Arc<Leaf>, TreeError> {
        loop {
            if let Some(leaf) = self.leaf(index) {
                return Ok(leaf);
            }
            let root = self.root();
            match self.read_leaf(io, root, index).await {
                Ok(items) => {
                    let kept = self.keep_leaf(root, index, &items);
                    if let Some(leaf) =
                        kept.map_err(|source| TreeError::Damaged { place: format!("leaf {index}"), source })?
                    {
                        return Ok(leaf);
                    }
                }
                // A segment may vanish once a newer root does not need it.
                Err(TreeError::Store(error)) if error.kind() == StoreErrorKind::NotFound && !self.root_is(root) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_leaf(&self, io: &Io, root: Root, index: u64) -> Result<LeafItems, TreeError> {
        let mut address = root.address;
        for level in (1..=ROOT_LEVEL).rev() {
            let Some(at) = address else { break };
            let page = ancestor(index, level);
            let children = self.children(io, root, page, at).await?;
            address = children.get(&slot_in(ancestor(index, level - 1))).copied();
        }
        let Some(at) = address else { return Ok(LeafItems::default()) };
        let bytes = read_page(io, &at).await?;
        decode_leaf(&bytes, index, at.checksum).map_err(|source| damaged(&at, source))
    }

    pub(super) async fn children(
        &self,
        io: &Io,
        root: Root,
        page: PageIndex,
        at: PageAddress,
    ) -> Result<Arc<Children>, TreeError> {
        if let Some(children) = self.inner(page).filter(|_| self.root_is(root)) {
            return Ok(children);
        }
        let bytes = read_page(io, &at).await?;
        let children = decode_inner(&bytes, page, at.checksum).map_err(|source| damaged(&at, source))?;
        let children = Arc::new(children);
        self.keep_inner(root, page, &children);
        Ok(children)
    }
}

/// The page of `level` above leaf `index`; level 0 is the leaf itself.
pub(super) fn ancestor(index: u64, level: u8) -> PageIndex {
    PageIndex { level, index: index >> (8 * u32::from(level)) }
}

/// A page's slot in its parent.
pub(super) fn slot_in(page: PageIndex) -> u16 {
    u16::try_from(page.index % INNER_SLOTS as u64).expect("below 256")
}

fn parent(page: PageIndex) -> PageIndex {
    PageIndex { level: page.level + 1, index: page.index / INNER_SLOTS as u64 }
}

pub(super) async fn read_page(io: &Io, at: &PageAddress) -> Result<Vec<u8>, TreeError> {
    let segment = ObjectName::Segment { volume: at.volume, generation: at.generation, number: at.number };
    let len = usize::try_from(at.len).expect("a page's length was checked");
    Ok(io.read(segment, at.offset, Buffer::zeroed(len)).await?.to_vec())
}

pub(super) fn damaged(at: &PageAddress, source: FormatError) -> TreeError {
    let place = format!("segment {}.{}.{} at byte {}", at.volume, at.generation.0, at.number, at.offset);
    TreeError::Damaged { place, source }
}

/// Where a checkpoint's pages go: segments of a bounded size, each published when it is full.
pub struct Segments<'a> {
    io: &'a Io,
    volume: VolumeId,
    generation: Generation,
    /// Number of the segment being filled; later ones take what `next_number` gives.
    open: SegmentBuilder,
    next_number: &'a mut dyn FnMut() -> u32,
    published: Vec<ObjectName>,
    bytes: u64,
}

/// A segment is published when it is this long, so that a checkpoint needs bounded memory.
const SEGMENT_BYTES_MAX: usize = 32 << 20;

impl<'a> Segments<'a> {
    pub fn new(io: &'a Io, volume: VolumeId, generation: Generation, next_number: &'a mut dyn FnMut() -> u32) -> Self {
        let open = SegmentBuilder::new(volume, generation, next_number());
        Self { io, volume, generation, open, next_number, published: Vec::new(), bytes: 0 }
    }

    async fn push(&mut self, page: &[u8]) -> Result<PageAddress, StoreError> {
        if self.open.len() + page.len() > SEGMENT_BYTES_MAX {
            let next = SegmentBuilder::new(self.volume, self.generation, (self.next_number)());
            let full = std::mem::replace(&mut self.open, next);
            self.publish(full).await?;
        }
        Ok(self.open.push(page))
    }

    async fn publish(&mut self, segment: SegmentBuilder) -> Result<(), StoreError> {
        let object = ObjectName::Segment { volume: self.volume, generation: self.generation, number: segment.number() };
        let bytes = segment.finish();
        self.bytes += bytes.len() as u64;
        self.io.publish(object.clone(), &bytes, PublishMode::Exclusive).await?;
        self.published.push(object);
        Ok(())
    }

    /// Publishes what is left. Returns the segments, all durable, and their bytes.
    async fn finish(&mut self) -> Result<(Vec<ObjectName>, u64), StoreError> {
        let number = self.open.number();
        let last = std::mem::replace(&mut self.open, SegmentBuilder::new(self.volume, self.generation, number));
        if !last.is_empty() {
            self.publish(last).await?;
        }
        Ok((std::mem::take(&mut self.published), self.bytes))
    }

    /// Removes what was published: no header will name it, and on a full store the space is wanted.
    async fn give_up(&mut self) {
        for segment in std::mem::take(&mut self.published) {
            // What stays is for collection.
            let _unneeded = self.io.remove(segment).await;
        }
    }
}

/// A checkpoint's tree, durable and not yet named by a header.
#[derive(Debug)]
pub struct WrittenTree {
    pub root: Option<PageAddress>,
    pub inner: Vec<(PageIndex, Children)>,
    /// Bytes of pages that the tree names newly, and of those it names no more.
    pub bytes_added: u64,
    pub bytes_replaced: u64,
    /// The new segments, and their bytes.
    pub segments: Vec<ObjectName>,
    pub segment_bytes: u64,
}

/// How much of the tree a checkpoint writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The frozen leaves and the pages above them.
    Changed,
    /// Every page, so that no older segment is needed any more.
    Whole,
}

/// Writes pages for the frozen leaves and all pages above them, or for the whole tree.
///
/// # Errors
/// When an inner page cannot be read or is damaged, or a segment cannot be written.
pub async fn write(
    map: &Map,
    frozen: &Frozen,
    extent: Extent,
    mut segments: Segments<'_>,
) -> Result<WrittenTree, TreeError> {
    let written = write_into(map, frozen, extent, &mut segments).await;
    if written.is_err() {
        segments.give_up().await;
    }
    written
}

async fn write_into(
    map: &Map,
    frozen: &Frozen,
    extent: Extent,
    segments: &mut Segments<'_>,
) -> Result<WrittenTree, TreeError> {
    let (owner, io) = (map.volume(), segments.io);
    let root = map.root();
    let mut written = WrittenTree {
        root: frozen.root,
        inner: Vec::new(),
        bytes_added: 0,
        bytes_replaced: 0,
        segments: Vec::new(),
        segment_bytes: 0,
    };
    let mut level = BTreeMap::new();
    for (index, leaf) in &frozen.leaves {
        let address = match encode_leaf(owner, *index, &frozen.ids, leaf.entries()) {
            Some(page) => Some(segments.push(&page).await?),
            None => None,
        };
        level.insert(ancestor(*index, 0), address);
    }
    if extent == Extent::Whole {
        copy_unchanged_leaves(map, root, &mut level, segments).await?;
    }
    for _ in 0..ROOT_LEVEL {
        let mut above = BTreeMap::new();
        for (page, changes) in by_parent(level) {
            let mut children = children_of(map, io, root, page).await?;
            for (slot, address) in changes {
                written.bytes_added += address.map_or(0, |new: PageAddress| u64::from(new.len));
                let old = match address {
                    Some(address) => children.insert(slot, address),
                    None => children.remove(&slot),
                };
                written.bytes_replaced += old.map_or(0, |old| u64::from(old.len));
            }
            let address = match encode_inner(owner, page, &children) {
                Some(bytes) => Some(segments.push(&bytes).await?),
                None => None,
            };
            written.inner.push((page, children));
            above.insert(page, address);
        }
        level = above;
    }
    if let Some((_, address)) = level.pop_first() {
        written.bytes_added += address.map_or(0, |new| u64::from(new.len));
        written.bytes_replaced += frozen.root.map_or(0, |old| u64::from(old.len));
        written.root = address;
    }
    (written.segments, written.segment_bytes) = segments.finish().await?;
    Ok(written)
}

/// Pages read ahead while a tree is written anew.
const PAGES_AT_ONCE: usize = 16;

/// Copies the pages of all leaves that `level` does not have, as they are: a page says nothing of where it lies.
async fn copy_unchanged_leaves(
    map: &Map,
    root: Root,
    level: &mut BTreeMap<PageIndex, Option<PageAddress>>,
    segments: &mut Segments<'_>,
) -> Result<(), TreeError> {
    let io = segments.io;
    let mut inner: Vec<(PageIndex, PageAddress)> =
        root.address.map(|address| (ancestor(0, ROOT_LEVEL), address)).into_iter().collect();
    while let Some((page, at)) = inner.pop() {
        let children = map.children(io, root, page, at).await?;
        let below = children.iter().map(|(slot, child)| {
            let index = page.index * INNER_SLOTS as u64 + u64::from(*slot);
            (PageIndex { level: page.level - 1, index }, *child)
        });
        if page.level > 1 {
            inner.extend(below);
            continue;
        }
        let unchanged: Vec<_> = below.filter(|(leaf, _)| !level.contains_key(leaf)).collect();
        let reads = unchanged.into_iter().map(|(leaf, at)| async move { (leaf, at, read_page(io, &at).await) });
        let mut pages = stream::iter(reads).buffered(PAGES_AT_ONCE);
        while let Some((leaf, at, bytes)) = pages.next().await {
            let bytes = bytes?;
            decode_leaf(&bytes, leaf.index, at.checksum).map_err(|source| damaged(&at, source))?;
            level.insert(leaf, Some(segments.push(&bytes).await?));
        }
    }
    Ok(())
}

type Slots = Vec<(u16, Option<PageAddress>)>;

fn by_parent(level: BTreeMap<PageIndex, Option<PageAddress>>) -> BTreeMap<PageIndex, Slots> {
    let mut parents: BTreeMap<PageIndex, Slots> = BTreeMap::new();
    for (page, address) in level {
        parents.entry(parent(page)).or_default().push((slot_in(page), address));
    }
    parents
}

/// The present children of an inner page, read from the root down; none when the page is absent.
async fn children_of(map: &Map, io: &Io, root: Root, page: PageIndex) -> Result<Children, TreeError> {
    let mut address = root.address;
    for level in (page.level..=ROOT_LEVEL).rev() {
        let Some(at) = address else { return Ok(Children::new()) };
        let here = PageIndex { level, index: page.index >> (8 * u32::from(level - page.level)) };
        let children = map.children(io, root, here, at).await?;
        if level == page.level {
            return Ok(Children::clone(&children));
        }
        let below = PageIndex { level: level - 1, index: page.index >> (8 * u32::from(level - 1 - page.level)) };
        address = children.get(&slot_in(below)).copied();
    }
    Ok(Children::new())
}
