//! `info` and `list`: what is known of volumes without opening them.

use crate::map::format::header::{Header, HeaderState};
use crate::store::io::{self, Io};
use crate::store::{ListScope, ObjectName, Store};
use crate::units::{ObjectSize, VolumeId, VolumeName, VolumeSize};
use crate::volume::VolumeError;
use crate::volume::open::{Holder, find, list_all, read_header};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub name: VolumeName,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
    pub state: VolumeState,
    /// Who has, or last had, the lease.
    pub holder: Option<HolderInfo>,
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
    let header = io::block_on(store, None, |io| async move { header_of(&io, name).await })?;
    Ok(describe(store, name, &header))
}

/// All names in the store in ascending order, each with what could be read of it: one damaged volume hides no other.
///
/// # Errors
/// When the store cannot be listed.
pub fn list(store: &Arc<dyn Store>) -> Result<Vec<Listed>, VolumeError> {
    io::block_on(store, None, |io| async move {
        let mut listed = Vec::new();
        for object in list_all(&io, ListScope::Names).await? {
            if let ObjectName::Name(name) = object {
                let header = header_of(&io, &name).await;
                let info = header.map(|header| describe(store, &name, &header));
                listed.push((name, info));
            }
        }
        Ok(listed)
    })
}

async fn header_of(io: &Io, name: &VolumeName) -> Result<Header, VolumeError> {
    let id = find(io, name).await?;
    read_header(io, id, name).await.map(|(header, _)| header)
}

fn describe(store: &Arc<dyn Store>, name: &VolumeName, header: &Header) -> VolumeInfo {
    let state = match header.state {
        HeaderState::Building | HeaderState::Closed => VolumeState::Closed,
        HeaderState::Live | HeaderState::TakingOver { .. } => VolumeState::Open,
        HeaderState::Removed => VolumeState::Removing,
    };
    let record = store.holder(header.id).ok().flatten();
    let holder = record.and_then(|record| Holder::decode(&record));
    VolumeInfo {
        id: header.id,
        name: name.clone(),
        size: header.size,
        object_size: header.object_size,
        state,
        holder: holder.map(|Holder { host, pid, .. }| HolderInfo { host, pid }),
    }
}
