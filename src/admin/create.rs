//! `create`: a new, empty volume. Building header, then name record: the volume exists iff its name does (rule C19).
//!
//! The new volume's lock is held meanwhile, so a header without a name whose lock can be had is one that nobody completes.

use super::info::VolumeInfo;
use crate::clock;
use crate::map::format::header::{Header, HeaderState, Limits, VolumeKind};
use crate::map::format::name as name_record;
use crate::map::tree::BLOCKS_MAX;
use crate::store::io::{self, Io};
use crate::store::{ObjectName, PublishMode, Store, StoreErrorKind};
use crate::units::{ByteSize, Epoch, Generation, ObjectSize, VolumeId, VolumeName, VolumeSize};
use crate::volume::lease::confirm;
use crate::volume::open::lock_shared;
use crate::volume::{VolumeError, VolumeErrorKind};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub name: VolumeName,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
}

/// # Errors
/// When the name is taken, the map cannot hold so many blocks, or the store cannot be written.
pub fn create(store: &Arc<dyn Store>, request: &CreateRequest) -> Result<VolumeInfo, VolumeError> {
    io::block_on(store, None, |io| async move { create_with(&io, store, request).await })
}

/// As [`create`], over a channel that the caller has.
///
/// # Errors
/// As [`create`].
pub async fn create_with(io: &Io, store: &Arc<dyn Store>, request: &CreateRequest) -> Result<VolumeInfo, VolumeError> {
    create_as(io, store, VolumeId::random(), request).await
}

/// As [`create_with`], with an id of the caller's that nobody had before.
///
/// # Errors
/// As [`create`].
pub(super) async fn create_as(
    io: &Io,
    store: &Arc<dyn Store>,
    id: VolumeId,
    request: &CreateRequest,
) -> Result<VolumeInfo, VolumeError> {
    let CreateRequest { name, size, object_size } = request;
    refuse_too_large(*size, *object_size)?;
    let failed = |error| VolumeError::from_store(error, format!("cannot create volume {name}"));
    refuse_taken(io, name).await?;
    let header = first_header(id, request);
    // Shared leaves no record of a holder.
    let lease = lock_shared(store, header.id, name)?;
    let object = ObjectName::Header { volume: header.id, generation: header.generation };
    io.publish(object.clone(), &header.encode(), PublishMode::Exclusive).await.map_err(failed)?;
    let record = name_record::encode(header.id);
    match io.publish(ObjectName::Name(name.clone()), &record, PublishMode::Exclusive).await {
        // Stopped in between, we may have been taken for dead, and the volume for garbage.
        Ok(()) => confirm(store, &lease, name)?,
        Err(error) if error.kind() == StoreErrorKind::Exists => {
            // Nobody can find it without a name; a leftover is collected.
            let _ = io.remove(object).await;
            return Err(taken(name));
        }
        // The name may be there all the same, and must not lead to nothing.
        Err(error) => return Err(failed(error)),
    }
    Ok(VolumeInfo::of(&header, name))
}

fn first_header(id: VolumeId, request: &CreateRequest) -> Header {
    Header {
        state: HeaderState::Building,
        id,
        generation: Generation(1),
        size: request.size,
        object_size: request.object_size,
        epoch: Epoch(1),
        epoch_limit: Epoch(2),
        shared_epoch: Epoch(0),
        change_through: 0,
        segment_bytes: 0,
        live_bytes: 0,
        current_journal: 0,
        next_journal: 0,
        created: clock::unix_seconds(),
        parent: None,
        root: None,
        name: request.name.clone(),
        kind: VolumeKind::Disk,
        unfinished: None,
        unfenced: None,
        content: None,
        receiving: None,
        limits: Limits::default(),
    }
}

pub(super) fn refuse_too_large(size: VolumeSize, object_size: ObjectSize) -> Result<(), VolumeError> {
    if object_size.blocks_in(size) <= BLOCKS_MAX {
        return Ok(());
    }
    let max = ByteSize(BLOCKS_MAX.saturating_mul(object_size.bytes()));
    let text = format!("a volume with objects of {} holds at most {max}", ByteSize(object_size.bytes()));
    Err(VolumeError::new(VolumeErrorKind::OutOfRange, text))
}

async fn refuse_taken(io: &Io, name: &VolumeName) -> Result<(), VolumeError> {
    match io.stat(ObjectName::Name(name.clone())).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
        Err(error) => Err(VolumeError::from_store(error, format!("cannot create volume {name}"))),
        Ok(_) => Err(taken(name)),
    }
}

fn taken(name: &VolumeName) -> VolumeError {
    VolumeError::new(VolumeErrorKind::Exists, format!("there is a volume {name} already"))
}
