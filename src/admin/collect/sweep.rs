//! Sweeping: each volume's objects in order, beside the sorted names of those that are live.

use super::mark::{Keep, spill_failed};
use super::runs::{LiveNames, SortedNames};
use super::{CollectReport, Collection, Stop, failed};
use crate::admin::survey::look;
use crate::map::walk::Visited;
use crate::store::{ListScope, ObjectName, StoreErrorKind};
use crate::units::{Generation, VolumeId};
use crate::volume::open::{header_generations, list_all};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Names asked of the store at a time.
const PAGE: usize = 4096;

/// Objects removed at once. Removing is work for the store that its guests wait for, so no more than keeps it busy.
const AT_ONCE: usize = 16;

impl Collection<'_> {
    /// Removes from these volumes what was not marked, and counts it.
    pub(super) async fn sweep(
        &self,
        volumes: &BTreeMap<VolumeId, Keep>,
        live: LiveNames,
        visited: &Visited,
    ) -> Result<CollectReport, Stop> {
        let mut live = live.finish().map_err(|error| spill_failed(&error))?;
        let mut sweep = Sweep { collection: self, looked_at: 0, report: CollectReport::default() };
        for id in in_order_of_names(volumes, &live) {
            let keep = volumes[&id];
            sweep.objects(id, keep, &mut live).await?;
            sweep.metadata(id, keep, visited).await?;
            sweep.report.volumes += u64::from(keep != Keep::Nothing);
        }
        Ok(sweep.report)
    }

    /// Removes the headers of volumes that were removed before this run and of which nothing is left.
    pub(super) async fn forget(
        &self,
        volumes: &BTreeMap<VolumeId, Keep>,
        keep_headers: &BTreeSet<VolumeId>,
        mut report: CollectReport,
    ) -> Result<CollectReport, Stop> {
        let mut empty = Vec::new();
        for (id, _) in volumes.iter().filter(|(id, keep)| **keep == Keep::Nothing && !keep_headers.contains(id)) {
            if self.is_empty(*id).await? {
                empty.push(*id);
            }
        }
        if empty.is_empty() {
            return Ok(report);
        }
        // No power cut may bring back an object of a volume that has no header any more.
        self.io.sync_all().await.map_err(|error| failed(error, "cannot make the removals durable"))?;
        for id in empty {
            self.stop_if_cancelled(report)?;
            self.confirm()?;
            self.remove_headers(id).await?;
            report.volumes_forgotten += 1;
        }
        Ok(report)
    }

    async fn is_empty(&self, id: VolumeId) -> Result<bool, Stop> {
        let objects = self.io.list(ListScope::Data(id), None, 1).await?;
        let metadata = list_all(self.io, ListScope::Metadata(id)).await?;
        Ok(objects.is_empty() && metadata.iter().all(|name| matches!(name, ObjectName::Header { .. })))
    }

    /// The highest header, which says *removed*, goes when the others are gone for good.
    async fn remove_headers(&self, id: VolumeId) -> Result<(), Stop> {
        let header = |generation| ObjectName::Header { volume: id, generation };
        let mut generations = header_generations(self.io, id).await?;
        let Some(last) = generations.pop() else { return Ok(()) };
        let others: Vec<_> = generations.into_iter().map(header).collect();
        for other in &others {
            self.io.remove(other.clone()).await?;
        }
        if !others.is_empty() {
            self.io.sync(others).await?;
        }
        Ok(self.io.remove(header(last)).await?)
    }
}

/// The volumes of which there are live names first, in the order in which the names can be asked for.
fn in_order_of_names(volumes: &BTreeMap<VolumeId, Keep>, live: &SortedNames) -> Vec<VolumeId> {
    let named: Vec<VolumeId> = live.volumes().iter().copied().filter(|id| volumes.contains_key(id)).collect();
    let known: BTreeSet<VolumeId> = named.iter().copied().collect();
    named.into_iter().chain(volumes.keys().copied().filter(|id| !known.contains(id))).collect()
}

struct Sweep<'a> {
    collection: &'a Collection<'a>,
    looked_at: u64,
    report: CollectReport,
}

impl Sweep<'_> {
    async fn objects(&mut self, id: VolumeId, keep: Keep, live: &mut SortedNames) -> Result<(), Stop> {
        let mut after = None;
        loop {
            let names = self.collection.io.list(ListScope::Data(id), after, PAGE).await?;
            let (last, count) = (names.last().cloned(), names.len());
            let mut dead = Vec::new();
            for name in names {
                let ObjectName::Data { volume, epoch, block } = name else { continue };
                let kept = keep.keeps_object(epoch)
                    || live.contains(volume, epoch, block).map_err(|error| spill_failed(&error))?;
                if kept { self.report.objects_kept += 1 } else { dead.push(name) }
            }
            self.remove(dead).await?;
            self.looked_at += count as u64;
            self.collection.job.reached(self.looked_at);
            if count < PAGE {
                return Ok(());
            }
            after = last;
        }
    }

    async fn metadata(&mut self, id: VolumeId, keep: Keep, visited: &Visited) -> Result<(), Stop> {
        let io = self.collection.io;
        let names = list_all(io, ListScope::Metadata(id)).await?;
        let truth = self.truth(id, &names).await?;
        let dead = names.into_iter().filter(|name| match name {
            ObjectName::Segment { volume, generation, number } => {
                !keep.keeps_segment(*generation, *number) && !visited.names_segment(*volume, *generation, *number)
            }
            ObjectName::Journal { generation, number, .. } => !keep.keeps_journal(*generation, *number),
            ObjectName::Header { generation, .. } => !keep.keeps_header(*generation, truth),
            ObjectName::Name(_) | ObjectName::Data { .. } => false,
        });
        let dead = dead.collect();
        self.remove(dead).await
    }

    /// Headers below this generation say nothing that counts.
    async fn truth(&self, id: VolumeId, names: &[ObjectName]) -> Result<Generation, Stop> {
        let headers = names.iter().filter(|name| matches!(name, ObjectName::Header { .. })).count();
        if headers < 2 {
            return Ok(Generation(0));
        }
        Ok(look(self.collection.io, id).await?.map_or(Generation(0), |seen| seen.header.generation))
    }

    async fn remove(&mut self, names: Vec<ObjectName>) -> Result<(), Stop> {
        let Collection { io, options, .. } = self.collection;
        for names in names.chunks(AT_ONCE) {
            self.collection.stop_if_cancelled(self.report)?;
            self.collection.confirm()?;
            let removals = names.iter().map(|name| async move {
                let bytes = match io.stat(name.clone()).await {
                    // Its volume removed it just now; or a process died between listing it and making it, and removing ends that.
                    Err(error) if error.kind() == StoreErrorKind::NotFound => None,
                    bytes => Some(bytes?),
                };
                if !options.dry_run {
                    io.remove(name.clone()).await?;
                }
                Ok(bytes)
            });
            for bytes in join_all(removals).await {
                let bytes = bytes.map_err(|error| failed(error, "cannot remove what no volume names"))?;
                self.report.objects_removed += u64::from(bytes.is_some());
                self.report.bytes_removed += bytes.unwrap_or(0);
            }
        }
        Ok(())
    }
}
