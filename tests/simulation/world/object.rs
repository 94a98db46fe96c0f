//! One object with its volatile cache: what readers see, what surely survives a power cut, and what may.
//!
//! ```text
//!   lives:  [ durable ] → [ created by op 7 ] → [ removed by op 12 ]      the last one is what readers see
//!              base           base + versions
//! ```
//! A *life* begins with a change of existence: creation, removal, replacement. A file system journals these in order, so
//! a power cut leaves one life: the last whose beginning reached the disk. Within a life, each sector has its base value
//! and the unsynced versions written since; a power cut leaves any one of them, each sector for itself.

use super::content::{Content, Sector};
use std::collections::BTreeMap;

/// Numbers an operation; all changes it makes carry it. Later operations have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

#[derive(Debug, Clone)]
struct Life {
    /// `None`: this life is durable.
    begun_by: Option<OpId>,
    /// `None`: the object does not exist.
    base: Option<Content>,
    versions: BTreeMap<usize, Vec<(OpId, Sector)>>,
}

#[derive(Debug, Clone)]
pub struct SimObject {
    /// Never empty; only the first is durable.
    lives: Vec<Life>,
    visible: Option<Content>,
}

impl SimObject {
    /// An object that does not exist, durably.
    pub fn absent() -> Self {
        Self { lives: vec![Life { begun_by: None, base: None, versions: BTreeMap::new() }], visible: None }
    }

    pub fn visible(&self) -> Option<&Content> {
        self.visible.as_ref()
    }

    /// Whether the object's existence, as readers see it, would survive a power cut.
    pub fn existence_is_durable(&self) -> bool {
        self.lives.len() == 1
    }

    /// Whether a power cut may leave nothing of the object: neither a life nor the absence of one.
    pub fn is_forgotten(&self) -> bool {
        self.visible.is_none() && self.existence_is_durable()
    }

    /// The operations that a power cut may undo.
    pub fn unsynced(&self) -> impl Iterator<Item = OpId> {
        let begun = self.lives.iter().filter_map(|life| life.begun_by);
        let written = self.lives.iter().flat_map(|life| life.versions.values().flatten().map(|(op, _)| *op));
        begun.chain(written)
    }

    pub fn has_unsynced(&self) -> bool {
        self.lives.len() > 1 || !self.lives[0].versions.is_empty()
    }

    /// How long the object is at least after a power cut, if its present life is durable.
    pub fn durable_len(&self) -> usize {
        self.lives[0].base.as_ref().map_or(0, Content::len)
    }

    /// Creation (`Some`), replacement (`Some`) or removal (`None`).
    pub fn begin_life(&mut self, op: OpId, base: Option<Content>) {
        self.visible.clone_from(&base);
        self.lives.push(Life { begun_by: Some(op), base, versions: BTreeMap::new() });
    }

    /// # Panics
    /// When the object does not exist.
    pub fn write_sector(&mut self, op: OpId, number: usize, sector: Sector) {
        let visible = self.visible.as_mut().expect("only an object that exists is written");
        visible.set_sector(number, &sector);
        let life = self.lives.last_mut().expect("there is always a life");
        life.versions.entry(number).or_default().push((op, sector));
    }

    /// Makes the covered operations' changes durable, and whatever they overwrote impossible.
    pub fn settle(&mut self, covered: impl Fn(OpId) -> bool) {
        let last_durable = self.lives.iter().rposition(|life| life.begun_by.is_none_or(&covered)).unwrap_or(0);
        self.lives.drain(..last_durable);
        self.lives[0].begun_by = None;
        for life in &mut self.lives {
            life.settle_versions(&covered);
        }
    }

    /// Every unsynced operation is kept or not as `keeps` says; what remains is durable.
    pub fn cut_power(&mut self, mut keeps: impl FnMut(OpId) -> bool) {
        let later_lives = self.lives.iter().skip(1).take_while(|life| life.begun_by.is_none_or(&mut keeps)).count();
        let life = self.lives.swap_remove(later_lives);
        let mut base = life.base;
        for (number, versions) in life.versions {
            let kept = versions.into_iter().rev().find(|(op, _)| keeps(*op));
            if let (Some(content), Some((_, sector))) = (base.as_mut(), kept) {
                content.set_sector(number, &sector);
            }
        }
        self.visible.clone_from(&base);
        self.lives = vec![Life { begun_by: None, base, versions: BTreeMap::new() }];
    }
}

impl Life {
    fn settle_versions(&mut self, covered: impl Fn(OpId) -> bool) {
        let Some(base) = self.base.as_mut() else { return };
        self.versions.retain(|number, versions| {
            if let Some(last) = versions.iter().rposition(|(op, _)| covered(*op)) {
                base.set_sector(*number, &versions[last].1);
                versions.drain(..=last);
            }
            !versions.is_empty()
        });
    }
}
