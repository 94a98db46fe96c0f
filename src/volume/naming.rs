//! Which of a volume's names counts, should two records lead to it.
//!
//! A name record leads from a name to a volume; the header has the name too. While a volume is renamed, for a moment, two records
//! lead to it, and a crash may leave both. Then the one that the header names counts, and the other is *outdated*: nothing is
//! opened or removed through it, so neither name can destroy what the other leads to. One header, replaced in one step, thus
//! decides. A record that is the only one counts whatever the header says.
//!
//! `admin::rename` makes and mends such pairs; [`super::open::read_header`] asks for every verb.

use super::open::find;
use super::{VolumeError, VolumeErrorKind};
use crate::map::format::header::Header;
use crate::store::io::Io;
use crate::store::{ObjectName, StoreError, StoreErrorKind};
use crate::units::VolumeName;

/// Whether `name`, whose record leads to this header's volume, was left behind by a renaming that did not end.
///
/// # Errors
/// When the store cannot tell.
pub async fn is_outdated(io: &Io, header: &Header, name: &VolumeName) -> Result<bool, VolumeError> {
    if header.name == *name {
        return Ok(false);
    }
    match find(io, &header.name).await {
        Ok(id) => Ok(id == header.id),
        Err(error) if error.kind() == VolumeErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// # Errors
/// [`VolumeErrorKind::NotFound`], with the name that counts, when this one is outdated.
pub async fn refuse_outdated(io: &Io, header: &Header, name: &VolumeName) -> Result<(), VolumeError> {
    if !is_outdated(io, header, name).await? {
        return Ok(());
    }
    let current = &header.name;
    let text = format!(
        "there is no volume {name} in this store: the name was left behind when volume {current} was renamed; \
         `archvhost check --repair` removes it"
    );
    Err(VolumeError::new(VolumeErrorKind::NotFound, text))
}

/// # Errors
/// [`VolumeErrorKind::Exists`] when there is a record of this name, whatever it leads to.
pub async fn refuse_taken(io: &Io, name: &VolumeName) -> Result<(), VolumeError> {
    match io.stat(ObjectName::Name(name.clone())).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_look_up(error, name)),
        Ok(_) => Err(taken(name)),
    }
}

pub fn taken(name: &VolumeName) -> VolumeError {
    VolumeError::new(VolumeErrorKind::Exists, format!("there is a volume {name} already"))
}

fn cannot_look_up(error: StoreError, name: &VolumeName) -> VolumeError {
    VolumeError::from_store(error, format!("cannot look up volume {name}"))
}
