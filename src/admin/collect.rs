//! `gc`: removes what no volume names (design §10, rule C10), beside guests that write, volumes that are made, and other
//! processes of the same store.
//!
//! ```text
//!   lock ─► settle ─► checkpoint what is open here ─► mark, listing again until nothing is new ─► sync the store ─► sweep ─► forget
//! ```
//! * *Settle* ends what a dead process began: volumes in the making whose maker is gone are finished or given up, names
//!   that lead to removed volumes go ([`settle`]). It also finds out which volumes are removed: only those that were so before
//!   the first listing of the marking do not mark.
//! * *Mark* goes through each volume's pages and journals, as one header named them ([`mark`]). A map that cannot be read ends the
//!   run: nothing is swept.
//! * *Sync*: what was marked by is durable from then on, and no power cut brings an older header back.
//! * *Sweep* lists each volume that was marked or removed, and removes what is neither marked nor newer than the mark ([`sweep`]).
//! * *Forget* removes the headers of removed volumes of which nothing is left, the one that says *removed* last.
//!
//! # Why nothing live is swept
//! Let V be marked at time t, with the header that was true then. Of V's own objects, those of the header's epoch and above
//! are kept, and so are segments behind those that the header can name: whatever V names at any later time is marked by
//! its header of t, or is newer than that, or came from another volume X by a rollback. Epochs and numbers never go back.
//! * *Snapshot or clone of an open V.* Its root is V's root at some moment, and named by V's header until its own header names it
//!   (rule C8). Captured before t: its header was there before, *unfinished*, so a later listing finds it, and it is
//!   looked at again until it has its root or is gone. Captured after t: V's mark covers it, as above.
//! * *Clone of a snapshot S, rollback to S.* Both hold S's lock, shared, so that S is not removed meanwhile. So S was not removed
//!   before the first listing: S is marked, or the clone itself was in that listing.
//! * *Removed while this runs.* A volume that was not removed before the first listing marks as if it were not removed at all.
//! * *A volume that appears after the last listing* descends from marked ones only, and nothing that bears its own id is
//!   swept: only ids that were listed are.
//!
//! Objects whose id has no header are never swept: whoever writes before there is a header is nobody we know. A lock without a header is
//! the store's business ([`Store::tidy`]).

mod mark;
mod runs;
mod settle;
mod sweep;

use super::branch::Opened;
use super::job::Job;
use super::survey::{Names, names};
use crate::store::io::{self, Io};
use crate::store::{Lease, Store, WHOLE_STORE};
use crate::units::{VolumeId, VolumeName};
use crate::volume::capture::Amendment;
use crate::volume::lease::{Holder, lock_to_free};
use crate::volume::{VolumeError, VolumeErrorKind};
use mark::Marked;
use settle::Settled;
use std::path::PathBuf;
use std::sync::Arc;

/// Whose lock a collection takes, so that there is one at a time in a store.
pub const COLLECTION: VolumeId = WHOLE_STORE;

#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Only says what would be removed. Nothing is settled and nobody asked for a checkpoint, so it may be less than what a
    /// run removes.
    pub dry_run: bool,
    /// Memory for the marks, in bytes; what does not fit goes to `spill_dir`.
    pub memory_bytes: u64,
    pub spill_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectReport {
    pub volumes: u64,
    pub objects_kept: u64,
    /// Objects, segments and leftover journals and headers removed, or to be removed, and their bytes.
    pub objects_removed: u64,
    pub bytes_removed: u64,
    /// Removed volumes of which nothing is left now.
    pub volumes_forgotten: u64,
    pub cancelled: bool,
}

/// The job counts objects looked at.
///
/// # Errors
/// When another collection runs, something cannot be read (then nothing was removed), or not be removed.
pub fn collect(
    store: &Arc<dyn Store>,
    opened: &dyn Opened,
    options: &CollectOptions,
    job: &Job,
) -> Result<CollectReport, VolumeError> {
    io::block_on(store, None, |io| async move { collect_with(&io, store, opened, options, job).await })
}

