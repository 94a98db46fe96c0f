//! Names and headers that do not fit together: what a process leaves that dies in the middle, and what damage does.
//!
//! | found | mended by |
//! |---|---|
//! | a volume in the making without a maker | finishing it or removing it, as its group decides (`collect::settle`) |
//! | a creation that did not come to a name | removing it: it was never opened |
//! | a name that leads to a removed volume | removing the name |
//! | an outdated name (`volume::naming`) | removing that name |
//! | a name that leads nowhere, of an id of which nothing is left | removing the name |
//! | a volume without a name, which may have data | giving it its name back, if that is free |
//! | a name record that does not parse | nothing: what it led to is not known |
//! | a name that leads to an id without a header, with objects | nothing: they may be all that is left of somebody's data |

use super::{Severity, Survey};
use crate::admin::remove::drop_name;
use crate::admin::survey::{Seen, look, names};
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::name as name_record;
use crate::store::io::Io;
use crate::store::{Lease, ListScope, ObjectName, PublishMode, Store};
use crate::units::{VolumeId, VolumeName};
use crate::volume::lease::{Holder, holder, try_lock, try_lock_shared};
use crate::volume::naming::is_outdated;
use crate::volume::{VolumeError, VolumeErrorKind};
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leftover {
    Unfinished { name: VolumeName, id: VolumeId },
    NeverOpened { name: VolumeName, id: VolumeId },
    OfRemoved { name: VolumeName, id: VolumeId },
    Outdated { name: VolumeName, id: VolumeId },
    Nowhere { name: VolumeName, id: VolumeId },
    Headless { name: VolumeName, id: VolumeId },
    Nameless { name: VolumeName, id: VolumeId },
    BadRecord { name: VolumeName, problem: String },
}

impl Leftover {
    pub(super) fn name(&self) -> Option<&VolumeName> {
        match self {
            Self::Unfinished { name, .. }
            | Self::NeverOpened { name, .. }
            | Self::OfRemoved { name, .. }
            | Self::Outdated { name, .. }
            | Self::Nowhere { name, .. }
            | Self::Headless { name, .. }
            | Self::BadRecord { name, .. } => Some(name),
            Self::Nameless { .. } => None,
        }
    }

    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Unfinished { .. }
            | Self::NeverOpened { .. }
            | Self::OfRemoved { .. }
            | Self::Outdated { .. }
            | Self::Nowhere { .. } => Severity::Leak,
            Self::Headless { .. } | Self::Nameless { .. } | Self::BadRecord { .. } => Severity::Damage,
        }
    }

    /// What is told when it is gone after a repair.
    pub(super) fn repaired(&self) -> &'static str {
        match self {
            Self::Unfinished { .. } => "finished or removed, as its group says",
            Self::NeverOpened { .. } => "removed",
            Self::OfRemoved { .. } | Self::Outdated { .. } | Self::Nowhere { .. } => "the name was removed",
            Self::Nameless { .. } => "it has its name again",
            Self::Headless { .. } | Self::BadRecord { .. } => "it is gone",
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished { id, .. } => write!(f, "volume {id} is in the making, and its maker is gone"),
            Self::NeverOpened { id, .. } => write!(f, "the creation of volume {id} was not completed"),
            Self::OfRemoved { id, .. } => write!(f, "the name leads to volume {id}, which was removed"),
            Self::Outdated { id, .. } => write!(f, "the name was left behind when volume {id} was renamed"),
            Self::Nowhere { id, .. } => write!(f, "the name leads to volume {id}, of which nothing is left"),
            Self::Headless { id, .. } => {
                write!(f, "volume {id} has no header: some of its objects are there, and nothing says what they are")
            }
            Self::Nameless { name, id } => write!(f, "no name leads to volume {id}, which was made as {name}"),
            Self::BadRecord { problem, .. } => write!(f, "{problem}"),
        }
    }
}

/// # Errors
/// When the store fails.
pub(super) async fn find(store: &Arc<dyn Store>, io: &Io, survey: &Survey) -> Result<Vec<Leftover>, VolumeError> {
    let bad = survey.names.damaged.iter().cloned().map(|(name, problem)| Leftover::BadRecord { name, problem });
    let mut found: Vec<Leftover> = bad.collect();
    for (id, names) in &survey.names.of {
        for name in names {
            found.extend(of_name(io, survey, *id, name).await?);
        }
    }
    for (id, seen) in &survey.volumes {
        let Ok(Seen { header, .. }) = seen else { continue };
        found.extend(of_header(store, io, header, survey.names.of.contains_key(id)).await?);
    }
    Ok(found)
}

