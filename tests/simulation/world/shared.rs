//! Invariant 2, as the store can see it: the bytes that a snapshot's or clone's header names when it first has a root are never
//! written in place again, by nobody, in no life. Granules that a layer does not hold may be: nothing reads them there. The world reads such headers and the pages behind them as they are published.

use super::State;
use super::object::SimObject;
use archvhost::map::entry::{Entry, VolumeIndex};
use archvhost::map::format::header::{Header, VolumeKind};
use archvhost::map::format::page::{INNER_SLOTS, PageAddress, PageIndex, decode_inner, decode_leaf};
use archvhost::map::overlay::GranuleRange;
use archvhost::map::tree::ROOT_LEVEL;
use archvhost::store::ObjectName;
use archvhost::units::{BlockIndex, Epoch, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Entries of a leaf.
const LEAF_SLOTS: u64 = archvhost::map::format::page::LEAF_SLOTS as u64;

/// What is shared.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Branches whose first root was looked at.
    seen: BTreeSet<VolumeId>,
    objects: Named,
}

/// Objects, and in which bytes somebody reads them.
type Named = BTreeMap<ObjectName, Vec<Range<u64>>>;

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
            let mut found = Named::new();
            match self.walk(root, PageIndex { level: ROOT_LEVEL, index: 0 }, &mut found) {
                // A clone of something empty has its first root with objects of its own.
                Ok(()) => {
                    for (name, bytes) in found.into_iter().filter(|(name, _)| name.volume() != Some(header.id)) {
                        self.shared.objects.entry(name).or_default().extend(bytes);
                    }
                }
                Err(text) => self.rules.violate(format!("invariant 1: {object} names what is not there: {text}")),
            }
        }
    }

    /// These bytes of a data object change in place.
    pub(super) fn refuse_if_shared(&mut self, object: &ObjectName, bytes: &Range<u64>) {
        let shared = self.shared.objects.get(object).into_iter().flatten();
        let hit = shared.clone().find(|shared| shared.start < bytes.end && bytes.start < shared.end).cloned();
        if let Some(shared) = hit {
            let text = format!("invariant 2: {object} is shared in {shared:?}, and is written in place in {bytes:?}");
            self.rules.violate(text);
        }
    }

    fn walk(&self, at: PageAddress, page: PageIndex, found: &mut Named) -> Result<(), String> {
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
            for (volume, epoch, bytes) in named(entry) {
                let Some(volume) = leaf.ids.get(volume) else { continue };
                found.entry(ObjectName::Data { volume, epoch, block }).or_default().extend(bytes);
            }
        }
        Ok(())
    }
}

fn named(entry: &Entry) -> Vec<(VolumeIndex, Epoch, Vec<Range<u64>>)> {
    let Entry::Overlay(overlay) = entry else {
        return entry
            .objects()
            .map(|(volume, epoch)| (volume, epoch, std::iter::once(0..u64::MAX).collect()))
            .collect();
    };
    let granule = overlay.granules().bytes();
    let bytes = |run: GranuleRange| u64::from(run.first) * granule..u64::from(run.end()) * granule;
    overlay.layers().iter().map(|layer| (layer.volume, layer.epoch, layer.mask.runs().map(bytes).collect())).collect()
}