/// As [`collect`], over a channel that the caller has.
///
/// # Errors
/// As [`collect`].
pub async fn collect_with(
    io: &Io,
    store: &Arc<dyn Store>,
    opened: &dyn Opened,
    options: &CollectOptions,
    job: &Job,
) -> Result<CollectReport, VolumeError> {
    let lease = &lock_collection(store)?;
    match (Collection { store, lease, io, opened, options, job }).run().await {
        Err(Stop::Cancelled(report)) => Ok(CollectReport { cancelled: true, ..report }),
        Err(Stop::Failed(error)) => Err(error),
        Ok(report) => Ok(report),
    }
}

/// Only ends what dead processes began: what `check --repair` wants of a collection.
///
/// # Errors
/// As [`collect`].
pub(super) async fn settle_leftovers(
    io: &Io,
    store: &Arc<dyn Store>,
    opened: &dyn Opened,
    job: &Job,
) -> Result<(), VolumeError> {
    let lease = &lock_collection(store)?;
    let options = CollectOptions { dry_run: false, memory_bytes: 0, spill_dir: PathBuf::new() };
    let names = names(io).await?;
    match (Collection { store, lease, io, opened, options: &options, job }).settle(&names).await {
        Ok(_) | Err(Stop::Cancelled(_)) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn lock_collection(store: &Arc<dyn Store>) -> Result<Lease, VolumeError> {
    let name = VolumeName::new("collection").expect("a legal name");
    lock_to_free(store, COLLECTION, &name, &Holder::successor(None, None)).map_err(|error| match error.kind() {
        VolumeErrorKind::Held => {
            let holder = store.holder(COLLECTION).ok().flatten().and_then(|record| Holder::decode(&record));
            let by = holder.map(|holder| format!(", in process {} on host {}", holder.pid, holder.host));
            let text = format!("a collection of this store runs already{}", by.unwrap_or_default());
            VolumeError::new(VolumeErrorKind::Held, text)
        }
        _ => error,
    })
}

/// Why a run ends early.
enum Stop {
    Cancelled(CollectReport),
    Failed(VolumeError),
}

impl From<VolumeError> for Stop {
    fn from(error: VolumeError) -> Self {
        Self::Failed(error)
    }
}

impl From<crate::store::StoreError> for Stop {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(VolumeError::from_store(error, "cannot collect"))
    }
}

struct Collection<'a> {
    store: &'a Arc<dyn Store>,
    /// Of the collection itself, so that there is one at a time.
    lease: &'a Lease,
    io: &'a Io,
    opened: &'a dyn Opened,
    options: &'a CollectOptions,
    job: &'a Job,
}

impl Collection<'_> {
    async fn run(&self) -> Result<CollectReport, Stop> {
        let names = names(self.io).await?;
        let Settled { removed, keep_headers } = self.settle(&names).await?;
        if !self.options.dry_run {
            self.checkpoint(&names).await;
        }
        let Marked { volumes, live, visited } = self.mark(removed).await?;
        self.stop_if_cancelled(CollectReport::default())?;
        if !self.options.dry_run {
            self.io.sync_all().await.map_err(|error| failed(error, "cannot make the store durable"))?;
        }
        let report = self.sweep(&volumes, live, &visited).await?;
        if self.options.dry_run {
            return Ok(report);
        }
        self.store.tidy()?;
        self.forget(&volumes, &keep_headers, report).await
    }

    /// Volumes that are open here write their maps down first: otherwise one that stays open for a year would keep every object
    /// of that year.
    async fn checkpoint(&self, names: &Names) {
        for name in names.of.values().flatten() {
            let Some(volume) = self.opened.open_volume(name) else { continue };
            if let Err(error) = volume.amend(Amendment::Checkpoint).await {
                // Less is found to be removed then. A full store is no reason to stop: collection may be what frees it.
                tracing::warn!(volume = %name, %error, "no checkpoint before the collection");
            }
        }
    }

    /// What was marked is old once somebody else has broken the lock and collects: nothing more is removed by it.
    fn confirm(&self) -> Result<(), Stop> {
        self.store.confirm(self.lease).map_err(|error| failed(error, "the collection's lock was lost: it ends").into())
    }

    fn stop_if_cancelled(&self, report: CollectReport) -> Result<(), Stop> {
        if self.job.is_cancelled() { Err(Stop::Cancelled(report)) } else { Ok(()) }
    }
}

fn failed(error: crate::store::StoreError, what: &str) -> VolumeError {
    VolumeError::from_store(error, what)
}
