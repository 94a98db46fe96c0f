//! Marking: what each volume names, as of one header.
//!
//! A header, its pages and its journals are read while others change them, so a page or journal may be gone before it is
//! read. Then a newer header names others: it is read again. The same header twice, with the same thing missing, is damage.

use super::runs::LiveNames;
use super::{CollectReport, Collection, Stop};
use crate::admin::remove::has_shared;
use crate::admin::survey::{Seen, ids, look};
use crate::map::entry::{Entry, VolumeIds};
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::JournalId;
use crate::map::format::page::LEAF_SLOTS;
use crate::map::journal::{self, ReplayError};
use crate::map::tree::TreeError;
use crate::map::walk::{Met, Visited, Walk};
use crate::store::{ObjectName, StoreErrorKind};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId};
use crate::volume::{VolumeError, VolumeErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// How often one volume's mark begins anew: each time its holder has published another header meanwhile, and most pages are
/// marked already.
const ATTEMPTS_MAX: usize = 1000;

/// How often the store is listed: each time somebody made a volume since the last listing.
const LISTINGS_MAX: usize = 1000;

/// What marking brings.
pub(super) struct Marked {
    /// Whose objects are swept, and what of them is kept without being named.
    pub(super) volumes: BTreeMap<VolumeId, Keep>,
    pub(super) live: LiveNames,
    pub(super) visited: Visited,
}

/// What of a volume's own things is kept although nothing marked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It was removed before the run began.
    Nothing,
    /// It was removed after the run began: the next one takes it.
    Everything,
    /// Objects that were not yet in the persisted map when the header was read, and whatever later headers name.
    Newer { epoch: Epoch, generation: Generation, current: u32, next: u32 },
}

impl Keep {
    fn of(header: &Header) -> Self {
        let (epoch, generation) = (header.epoch, header.generation);
        match header.state {
            HeaderState::Removed => Self::Everything,
            HeaderState::Live => {
                Self::Newer { epoch, generation, current: header.current_journal, next: header.next_journal }
            }
            // This generation is over, and the next one's names are all newer.
            HeaderState::Building | HeaderState::Closed | HeaderState::TakingOver { .. } => {
                Self::Newer { epoch, generation: generation.next(), current: 0, next: 0 }
            }
        }
    }

    pub(super) fn keeps_object(self, of: Epoch) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Newer { epoch, .. } => of >= epoch,
        }
    }

    /// Numbers are shared by segments and journals, and grow: a segment that no header can name yet has a higher one than
    /// the header's *next* journal.
    pub(super) fn keeps_segment(self, of: Generation, number: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Newer { generation, next, .. } => (of, number) >= (generation, next),
        }
    }

    pub(super) fn keeps_journal(self, of: Generation, number: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Newer { generation, current, next, .. } => {
                (of, number) >= (generation, next) || (of, number) == (generation, current)
            }
        }
    }

    /// Headers of removed volumes are another matter: see [`Collection::forget`].
    pub(super) fn keeps_header(self, of: Generation, truth: Generation) -> bool {
        matches!(self, Self::Nothing | Self::Everything) || of >= truth
    }
}

/// A volume's mark.
struct Mark {
    header: Header,
    /// It was in the making: it may have got a root since.
    unfinished: bool,
}

/// Why a volume's mark was not completed.
enum Unmarked {
    /// Something that its header names is gone, or damaged: so is the volume, if its header still names it.
    Missing(VolumeError),
    Stop(Stop),
}

impl<E: Into<Stop>> From<E> for Unmarked {
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}

struct Marker<'a> {
    collection: &'a Collection<'a>,
    live: LiveNames,
    visited: Visited,
}

impl Collection<'_> {
    /// Marks all volumes but the removed ones.
    pub(super) async fn mark(&self, removed: BTreeSet<VolumeId>) -> Result<Marked, Stop> {
        let memory = self.options.memory_bytes;
        let live = LiveNames::new(memory / 4 * 3, &self.options.spill_dir);
        let mut marker = Marker { collection: self, live, visited: Visited::new(memory / 4) };
        let mut marks: BTreeMap<VolumeId, Mark> = BTreeMap::new();
        for _ in 0..LISTINGS_MAX {
            let mut news = false;
            for id in ids(self.io).await?.into_iter().filter(|id| !removed.contains(id)) {
                news |= marker.mark_again(id, &mut marks).await?;
            }
            if !news {
                let kept = marks.into_iter().map(|(id, mark)| (id, Keep::of(&mark.header)));
                let volumes = removed.into_iter().map(|id| (id, Keep::Nothing)).chain(kept).collect();
                return Ok(Marked { volumes, live: marker.live, visited: marker.visited });
            }
        }
        let text = "volumes are made faster than a collection can look at them: try again";
        Err(VolumeError::new(VolumeErrorKind::Busy, text).into())
    }
}

