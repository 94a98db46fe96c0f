//! `remove`: a volume and everything that is only its own.
//!
//! A volume that never shared anything goes at once: a header that says *removed*, under the lease; data objects; journals and
//! segments; the name; headers. One that did (a snapshot, a clone, a volume of which there was a snapshot) loses its name
//! after that header, and [`collect`](super::collect) removes what nobody else names: whatever descends from it does not notice.
//!
//! Interrupted anywhere, by a crash or by whoever asked for it, the name still leads to a header that says removed, and the
//! same command goes on.

use super::job::Job;
use super::survey::{Seen, leads_to, look};
use crate::map::format::header::{Header, HeaderState};
use crate::store::io::{self, Io};
use crate::store::{Lease, ListScope, ObjectName, PublishMode, Room, Store, StoreErrorKind};
use crate::units::{Epoch, VolumeId, VolumeName};
use crate::volume::lease::{self, LeaseOptions, Taken};
use crate::volume::naming::refuse_outdated;
use crate::volume::open::{find, header_generations, list_all};
use crate::volume::{VolumeError, VolumeErrorKind};
use futures_util::future::join_all;
use std::sync::Arc;

/// Objects removed at once.
const BATCH: usize = 64;

/// Objects listed at once: a store may have to ask in many places for each listing.
const PAGE: usize = 4096;

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Removal {
    /// Nothing of it is left.
    Finished,
    /// The volume is gone; others may use parts of it, so the next collection frees what nobody does.
    SpaceLater,
    /// The job was cancelled: the volume cannot be opened any more, and some of its objects are left.
    Interrupted,
}

/// The job counts the objects removed so far.
///
/// # Errors
/// When there is no such volume, somebody holds or reads it, or something cannot be removed.
pub fn remove(store: &Arc<dyn Store>, name: &VolumeName, job: &Job) -> Result<Removal, VolumeError> {
    remove_as(store, name, &LeaseOptions::default(), job)
}

/// As [`remove`], by a host of that name, with its means to fence others.
///
/// # Errors
/// As [`remove`].
pub fn remove_as(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    options: &LeaseOptions,
    job: &Job,
) -> Result<Removal, VolumeError> {
    let id = io::block_on(store, None, |io| async move { find(&io, name).await })?;
    let taken = &lease::take_to_free(store, id, name, options)?;
    let removing = |io: Io| async move { remove_with(&io, store, taken, name, options, job).await };
    io::block_on(store, Some(&taken.lease), removing)
}

/// As [`remove_as`], under a lease that was just taken, over a channel of it.
///
/// # Errors
/// As [`remove`].
pub async fn remove_with(
    io: &Io,
    store: &Arc<dyn Store>,
    taken: &Taken,
    name: &VolumeName,
    options: &LeaseOptions,
    job: &Job,
) -> Result<Removal, VolumeError> {
    let id = taken.lease.volume;
    let seen = look(io, id).await?;
    if let Some(seen) = &seen {
        refuse_outdated(io, &seen.header, name).await?;
        // A guest of another host may be at work on it.
        lease::refuse_doubtful(store, taken, name, &seen.header, options)?;
    }
    remove_seen(io, store, &taken.lease, seen, name, job).await
}

async fn remove_seen(
    io: &Io,
    store: &Arc<dyn Store>,
    lease: &Lease,
    seen: Option<Seen>,
    name: &VolumeName,
    job: &Job,
) -> Result<Removal, VolumeError> {
    let id = lease.volume;
    if let Some(seen) = &seen {
        mark_removed(io, seen).await?;
    }
    if seen.is_some_and(|seen| has_shared(&seen.header)) {
        drop_name(io, store, lease, name).await?;
        return Ok(Removal::SpaceLater);
    }
    // Without a header a removal got that far before, or the volume is lost: there is only a name to remove.
    if let Removal::Interrupted = remove_data(io, id, job).await? {
        return Ok(Removal::Interrupted);
    }
    let (headers, rest): (Vec<_>, Vec<_>) = list_all(io, ListScope::Metadata(id))
        .await?
        .into_iter()
        .partition(|object| matches!(object, ObjectName::Header { .. }));
    remove_all(io, rest).await?;
    drop_name(io, store, lease, name).await?;
    let last = headers.last().cloned();
    let others = headers.into_iter().filter(|header| Some(header) != last.as_ref()).collect();
    remove_all(io, others).await?;
    // Whatever of this a power cut brought back behind the last header, an older header or objects, nobody would remove any more.
    io.sync_all().await.map_err(|error| VolumeError::from_store(error, "cannot make the removal durable"))?;
    remove_all(io, last.into_iter().collect()).await?;
    Ok(Removal::Finished)
}

