//! `remove`: a volume and everything that is only its own.
//!
//! Order: a header that says *removed*, under the lease; data objects; journals and segments; the name; headers. Interrupted
//! anywhere, by a crash or by whoever asked for it, the name still leads to a header that says removed, and the same command
//! goes on.

use super::job::Job;
use crate::map::format::header::{Header, HeaderState};
use crate::store::io::{self, Io};
use crate::store::{Lease, ListScope, ObjectName, PublishMode, Store, StoreErrorKind};
use crate::units::{VolumeId, VolumeName};
use crate::volume::open::{Holder, find, header_generations, list_all, lock, read_header};
use crate::volume::{VolumeError, VolumeErrorKind};
use futures_util::future::join_all;
use std::sync::Arc;

/// Objects removed at once.
const BATCH: usize = 64;

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Removal {
    Finished,
    /// The job was cancelled: the volume cannot be opened any more, and some of its objects are left.
    Interrupted,
}

/// The job counts the objects removed so far.
///
/// # Errors
/// When there is no such volume, it is held, or something cannot be removed.
pub fn remove(store: &Arc<dyn Store>, name: &VolumeName, job: &Job) -> Result<Removal, VolumeError> {
    let id = io::block_on(store, None, |io| async move { find(&io, name).await })?;
    let predecessor = store.holder(id).ok().flatten().and_then(|record| Holder::decode(&record));
    let lease = lock(store, id, name, &Holder::successor(predecessor.as_ref(), None))?;
    let held = &lease;
    io::block_on(store, Some(held), |io| async move { remove_with(&io, held, name, job).await })
}

async fn remove_with(io: &Io, lease: &Lease, name: &VolumeName, job: &Job) -> Result<Removal, VolumeError> {
    let id = lease.volume;
    mark_removed(io, id, name).await?;
    let mut removed = 0;
    loop {
        let objects = io.list(ListScope::Data(id), None, BATCH).await?;
        if objects.is_empty() {
            break;
        }
        if job.is_cancelled() {
            return Ok(Removal::Interrupted);
        }
        removed += objects.len() as u64;
        remove_all(io, objects).await?;
        job.reached(removed);
    }
    let (headers, rest): (Vec<_>, Vec<_>) = list_all(io, ListScope::Metadata(id))
        .await?
        .into_iter()
        .partition(|object| matches!(object, ObjectName::Header { .. }));
    remove_all(io, rest).await?;
    let record = ObjectName::Name(name.clone());
    remove_all(io, vec![record.clone()]).await?;
    // A name that a power cut brings back must still lead to a header that says removed.
    io.sync(vec![record]).await?;
    let last = headers.last().cloned();
    let others = headers.into_iter().filter(|header| Some(header) != last.as_ref()).collect();
    remove_all(io, others).await?;
    remove_all(io, last.into_iter().collect()).await?;
    Ok(Removal::Finished)
}

async fn mark_removed(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(), VolumeError> {
    if header_generations(io, id).await?.is_empty() {
        // A removal got that far before, or the volume is lost: there is only a name to remove.
        return Ok(());
    }
    let (header, highest) = read_header(io, id, name).await?;
    if header.state == HeaderState::Removed && header.generation == highest {
        return Ok(());
    }
    let generation = highest.next();
    let header = Header { state: HeaderState::Removed, generation, ..header };
    let object = ObjectName::Header { volume: id, generation };
    io.publish(object, &header.encode(), PublishMode::Exclusive).await.map_err(|error| match error.kind() {
        StoreErrorKind::Exists => {
            VolumeError::new(VolumeErrorKind::Held, format!("volume {name} is being opened at this moment"))
        }
        _ => VolumeError::from_store(error, format!("cannot remove volume {name}")),
    })
}

async fn remove_all(io: &Io, objects: Vec<ObjectName>) -> Result<(), VolumeError> {
    let results = join_all(objects.into_iter().map(|object| io.remove(object))).await;
    results.into_iter().collect::<Result<(), _>>().map_err(|error| VolumeError::from_store(error, "cannot remove"))
}
