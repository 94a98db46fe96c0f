//! `check`: whether everything that volumes name is there and whole, and what nobody names.
//!
//! Works beside guests that write: a volume that is open here is looked at as its header and journals say after a checkpoint. What seems wrong is looked at again, and only what is wrong twice is told: meanwhile a
//! guest may have discarded a block, or a checkpoint replaced a page. What another process holds is not looked at: only its
//! holder knows its map. It is named, and the others are checked.
//!
//! Repair touches names and headers only, under the lock of the volume that they belong to, and never what somebody holds: see
//! [`leftovers`]. What nobody names is removed by `gc`.

mod leftovers;
mod volume;

use super::branch::Opened;
use super::collect::{CollectOptions, collect_with, settle_leftovers};
use super::job::Job;
use super::survey::{Names, Seen, ids, look, names};
use crate::map::walk::Visited;
use crate::store::Store;
use crate::store::io::{self, Io};
use crate::units::{ByteSize, VolumeId, VolumeName};
use crate::volume::capture::Amendment;
use crate::volume::lease::{Holder, holder, try_lock_shared};
use crate::volume::{VolumeError, VolumeErrorKind};
use leftovers::Leftover;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use volume::check_volume;

/// Memory for the pages that several volumes share, so that each is looked at once, and for the search for leaks.
const MEMORY_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// All volumes when empty.
    pub volumes: Vec<VolumeName>,
    pub repair: Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    Nothing,
    /// What can be mended without guessing at data.
    Safe,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub volume: Option<VolumeName>,
    /// What is wrong, and with which object.
    pub text: String,
    pub severity: Severity,
    /// What was done about it.
    pub repaired: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Costs space only.
    Leak,
    /// Data is missing or cannot be reached.
    Damage,
}

/// A volume that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchecked {
    pub volume: VolumeName,
    /// Who has it.
    pub text: String,
}

#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    pub volumes: u64,
    pub objects: u64,
    pub findings: Vec<Finding>,
    pub unchecked: Vec<Unchecked>,
    pub cancelled: bool,
}

/// The job counts objects.
///
/// # Errors
/// When the store cannot be listed, or there is no volume of a name that was given; what is found wrong is no error.
pub fn check(
    store: &Arc<dyn Store>,
    request: &CheckRequest,
    opened: &dyn Opened,
    job: &Job,
) -> Result<CheckReport, VolumeError> {
    io::block_on(store, None, |io| async move { Check { store, io: &io, request, opened, job }.run().await })
}

struct Check<'a> {
    store: &'a Arc<dyn Store>,
    io: &'a Io,
    request: &'a CheckRequest,
    opened: &'a dyn Opened,
    job: &'a Job,
}

/// What is in the store, as of one look.
struct Survey {
    names: Names,
    volumes: BTreeMap<VolumeId, Result<Seen, VolumeError>>,
}

impl Survey {
    async fn make(io: &Io) -> Result<Self, VolumeError> {
        let mut volumes = BTreeMap::new();
        for id in ids(io).await? {
            match look(io, id).await {
                Ok(Some(seen)) => drop(volumes.insert(id, Ok(seen))),
                Ok(None) => {}
                Err(error) => drop(volumes.insert(id, Err(error))),
            }
        }
        // Last: a volume that was made meanwhile has no header here, and is not missed.
        Ok(Self { names: names(io).await?, volumes })
    }

    /// What people call the volume, if anything.
    fn name_of(&self, id: VolumeId) -> Option<VolumeName> {
        let names = self.names.of.get(&id)?;
        let in_header = self.volumes.get(&id).and_then(|seen| seen.as_ref().ok()).map(|seen| &seen.header.name);
        names.iter().find(|name| Some(*name) == in_header).or(names.first()).cloned()
    }
}

