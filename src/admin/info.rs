//! `info` and `list`: what is known of volumes without opening them.

use crate::map::format::header::{Header, HeaderState, Limits, VolumeKind};
use crate::store::io::{self, Io};
use crate::store::{ListScope, ObjectName, Store};
use crate::units::{Epoch, ObjectSize, VolumeId, VolumeName, VolumeSize};
use crate::volume::VolumeError;
use crate::volume::open::{Holder, find, list_all, read_header, read_header_of};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub name: VolumeName,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
    pub kind: VolumeKind,
    pub state: VolumeState,
    /// Who has, or last had, the lease.
    pub holder: Option<HolderInfo>,
    /// In seconds since 1970.
    pub created: u64,
    /// What it was made from.
    pub parent: Option<ParentInfo>,
    /// Other volumes were made from it, so that some of its objects may be theirs too.
    pub shared: bool,
    /// Objects of it may still be written by a holder that was cut off.
    pub unfenced: bool,
    /// A transfer into it is not complete.
    pub receiving: bool,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentInfo {
    pub id: VolumeId,
    /// `None` when it was removed.
    pub name: Option<VolumeName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// Nobody has it; it was closed in order, or never opened.
    Closed,
    /// A holder has it, or died with it.
    Open,
    /// Its removal has begun; it cannot be opened.
    Removing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderInfo {
    pub host: String,
    pub pid: u32,
}

/// A name, and what could be learnt of the volume that bears it.
pub type Listed = (VolumeName, Result<VolumeInfo, VolumeError>);

/// # Errors
/// When there is no such volume or its header is damaged.
pub fn info(store: &Arc<dyn Store>, name: &VolumeName) -> Result<VolumeInfo, VolumeError> {
    let (header, parent) = io::block_on(store, None, |io| async move {
        let header = header_of(&io, name).await?;
        let parent = match header.parent {
            Some(parent) => name_of(&io, parent.id).await?,
            None => None,
        };
        Ok::<_, VolumeError>((header, parent))
    })?;
    let mut info = describe(store, name, &header);
    if let Some(info) = &mut info.parent {
        info.name = parent;
    }
    Ok(info)
}

/// All names in the store in ascending order, each with what could be read of it: one damaged volume hides no other.
///
/// # Errors
/// When the store cannot be listed.
pub fn list(store: &Arc<dyn Store>) -> Result<Vec<Listed>, VolumeError> {
    let mut listed = io::block_on(store, None, |io| async move {
        let mut listed = Vec::new();
        for object in list_all(&io, ListScope::Names).await? {
            if let ObjectName::Name(name) = object {
                let header = header_of(&io, &name).await;
                let info = header.map(|header| describe(store, &name, &header));
                listed.push((name, info));
            }
        }
        Ok::<_, VolumeError>(listed)
    })?;
    let infos = || listed.iter().filter_map(|(name, info)| Some((info.as_ref().ok()?.id, name.clone())));
    let names: HashMap<VolumeId, VolumeName> = infos().collect();
    for parent in listed.iter_mut().filter_map(|(_, info)| info.as_mut().ok()?.parent.as_mut()) {
        parent.name = names.get(&parent.id).cloned();
    }
    Ok(listed)
}

async fn header_of(io: &Io, name: &VolumeName) -> Result<Header, VolumeError> {
    let id = find(io, name).await?;
    read_header(io, id, name).await.map(|(header, _)| header)
}

/// The name that leads to the volume, if one does. Its header remembers one, which is right unless it was renamed.
async fn name_of(io: &Io, id: VolumeId) -> Result<Option<VolumeName>, VolumeError> {
    let unknown = VolumeName::new(&id.to_string()).expect("an id's digits are a legal name");
    match read_header_of(io, id, &unknown).await {
        Ok((header, _)) if header.state == HeaderState::Removed => return Ok(None),
        Ok((header, _)) if find(io, &header.name).await.is_ok_and(|found| found == id) => return Ok(Some(header.name)),
        Ok(_) | Err(_) => {}
    }
    for object in list_all(io, ListScope::Names).await? {
        let ObjectName::Name(name) = object else { continue };
        if find(io, &name).await.is_ok_and(|found| found == id) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

pub(super) fn describe(store: &Arc<dyn Store>, name: &VolumeName, header: &Header) -> VolumeInfo {
    let state = match header.state {
        HeaderState::Building | HeaderState::Closed => VolumeState::Closed,
        HeaderState::Live | HeaderState::TakingOver { .. } => VolumeState::Open,
        HeaderState::Removed => VolumeState::Removing,
    };
    let record = store.holder(header.id).ok().flatten();
    let holder = record.and_then(|record| Holder::decode(&record));
    VolumeInfo {
        state,
        holder: holder.map(|Holder { host, pid, .. }| HolderInfo { host, pid }),
        ..VolumeInfo::of(header, name)
    }
}

impl VolumeInfo {
    /// As the header says, of a volume that nobody has open. Its parent's name is not looked up.
    pub fn of(header: &Header, name: &VolumeName) -> Self {
        Self {
            id: header.id,
            name: name.clone(),
            size: header.size,
            object_size: header.object_size,
            kind: header.kind,
            state: VolumeState::Closed,
            holder: None,
            created: header.created,
            parent: header.parent.map(|parent| ParentInfo { id: parent.id, name: None }),
            shared: header.kind == VolumeKind::Disk && header.shared_epoch > Epoch(0),
            unfenced: header.unfenced.is_some(),
            receiving: header.receiving.is_some(),
            limits: header.limits,
        }
    }
}
