//! Invariant 2, as the store can see it: what a snapshot's or clone's header names when it first has a root is never written in
//! place again, by nobody, in no life. The world reads such headers and the pages behind them as they are published.

use super::State;
use super::object::SimObject;
use archvhost::map::entry::Entry;
use archvhost::map::format::header::{Header, VolumeKind};
use archvhost::map::format::page::{INNER_SLOTS, PageAddress, PageIndex, decode_inner, decode_leaf};
use archvhost::map::tree::ROOT_LEVEL;
use archvhost::store::ObjectName;
use archvhost::units::{BlockIndex, VolumeId};
use std::collections::BTreeSet;

/// Entries of a leaf.
const LEAF_SLOTS: u64 = archvhost::map::format::page::LEAF_SLOTS as u64;

/// What is shared.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Branches whose first root was looked at.
    seen: BTreeSet<VolumeId>,
    objects: BTreeSet<ObjectName>,
}

impl State {
    /// A header is visible now.
    pub(super) fn look_at_header(&mut self, object: &ObjectName) {
        let Some(content) = self.objects.get(object).and_then(SimObject::visible) else { return };
        let mut bytes = vec![0; content.len()];
        content.read(0, &mut bytes);
        let Ok(header) = Header::decode(&bytes) else { return };
        let is_branch = header.kind == VolumeKind::Snapshot || header.parent.is_some();
        if let (true, Some(root)) = (is_branch, header.root)
            && self.shared.seen.insert(header.id)
        {
            let mut found = BTreeSet::new();
            match self.walk(root, PageIndex { level: ROOT_LEVEL, index: 0 }, &mut found) {
                // A clone of something empty has its first root with objects of its own.
                Ok(()) => self.shared.objects.extend(found.into_iter().filter(|name| name.volume() != Some(header.id))),
                Err(text) => self.rules.violate(format!("invariant 1: {object} names what is not there: {text}")),
            }
        }
    }

    /// A data object changes in place.
    pub(super) fn refuse_if_shared(&mut self, object: &ObjectName) {
        if self.shared.objects.contains(object) {
            self.rules.violate(format!("invariant 2: {object} is shared, and is written in place"));
        }
    }

    fn walk(&self, at: PageAddress, page: PageIndex, found: &mut BTreeSet<ObjectName>) -> Result<(), String> {
        let segment = ObjectName::Segment { volume: at.volume, generation: at.generation, number: at.number };
        let content = self.objects.get(&segment).and_then(SimObject::visible).ok_or_else(|| segment.to_string())?;
        let mut bytes = vec![0; usize::try_from(at.len).expect("a small page")];
        content.read(usize::try_from(at.offset).expect("a small segment"), &mut bytes);
        if page.level > 0 {
            let children = decode_inner(&bytes, page, at.checksum).map_err(|error| error.to_string())?;
            for (slot, child) in children {
                let width = u64::try_from(INNER_SLOTS).expect("a small number");
                let index = PageIndex { level: page.level - 1, index: page.index * width + u64::from(slot) };
                self.walk(child, index, found)?;
            }
            return Ok(());
        }
        let leaf = decode_leaf(&bytes, page.index, at.checksum).map_err(|error| error.to_string())?;
        for (slot, entry) in &leaf.items {
            let block = BlockIndex(page.index * LEAF_SLOTS + u64::from(*slot));
            found.extend(
                named(entry).into_iter().filter_map(|(volume, epoch)| {
                    Some(ObjectName::Data { volume: leaf.ids.get(volume)?, epoch, block })
                }),
            );
        }
        Ok(())
    }
}

fn named(entry: &Entry) -> Vec<(archvhost::map::entry::VolumeIndex, archvhost::units::Epoch)> {
    entry.objects().collect()
}