/// Until a listing from the beginning has nothing.
async fn remove_data(io: &Io, id: VolumeId, job: &Job) -> Result<Removal, VolumeError> {
    let (mut removed, mut after) = (0, None);
    loop {
        let page = io.list(ListScope::Data(id), after.clone(), PAGE).await?;
        match (page.last().cloned(), &after) {
            (None, None) => return Ok(Removal::Finished),
            (last, _) => after = last,
        }
        for objects in page.chunks(BATCH) {
            if job.is_cancelled() {
                return Ok(Removal::Interrupted);
            }
            removed += objects.len() as u64;
            remove_all(io, objects.to_vec()).await?;
            job.reached(removed);
        }
    }
}

/// Whether another volume may name objects or pages that bear this one's id, or this one another's: its tombstone is needed then.
pub(super) fn has_shared(header: &Header) -> bool {
    header.parent.is_some() || header.shared_epoch != Epoch(0) || header.unfinished.is_some()
}

/// Publishes a header that says *removed*, unless there is one. The caller has the volume's lock.
///
/// # Errors
/// When somebody else acts on the volume at this moment, or the store fails.
pub(super) async fn mark_removed(io: &Io, seen: &Seen) -> Result<(), VolumeError> {
    let Seen { header, highest } = seen;
    if header.state == HeaderState::Removed && header.generation == *highest {
        return Ok(());
    }
    let generation = highest.next();
    let tombstone = Header { state: HeaderState::Removed, generation, ..header.clone() };
    let object = ObjectName::Header { volume: header.id, generation };
    let name = &header.name;
    let published = io.publish_in(Room::Reserve, object, &tombstone.encode(), PublishMode::Exclusive).await;
    published.map_err(|error| match error.kind() {
        StoreErrorKind::Exists => {
            VolumeError::new(VolumeErrorKind::Held, format!("volume {name} is being opened at this moment"))
        }
        _ => VolumeError::from_store(error, format!("cannot remove volume {name}")),
    })
}

/// Takes a name away from the volume, if it is its own. The caller has the volume's lock, so nobody else does the same, and
/// the name cannot be given to another volume before it is gone. Names come back, unlike everything else that is removed: so the
/// lock is looked at right before.
///
/// # Errors
/// When the lock was broken meanwhile, or the store fails.
pub(super) async fn drop_name(
    io: &Io,
    store: &Arc<dyn Store>,
    lease: &Lease,
    name: &VolumeName,
) -> Result<(), VolumeError> {
    let id = lease.volume;
    if leads_to(io, name).await? != Some(Ok(id)) {
        return Ok(());
    }
    let failed = |error| VolumeError::from_store(error, format!("cannot remove the name {name}"));
    // Whoever wrote the header that says removed may have failed or died at it: it may be there and not be durable.
    let header = |generation| ObjectName::Header { volume: id, generation };
    let headers: Vec<_> = header_generations(io, id).await.map_err(failed)?.into_iter().map(header).collect();
    if !headers.is_empty() {
        io.sync(headers).await.map_err(failed)?;
    }
    lease::confirm(store, lease, name)?;
    let record = ObjectName::Name(name.clone());
    io.remove(record.clone()).await.map_err(failed)?;
    // A name that a power cut brings back must still lead to a header that says removed.
    io.sync(vec![record]).await.map_err(failed)
}

async fn remove_all(io: &Io, objects: Vec<ObjectName>) -> Result<(), VolumeError> {
    let results = join_all(objects.into_iter().map(|object| io.remove(object))).await;
    results.into_iter().collect::<Result<(), _>>().map_err(|error| VolumeError::from_store(error, "cannot remove"))
}
