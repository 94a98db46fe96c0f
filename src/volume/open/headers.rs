//! From a name to the header that holds the truth about its volume.
//!
//! The highest generation's header is the volume; one that says *taking over* points back to the one that holds the truth. A member of
//! a group that is being made exists as soon as the group's leader does.

use super::damaged;
use crate::map::format::header::{Header, HeaderState, Unfinished};
use crate::map::format::name as name_record;
use crate::store::io::Io;
use crate::store::{ListScope, ObjectName, StoreError, StoreErrorKind};
use crate::units::{Generation, VolumeId, VolumeName};
use crate::volume::naming::refuse_outdated;
use crate::volume::{VolumeError, VolumeErrorKind};

/// Names asked of the store at a time.
const LIST_LIMIT: usize = 1024;

/// The id behind a name.
///
/// # Errors
/// When there is no such volume or its record is damaged.
pub async fn find(io: &Io, name: &VolumeName) -> Result<VolumeId, VolumeError> {
    let bytes = io.read_all(ObjectName::Name(name.clone())).await.map_err(|error| match error.kind() {
        StoreErrorKind::NotFound => {
            VolumeError::new(VolumeErrorKind::NotFound, format!("there is no volume {name} in this store"))
        }
        _ => VolumeError::from_store(error, format!("cannot look up volume {name}")),
    })?;
    name_record::decode(&bytes).map_err(|error| damaged(name, &error))
}

/// The header that holds the truth about the volume of this name, and the highest generation there is.
///
/// # Errors
/// When there is none, it is damaged, the volume was never finished, or the name is one that
/// does not count ([`super::naming`]).
pub async fn read_header(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let (header, highest) = read_header_of(io, id, name).await?;
    refuse_outdated(io, &header, name).await?;
    Ok((header, highest))
}

/// As [`read_header`], whether the name counts or not: it is for error texts only.
///
/// # Errors
/// When there is none, it is damaged, or the volume was never finished.
pub async fn read_header_of(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let (header, highest) = read_any_header(io, id, name).await?;
    let Some(Unfinished { with }) = header.unfinished else { return Ok((header, highest)) };
    let unfinished = || {
        let text =
            format!("there is no volume {name} in this store: making it was interrupted (gc takes what is left)");
        VolumeError::new(VolumeErrorKind::NotFound, text)
    };
    if with == id {
        return Err(unfinished());
    }
    // A member of a group exists as soon as the group's leader does. A leader that is gone altogether never did.
    let failed = |error| VolumeError::from_store(error, format!("cannot read the header of volume {name}"));
    if header_generations(io, with).await.map_err(failed)?.is_empty() {
        return Err(unfinished());
    }
    let (leader, _) = read_any_header(io, with, name).await?;
    if leader.unfinished.is_some() {
        return Err(unfinished());
    }
    Ok((Header { unfinished: None, ..header }, highest))
}

/// As [`read_header_of`], but also of a volume that was never finished.
///
/// # Errors
/// When there is none, or it is damaged.
pub async fn read_any_header(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let failed = |error| VolumeError::from_store(error, format!("cannot read the header of volume {name}"));
    let generations = header_generations(io, id).await.map_err(failed)?;
    let Some(highest) = generations.last().copied() else {
        let text = format!("volume {name} ({id}) has a name but no header: it is lost, or being removed");
        return Err(VolumeError::new(VolumeErrorKind::Damaged, text));
    };
    Ok((read_truth(io, id, highest, name).await?, highest))
}

/// The header that holds the truth as of a generation.
pub(super) async fn read_truth(
    io: &Io,
    id: VolumeId,
    generation: Generation,
    name: &VolumeName,
) -> Result<Header, VolumeError> {
    let mut header = read_generation(io, id, generation, name).await?;
    // More than one step when a power cut took back a header that its dying writer had not made durable.
    while let HeaderState::TakingOver { previous } = header.state {
        if previous >= header.generation {
            return Err(damaged(name, &format!("header {id}.{} points forward", header.generation.0)));
        }
        header = read_generation(io, id, previous, name).await?;
    }
    Ok(header)
}

/// Listings that must find no header before there is none: one that runs while a holder replaces header *g* by *g* + 1 may
/// miss both.
const EMPTY_LISTINGS: usize = 4;

/// The generations of which the volume has a header, ascending.
///
/// # Errors
/// What the store reports.
pub async fn header_generations(io: &Io, id: VolumeId) -> Result<Vec<Generation>, StoreError> {
    let generation = |name| match name {
        ObjectName::Header { generation, .. } => Some(generation),
        _ => None,
    };
    for _ in 0..EMPTY_LISTINGS {
        let names = list_all(io, ListScope::Metadata(id)).await?;
        let generations: Vec<_> = names.into_iter().filter_map(generation).collect();
        if !generations.is_empty() {
            return Ok(generations);
        }
    }
    Ok(Vec::new())
}

/// All names of a scope that is known to be small (a volume's metadata).
pub async fn list_all(io: &Io, scope: ListScope) -> Result<Vec<ObjectName>, StoreError> {
    let mut names: Vec<ObjectName> = Vec::new();
    loop {
        let page = io.list(scope, names.last().cloned(), LIST_LIMIT).await?;
        let last = page.len() < LIST_LIMIT;
        names.extend(page);
        if last {
            return Ok(names);
        }
    }
}

async fn read_generation(
    io: &Io,
    id: VolumeId,
    generation: Generation,
    name: &VolumeName,
) -> Result<Header, VolumeError> {
    let object = ObjectName::Header { volume: id, generation };
    let bytes = io.read_all(object.clone()).await;
    let bytes = bytes.map_err(|error| VolumeError::from_store(error, format!("cannot read volume {name}")))?;
    let header = Header::decode(&bytes).map_err(|error| damaged(name, &format!("{object}: {error}")))?;
    if (header.id, header.generation) != (id, generation) {
        return Err(damaged(name, &format!("{object} is another volume's header")));
    }
    Ok(header)
}
