//! One volume: its pages and journals whole, and every object that they name there.

use crate::admin::job::Job;
use crate::admin::survey::look;
use crate::map::entry::{Entry, VolumeIds};
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::JournalId;
use crate::map::format::page::LEAF_SLOTS;
use crate::map::journal::{self, ReplayError};
use crate::map::tree::TreeError;
use crate::map::walk::{Met, Visited, Walk};
use crate::store::io::Io;
use crate::store::{ObjectName, StoreErrorKind};
use crate::units::{BlockIndex, Epoch, VolumeId};
use crate::volume::VolumeError;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Objects looked at at once.
const AT_ONCE: usize = 32;

/// What is wrong with the volume, each a sentence. Nothing when it is gone.
///
/// # Errors
/// When its header is damaged, or the store fails.
pub(super) async fn check_volume(
    io: &Io,
    id: VolumeId,
    visited: &mut Visited,
    job: &Job,
    objects: &mut u64,
) -> Result<BTreeSet<String>, VolumeError> {
    let first = check_once(io, id, visited, job, objects).await?;
    if first.is_empty() || job.is_cancelled() {
        return Ok(BTreeSet::new());
    }
    // Its holder may have moved on while it was looked at: what is said by the same page or record twice is so.
    let second = check_once(io, id, visited, job, &mut 0).await?;
    Ok(first.intersection(&second).cloned().collect())
}

async fn check_once(
    io: &Io,
    id: VolumeId,
    visited: &mut Visited,
    job: &Job,
    objects: &mut u64,
) -> Result<BTreeSet<String>, VolumeError> {
    let Some(seen) = look(io, id).await?.filter(|seen| !seen.is_removed()) else { return Ok(BTreeSet::new()) };
    let mut once = Once { io, header: &seen.header, job, objects, problems: BTreeSet::new() };
    let journaled = once.journals().await?;
    once.pages(&journaled, visited).await?;
    for (block, entry) in &journaled {
        once.entries(std::slice::from_ref(&(*block, entry.clone()))).await?;
    }
    Ok(once.problems)
}

/// The objects of an entry, and its problems that need no look at the store.
#[derive(Debug, Clone)]
struct Named {
    objects: Vec<(VolumeId, Epoch)>,
    problem: Option<String>,
}

struct Once<'a> {
    io: &'a Io,
    header: &'a Header,
    job: &'a Job,
    objects: &'a mut u64,
    problems: BTreeSet<String>,
}

impl Once<'_> {
    /// The last entry that the journals have of each block: of those, what the pages say does not count any more.
    async fn journals(&mut self) -> Result<BTreeMap<BlockIndex, Named>, VolumeError> {
        let mut journaled = BTreeMap::new();
        let header = self.header;
        if header.state != HeaderState::Live {
            return Ok(journaled);
        }
        for number in [header.current_journal, header.next_journal] {
            let (volume, generation) = (header.id, header.generation);
            let object = ObjectName::Journal { volume, generation, number };
            match journal::read(self.io, JournalId { volume, generation, number }).await {
                Ok(records) => {
                    for record in records.iter().filter(|record| record.through > header.change_through) {
                        let named = record.changes.iter();
                        journaled.extend(named.map(|(block, entry)| (*block, self.named(*block, &record.ids, entry))));
                    }
                }
                Err(ReplayError::Store(error)) if error.kind() != StoreErrorKind::NotFound => return Err(error.into()),
                Err(ReplayError::Store(_)) => drop(self.problems.insert(format!("{object} is missing"))),
                Err(damage @ ReplayError::Damaged { .. }) => drop(self.problems.insert(damage.to_string())),
            }
        }
        Ok(journaled)
    }

    async fn pages(
        &mut self,
        journaled: &BTreeMap<BlockIndex, Named>,
        visited: &mut Visited,
    ) -> Result<(), VolumeError> {
        let mut walk = Walk::new(self.io, visited, self.header.root);
        while let Some(met) = walk.next().await {
            if self.job.is_cancelled() {
                return Ok(());
            }
            match met {
                Met::Leaf { index, items } => {
                    let first = index * LEAF_SLOTS as u64;
                    let entries = items.items.iter().map(|(slot, entry)| (BlockIndex(first + u64::from(*slot)), entry));
                    let current = entries.filter(|(block, _)| !journaled.contains_key(block));
                    let named: Vec<_> =
                        current.map(|(block, entry)| (block, self.named(block, &items.ids, entry))).collect();
                    let known = self.problems.len();
                    self.entries(&named).await?;
                    // What was not looked at because of the journals, others who share the page must look at.
                    if self.problems.len() != known || named.len() != items.items.len() {
                        walk.is_bad();
                    }
                }
                Met::Bad { error: TreeError::Store(error), .. } if error.kind() != StoreErrorKind::NotFound => {
                    return Err(error.into());
                }
                Met::Bad { segment, error: TreeError::Store(_) } => {
                    self.problems.insert(format!("{segment}, in which pages of its map lie, is missing"));
                }
                Met::Bad { error: damage @ TreeError::Damaged { .. }, .. } => {
                    self.problems.insert(damage.to_string());
                }
            }
        }
        Ok(())
    }

    fn named(&self, block: BlockIndex, ids: &VolumeIds, entry: &Entry) -> Named {
        let objects = entry.objects().filter_map(|(volume, epoch)| Some((ids.get(volume)?, epoch)));
        let objects: Vec<_> = objects.collect();
        let unreserved =
            objects.iter().find(|(volume, epoch)| *volume == self.header.id && *epoch >= self.header.epoch_limit);
        let problem = match entry {
            Entry::Overlay(overlay)
                if overlay.granules().bytes() * u64::from(overlay.granules().count())
                    != self.header.object_size.bytes() =>
            {
                Some(format!("the granules of block {} do not make up an object", block.0))
            }
            // An open volume may have reserved more since.
            _ if self.header.state == HeaderState::Live => None,
            _ => unreserved
                .map(|(_, epoch)| format!("block {} names epoch {}, which was not reserved", block.0, epoch.0)),
        };
        Named { objects, problem }
    }

    async fn entries(&mut self, entries: &[(BlockIndex, Named)]) -> Result<(), VolumeError> {
        self.problems.extend(entries.iter().filter_map(|(_, named)| named.problem.clone()));
        let object = |block: BlockIndex| {
            move |(volume, epoch): &(VolumeId, Epoch)| ObjectName::Data { volume: *volume, epoch: *epoch, block }
        };
        let objects: Vec<_> =
            entries.iter().flat_map(|(block, named)| named.objects.iter().map(object(*block))).collect();
        for objects in objects.chunks(AT_ONCE) {
            if self.job.is_cancelled() {
                return Ok(());
            }
            let looks = objects.iter().map(|object| self.io.stat(object.clone()));
            for (object, size) in objects.iter().zip(join_all(looks).await) {
                match size {
                    Ok(size) if size > self.header.object_size.bytes() => {
                        self.problems.insert(format!("{object} is larger than an object"));
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == StoreErrorKind::NotFound => {
                        self.problems.insert(format!("{object} is missing"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            *self.objects += objects.len() as u64;
            self.job.reached(*self.objects);
        }
        Ok(())
    }
}