impl Marker<'_> {
    /// Marks the volume if it was not, or if it was in the making and is not what it was. Returns whether that is so.
    async fn mark_again(&mut self, id: VolumeId, marks: &mut BTreeMap<VolumeId, Mark>) -> Result<bool, Stop> {
        let known = marks.get(&id);
        if known.is_some_and(|mark| !mark.unfinished) {
            return Ok(false);
        }
        let mut last: Option<Seen> = None;
        for _ in 0..ATTEMPTS_MAX {
            let Some(seen) = look(self.collection.io, id).await? else { return Ok(false) };
            if known.is_some_and(|mark| mark.header == seen.header) {
                return Ok(false);
            }
            match self.mark(&seen).await {
                Ok(()) => {
                    let unfinished = seen.header.unfinished.is_some() || seen.header.state == HeaderState::Building;
                    marks.insert(id, Mark { header: seen.header, unfinished });
                    return Ok(true);
                }
                Err(Unmarked::Stop(stop)) => return Err(stop),
                // Somebody removes it at this moment, and nobody else names anything of it.
                Err(Unmarked::Missing(_)) if seen.is_removed() && !has_shared(&seen.header) => {
                    marks.insert(id, Mark { header: seen.header, unfinished: false });
                    return Ok(true);
                }
                Err(Unmarked::Missing(error)) if last.as_ref() == Some(&seen) => return Err(error.into()),
                Err(Unmarked::Missing(_)) => last = Some(seen),
            }
        }
        let text = format!("the map of volume {id} changes faster than it can be read: try again");
        Err(VolumeError::new(VolumeErrorKind::Busy, text).into())
    }

    async fn mark(&mut self, seen: &Seen) -> Result<(), Unmarked> {
        let header = &seen.header;
        let io = self.collection.io;
        let mut walk = Walk::new(io, &mut self.visited, header.root);
        while let Some(met) = walk.next().await {
            match met {
                Met::Leaf { index, items } => {
                    let first = index * LEAF_SLOTS as u64;
                    for (slot, entry) in &items.items {
                        mark_entry(&mut self.live, &items.ids, entry, BlockIndex(first + u64::from(*slot)))?;
                    }
                    self.collection.stop_if_cancelled(CollectReport::default())?;
                }
                Met::Bad { segment, error } => return Err(unreadable(header, &segment, error)),
            }
        }
        // The journals of a removed volume say nothing that anybody else could name.
        if header.state != HeaderState::Live {
            return Ok(());
        }
        for number in [header.current_journal, header.next_journal] {
            let id = JournalId { volume: header.id, generation: header.generation, number };
            let records = journal::read(io, id).await.map_err(|error| unreadable_journal(header, id, error))?;
            for record in &records {
                for (block, entry) in &record.changes {
                    mark_entry(&mut self.live, &record.ids, entry, *block)?;
                }
            }
        }
        Ok(())
    }
}

fn mark_entry(live: &mut LiveNames, ids: &VolumeIds, entry: &Entry, block: BlockIndex) -> Result<(), Stop> {
    for (volume, epoch) in entry.objects() {
        let volume = ids.get(volume).expect("pages and records were checked when they were decoded");
        live.insert(volume, epoch, block).map_err(|error| spill_failed(&error))?;
    }
    Ok(())
}

pub(super) fn spill_failed(error: &std::io::Error) -> Stop {
    let text = format!("cannot keep the names of live objects in a file: {error}");
    VolumeError::new(VolumeErrorKind::Store, text).into()
}

/// Nothing may be swept while a map cannot be read. What was not found may have been replaced, and what was damaged may have
/// been read while it went away; the next look tells.
fn unreadable(header: &Header, segment: &ObjectName, error: TreeError) -> Unmarked {
    let name = &header.name;
    match error {
        TreeError::Store(error) if error.kind() != StoreErrorKind::NotFound => {
            let text = format!("nothing was removed: the map of volume {name} cannot be read");
            Unmarked::Stop(VolumeError::from_store(error, text).into())
        }
        TreeError::Store(_) => Unmarked::Missing(damaged(header, &format!("{segment} is missing"))),
        damage @ TreeError::Damaged { .. } => Unmarked::Missing(damaged(header, &damage)),
    }
}

fn unreadable_journal(header: &Header, id: JournalId, error: ReplayError) -> Unmarked {
    let JournalId { volume, generation, number } = id;
    let object = ObjectName::Journal { volume, generation, number };
    match error {
        ReplayError::Store(error) if error.kind() != StoreErrorKind::NotFound => {
            let text = format!("nothing was removed: {object} of volume {} cannot be read", header.name);
            Unmarked::Stop(VolumeError::from_store(error, text).into())
        }
        ReplayError::Store(_) => Unmarked::Missing(damaged(header, &format!("{object} is missing"))),
        damage @ ReplayError::Damaged { .. } => Unmarked::Missing(damaged(header, &damage)),
    }
}

fn damaged(header: &Header, what: &dyn std::fmt::Display) -> VolumeError {
    let text = format!("nothing was removed: volume {} ({}) is damaged: {what}", header.name, header.id);
    VolumeError::new(VolumeErrorKind::Damaged, text)
}