async fn of_name(io: &Io, survey: &Survey, id: VolumeId, name: &VolumeName) -> Result<Option<Leftover>, VolumeError> {
    let name = name.clone();
    match survey.volumes.get(&id) {
        Some(Ok(seen)) if seen.is_removed() => Ok(Some(Leftover::OfRemoved { name, id })),
        Some(Ok(seen)) if is_outdated(io, &seen.header, &name).await? => Ok(Some(Leftover::Outdated { name, id })),
        Some(_) => Ok(None),
        // It may have been made since the headers were listed.
        None if look(io, id).await?.is_some() => Ok(None),
        None if has_anything(io, id).await? => Ok(Some(Leftover::Headless { name, id })),
        None => Ok(Some(Leftover::Nowhere { name, id })),
    }
}

async fn of_header(
    store: &Arc<dyn Store>,
    io: &Io,
    header: &Header,
    named: bool,
) -> Result<Option<Leftover>, VolumeError> {
    let (name, id) = (header.name.clone(), header.id);
    let leftover = match header.state {
        HeaderState::Removed => return Ok(None),
        _ if header.unfinished.is_some() => Leftover::Unfinished { name, id },
        _ if named => return Ok(None),
        // A clone that did not come to a name has a root, and still nothing of its own.
        HeaderState::Building => Leftover::NeverOpened { name, id },
        _ => Leftover::Nameless { name, id },
    };
    // Whoever makes a volume holds its lock, or shares it. Sharing it for a moment leaves no trace.
    let maker_lives = match try_lock_shared(store, id, &header.name) {
        Ok(_lease) => {
            let now = look(io, id).await?;
            now.is_none_or(|now| now.header != *header)
        }
        Err(error) if error.kind() == VolumeErrorKind::Held => true,
        Err(error) => return Err(error),
    };
    Ok((!maker_lives).then_some(leftover))
}

async fn has_anything(io: &Io, id: VolumeId) -> Result<bool, VolumeError> {
    for scope in [ListScope::Metadata(id), ListScope::Data(id)] {
        if !io.list(scope, None, 1).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Mends what [`collect::settle`](crate::admin::collect) did not. What cannot be mended now stays, and is found again.
pub(super) async fn repair(store: &Arc<dyn Store>, io: &Io, found: &[Leftover]) {
    for leftover in found {
        if let Err(error) = repair_one(store, io, leftover).await {
            tracing::warn!(%error, finding = %leftover, "cannot mend it");
        }
    }
}

async fn repair_one(store: &Arc<dyn Store>, io: &Io, leftover: &Leftover) -> Result<(), VolumeError> {
    match leftover {
        Leftover::Outdated { name, id } => {
            let Some(lease) = lock_surely(store, *id, name)? else { return Ok(()) };
            match look(io, *id).await? {
                Some(seen) if is_outdated(io, &seen.header, name).await? => drop_name(io, store, &lease, name).await,
                _ => Ok(()),
            }
        }
        Leftover::Nowhere { name, id } => {
            let Some(lease) = lock_surely(store, *id, name)? else { return Ok(()) };
            if has_anything(io, *id).await? { Ok(()) } else { drop_name(io, store, &lease, name).await }
        }
        Leftover::Nameless { id, name } => {
            let Some(_lease) = lock_surely(store, *id, name)? else { return Ok(()) };
            let named = names(io).await?.of.contains_key(id);
            let gone = look(io, *id).await?.is_none_or(|seen| seen.is_removed());
            if named || gone {
                return Ok(());
            }
            let record = ObjectName::Name(name.clone());
            let published = io.publish(record, &name_record::encode(*id), PublishMode::Exclusive).await;
            published
                .map_err(|error| VolumeError::from_store(error, format!("cannot give volume {id} its name {name}")))
        }
        Leftover::Unfinished { .. }
        | Leftover::NeverOpened { .. }
        | Leftover::OfRemoved { .. }
        | Leftover::Headless { .. }
        | Leftover::BadRecord { .. } => Ok(()),
    }
}

/// The volume's lock, if nobody has it or may have it all the same. What its record says of soft journals stays.
fn lock_surely(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> Result<Option<Lease>, VolumeError> {
    let mine = Holder::successor(holder(store, id).as_ref(), None);
    match try_lock(store, id, name, &mine) {
        Ok(lease) => Ok(holder(store, id).is_some_and(|mine| mine.doubts.is_empty()).then_some(lease)),
        Err(error) if error.kind() == VolumeErrorKind::Held => Ok(None),
        Err(error) => Err(error),
    }
}
