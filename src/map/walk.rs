//! The pages of any tree, by their addresses alone: for whoever looks at maps that are not open (collection, checking).
//!
//! A walk hands out the leaves below a root, in order, past every page that an earlier walk with the same [`Visited`] has
//! been through: a thousand snapshots that share their pages cost little more than one. A page counts as visited only when
//! everything below it has been handed out and found sound, so a walk may be given up anywhere.

use super::format::page::{INNER_SLOTS, LeafItems, PAGE_ALIGN, PageAddress, PageIndex, decode_inner, decode_leaf};
use super::tree::{ROOT_LEVEL, TreeError, damaged, read_page};
use crate::store::ObjectName;
use crate::store::io::Io;
use crate::units::{Generation, VolumeId};
use futures_util::future::join_all;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;

/// Leaves read at once.
const LEAVES_AT_ONCE: usize = 16;

/// What one visited page takes in memory, about.
const PAGE_MEMORY_BYTES: u64 = 16;

/// A segment's name.
type Segment = (VolumeId, Generation, u32);

/// The pages that walks have been through, and the segments that they lie in.
#[derive(Debug)]
pub struct Visited {
    /// Places of pages, in units of their alignment.
    segments: FxHashMap<Segment, FxHashSet<u32>>,
    pages: u64,
    pages_max: u64,
}

impl Visited {
    /// Remembers pages in about so much memory; what it cannot remember is walked again. Segments it always remembers: they
    /// are few.
    pub fn new(memory_bytes: u64) -> Self {
        Self { segments: FxHashMap::default(), pages: 0, pages_max: memory_bytes / PAGE_MEMORY_BYTES }
    }

    /// Whether a walk has seen a page of this segment named.
    pub fn names_segment(&self, volume: VolumeId, generation: Generation, number: u32) -> bool {
        self.segments.contains_key(&(volume, generation, number))
    }

    fn contains(&self, at: &PageAddress) -> bool {
        place(at).is_some_and(|place| self.segments.get(&segment(at)).is_some_and(|pages| pages.contains(&place)))
    }

    fn name_segment(&mut self, at: &PageAddress) {
        self.segments.entry(segment(at)).or_default();
    }

    /// Inner pages may use all of the memory, leaves three quarters: an inner page spares the way to many leaves.
    fn insert(&mut self, at: &PageAddress, level: u8) {
        let max = if level == 0 { self.pages_max / 4 * 3 } else { self.pages_max };
        if self.pages >= max {
            return;
        }
        if let Some(place) = place(at)
            && self.segments.entry(segment(at)).or_default().insert(place)
        {
            self.pages += 1;
        }
    }
}

fn segment(at: &PageAddress) -> Segment {
    (at.volume, at.generation, at.number)
}

fn place(at: &PageAddress) -> Option<u32> {
    u32::try_from(at.offset / PAGE_ALIGN as u64).ok()
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Met {
    Leaf {
        index: u64,
        items: LeafItems,
    },
    /// A page that is missing, unreadable or damaged, in this segment. The walk goes on behind it.
    Bad {
        segment: ObjectName,
        error: TreeError,
    },
}

/// See the module's text.
pub struct Walk<'a> {
    io: &'a Io,
    visited: &'a mut Visited,
    /// The inner pages from the root down to where the walk is.
    path: Vec<Inner>,
    /// Leaves of the lowest page of the path, read and not yet handed out.
    read: VecDeque<(PageAddress, Met)>,
    /// Handed out last.
    last: Option<PageAddress>,
}

struct Inner {
    page: PageIndex,
    at: PageAddress,
    /// Still to be gone through, the next one last.
    children: Vec<(PageIndex, PageAddress)>,
    /// Nothing below it was bad.
    sound: bool,
}

impl<'a> Walk<'a> {
    /// A walk from `root`, which is the root of a whole map.
    pub fn new(io: &'a Io, visited: &'a mut Visited, root: Option<PageAddress>) -> Self {
        let top = PageIndex { level: ROOT_LEVEL, index: 0 };
        // Stands above the root, at no place of its own.
        let children: Vec<_> = root.iter().map(|at| (top, *at)).collect();
        let path = root
            .map(|at| Inner { page: PageIndex { level: ROOT_LEVEL + 1, index: 0 }, at, children, sound: false })
            .into_iter()
            .collect();
        Self { io, visited, path, read: VecDeque::new(), last: None }
    }

    /// The next leaf or bad page; `None` at the end.
    pub async fn next(&mut self) -> Option<Met> {
        if let Some(at) = self.last.take() {
            self.visited.insert(&at, 0);
        }
        loop {
            if let Some((at, met)) = self.read.pop_front() {
                match met {
                    Met::Leaf { .. } => self.last = Some(at),
                    Met::Bad { .. } => self.is_bad(),
                }
                return Some(met);
            }
            let inner = self.path.last_mut()?;
            if inner.children.is_empty() {
                self.leave();
            } else if inner.page.level == 1 {
                self.read_leaves().await;
            } else if let Some(bad) = self.enter().await {
                self.is_bad();
                return Some(bad);
            }
        }
    }

    /// The leaf handed out last is not sound: another walk is to see it again.
    pub fn is_bad(&mut self) {
        self.last = None;
        if let Some(inner) = self.path.last_mut() {
            inner.sound = false;
        }
    }

    /// Goes down to the next child, if that was not visited before.
    async fn enter(&mut self) -> Option<Met> {
        let (page, at) = self.path.last_mut()?.children.pop()?;
        if self.visited.contains(&at) {
            return None;
        }
        self.visited.name_segment(&at);
        let bytes = match read_page(self.io, &at).await {
            Ok(bytes) => bytes,
            Err(error) => return Some(bad(&at, error)),
        };
        match decode_inner(&bytes, page, at.checksum) {
            Ok(children) => {
                let below = |slot: u16| {
                    let index = page.index * INNER_SLOTS as u64 + u64::from(slot);
                    PageIndex { level: page.level - 1, index }
                };
                let children = children.into_iter().rev().map(|(slot, child)| (below(slot), child)).collect();
                self.path.push(Inner { page, at, children, sound: true });
                None
            }
            Err(source) => Some(bad(&at, damaged(&at, source))),
        }
    }

    fn leave(&mut self) {
        let Some(Inner { page, at, sound, .. }) = self.path.pop() else { return };
        if sound {
            self.visited.insert(&at, page.level);
        } else if let Some(above) = self.path.last_mut() {
            above.sound = false;
        }
    }

    async fn read_leaves(&mut self) {
        let Some(inner) = self.path.last_mut() else { return };
        let mut leaves = Vec::with_capacity(LEAVES_AT_ONCE);
        while leaves.len() < LEAVES_AT_ONCE
            && let Some(child) = inner.children.pop()
        {
            if !self.visited.contains(&child.1) {
                self.visited.name_segment(&child.1);
                leaves.push(child);
            }
        }
        let io = self.io;
        let reads = leaves.into_iter().map(|(page, at)| async move {
            let items = match read_page(io, &at).await {
                Ok(bytes) => decode_leaf(&bytes, page.index, at.checksum).map_err(|source| damaged(&at, source)),
                Err(error) => Err(error),
            };
            let met = items.map_or_else(|error| bad(&at, error), |items| Met::Leaf { index: page.index, items });
            (at, met)
        });
        self.read = join_all(reads).await.into();
    }
}

fn bad(at: &PageAddress, error: TreeError) -> Met {
    let segment = ObjectName::Segment { volume: at.volume, generation: at.generation, number: at.number };
    Met::Bad { segment, error }
}