impl Check<'_> {
    async fn run(&self) -> Result<CheckReport, VolumeError> {
        let mut report = CheckReport::default();
        let everything = self.request.volumes.is_empty();
        let survey = if everything { self.leftovers(&mut report).await? } else { Survey::make(self.io).await? };
        let mut visited = Visited::new(MEMORY_BYTES);
        for id in self.wanted(&survey)? {
            if self.job.is_cancelled() {
                break;
            }
            self.volume(id, &survey, &mut visited, &mut report).await?;
        }
        if everything && !self.job.is_cancelled() {
            self.leaks(&mut report).await;
        }
        report.cancelled = self.job.is_cancelled();
        Ok(report)
    }

    fn wanted(&self, survey: &Survey) -> Result<Vec<VolumeId>, VolumeError> {
        if self.request.volumes.is_empty() {
            let there = |(id, seen): (&VolumeId, &Result<Seen, _>)| match seen {
                Ok(seen) if seen.is_removed() => None,
                Ok(_) | Err(_) => Some(*id),
            };
            return Ok(survey.volumes.iter().filter_map(there).collect());
        }
        let id = |name: &VolumeName| {
            let mut named = survey.names.of.iter().filter(|(_, names)| names.contains(name)).map(|(id, _)| *id);
            let missing =
                || VolumeError::new(VolumeErrorKind::NotFound, format!("there is no volume {name} in this store"));
            named.next().ok_or_else(missing)
        };
        self.request.volumes.iter().map(id).collect()
    }

    async fn volume(
        &self,
        id: VolumeId,
        survey: &Survey,
        visited: &mut Visited,
        report: &mut CheckReport,
    ) -> Result<(), VolumeError> {
        let name = survey.name_of(id);
        let damage = |text| Finding { volume: name.clone(), text, severity: Severity::Damage, repaired: None };
        if let Some(unchecked) = self.held_elsewhere(id, name.as_ref()) {
            report.unchecked.push(unchecked);
            return Ok(());
        }
        if let Some(volume) = name.as_ref().and_then(|name| self.opened.open_volume(name))
            && let Err(error) = volume.amend(Amendment::Checkpoint).await
        {
            tracing::warn!(volume = %id, %error, "no checkpoint before the check");
        }
        let result = check_volume(self.io, id, visited, self.job, &mut report.objects).await;
        // What seems wrong with a volume that somebody has opened meanwhile need not be.
        let is_well = result.as_ref().is_ok_and(BTreeSet::is_empty);
        if !is_well && let Some(unchecked) = self.held_elsewhere(id, name.as_ref()) {
            report.unchecked.push(unchecked);
            return Ok(());
        }
        report.volumes += 1;
        match result {
            Ok(problems) => report.findings.extend(problems.into_iter().map(damage)),
            Err(error) if error.kind() == VolumeErrorKind::Damaged => report.findings.push(damage(error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether another process has the volume for itself. One sees that by sharing its lock for a moment. Who may be gone is left to those
    /// who want the volume: a check cuts nobody off.
    fn held_elsewhere(&self, id: VolumeId, name: Option<&VolumeName>) -> Option<Unchecked> {
        let name = name?;
        let held = try_lock_shared(self.store, id, name).is_err_and(|error| error.kind() == VolumeErrorKind::Held);
        let holder = holder(self.store, id);
        if !held || holder.as_ref().is_some_and(Holder::is_this_process) {
            return None;
        }
        let by = holder
            .map_or("another process".to_owned(), |holder| format!("process {} on host {}", holder.pid, holder.host));
        Some(Unchecked { volume: name.clone(), text: format!("in use by {by}, not checked") })
    }

    /// What dead processes left, mended if that is wanted; and the store as it is then.
    async fn leftovers(&self, report: &mut CheckReport) -> Result<Survey, VolumeError> {
        let before = Survey::make(self.io).await?;
        let found = leftovers::find(self.store, self.io, &before).await?;
        let (after, left) = match self.request.repair {
            Repair::Safe if !found.is_empty() => {
                // Another process's collection settles the same.
                if let Err(error) = settle_leftovers(self.io, self.store, self.opened, self.job).await {
                    tracing::warn!(%error, "not everything could be mended");
                }
                leftovers::repair(self.store, self.io, &found).await;
                let after = Survey::make(self.io).await?;
                let left = leftovers::find(self.store, self.io, &after).await?;
                (after, left)
            }
            Repair::Nothing | Repair::Safe => (before, found.clone()),
        };
        report.findings.extend(found.iter().map(|leftover| finding(leftover, !left.contains(leftover))));
        Ok(after)
    }

    /// Asks a collection what it would remove.
    async fn leaks(&self, report: &mut CheckReport) {
        let options = CollectOptions { dry_run: true, memory_bytes: MEMORY_BYTES, spill_dir: std::env::temp_dir() };
        // Progress of its own: this counts other things.
        match collect_with(self.io, self.store, self.opened, &options, &Job::default()).await {
            Ok(collected) if collected.objects_removed != 0 => {
                let (objects, bytes) = (collected.objects_removed, ByteSize(collected.bytes_removed));
                let text =
                    format!("no volume names {objects} objects of {bytes}: the next `archvhost gc` removes them");
                report.findings.push(Finding { volume: None, text, severity: Severity::Leak, repaired: None });
            }
            Ok(_) => {}
            // The damage that hinders it has been told.
            Err(error) => tracing::info!(%error, "no search for what no volume names"),
        }
    }
}

fn finding(leftover: &Leftover, gone: bool) -> Finding {
    Finding {
        volume: leftover.name().cloned(),
        text: leftover.to_string(),
        severity: leftover.severity(),
        repaired: gone.then(|| leftover.repaired().to_owned()),
    }
}
