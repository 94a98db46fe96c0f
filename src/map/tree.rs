//! The tree of pages: reading a leaf, and writing a checkpoint's pages.
//!
//! Fixed height: leaves at level 0, the root at level 4. Pages are read through the store by address and checked against the
//! checksum in their parent. Reading and checkpointing run side by side: what was read under an older root is not kept
//! ([`super::state::Root`]).

use super::entry::{VolumeIds, Word};
use super::format::FormatError;
use super::format::page::{
    Children, INNER_SLOTS, LeafItems, PageAddress, PageIndex, decode_inner, decode_leaf, encode_inner, encode_leaf,
};
use super::format::segment::SegmentBuilder;
use super::leaf::Leaf;
use super::state::{Frozen, Map, Root};
use crate::store::io::Io;
use crate::store::{Buffer, ObjectName, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Level of the root page.
pub const ROOT_LEVEL: u8 = 4;

/// Blocks that a map can hold: 1024 · 256^4.
pub const BLOCKS_MAX: u64 = 1 << 42;

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot read the map")]
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

    async fn children(
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
fn ancestor(index: u64, level: u8) -> PageIndex {
    PageIndex { level, index: index >> (8 * u32::from(level)) }
}

/// A page's slot in its parent.
fn slot_in(page: PageIndex) -> u16 {
    u16::try_from(page.index % INNER_SLOTS as u64).expect("below 256")
}

fn parent(page: PageIndex) -> PageIndex {
    PageIndex { level: page.level + 1, index: page.index / INNER_SLOTS as u64 }
}

async fn read_page(io: &Io, at: &PageAddress) -> Result<Vec<u8>, TreeError> {
    let segment = ObjectName::Segment { volume: at.volume, generation: at.generation, number: at.number };
    let len = usize::try_from(at.len).expect("a page's length was checked");
    Ok(io.read(segment, at.offset, Buffer::zeroed(len)).await?.to_vec())
}

fn damaged(at: &PageAddress, source: FormatError) -> TreeError {
    let place = format!("segment {}.{}.{} at byte {}", at.volume, at.generation.0, at.number, at.offset);
    TreeError::Damaged { place, source }
}

/// The pages of a checkpoint, not yet durable.
#[derive(Debug)]
pub struct WrittenTree {
    pub root: Option<PageAddress>,
    pub inner: Vec<(PageIndex, Children)>,
    /// Bytes of pages that the tree names newly, and of those it names no more.
    pub bytes_added: u64,
    pub bytes_replaced: u64,
}

/// Puts the frozen leaves and all pages above them into the segment.
///
/// # Errors
/// When an inner page cannot be read or is damaged.
pub async fn write(
    map: &Map,
    io: &Io,
    frozen: &Frozen,
    segment: &mut SegmentBuilder,
) -> Result<WrittenTree, TreeError> {
    let owner = map.volume();
    let mut written = WrittenTree { root: frozen.root, inner: Vec::new(), bytes_added: 0, bytes_replaced: 0 };
    let mut level: BTreeMap<PageIndex, Option<PageAddress>> = frozen
        .leaves
        .iter()
        .map(|(index, leaf)| {
            let page = leaf_page(owner, *index, &frozen.ids, leaf);
            (ancestor(*index, 0), page.map(|page| segment.push(&page)))
        })
        .collect();
    let root = map.root();
    for _ in 0..ROOT_LEVEL {
        let mut above = BTreeMap::new();
        for (page, changes) in by_parent(level) {
            let mut children = children_of(map, io, root, page).await?;
            for (slot, address) in changes {
                let old = match address {
                    Some(address) => {
                        written.bytes_added += u64::from(address.len);
                        children.insert(slot, address)
                    }
                    None => children.remove(&slot),
                };
                written.bytes_replaced += old.map_or(0, |old| u64::from(old.len));
            }
            let address = encode_inner(owner, page, &children).map(|bytes| segment.push(&bytes));
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
    Ok(written)
}

fn leaf_page(owner: VolumeId, index: u64, ids: &VolumeIds, leaf: &Leaf) -> Option<Vec<u8>> {
    let words: Vec<Word> = leaf.words().collect();
    encode_leaf(owner, index, ids, &words)
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
