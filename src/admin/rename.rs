//! A volume's name moves from one name record to another. For volumes that are closed and that nobody else knows of yet.
//!
//! The old record goes first: a crash in between leaves a volume without a name, which is collected, and never one with
//! two names, whose removal under one would destroy it under the other.

use crate::map::format::name as name_record;
use crate::store::io::{self, Io};
use crate::store::{ObjectName, PublishMode, Store, StoreError, StoreErrorKind};
use crate::units::{VolumeId, VolumeName};
use crate::volume::{VolumeError, VolumeErrorKind};
use std::sync::Arc;

/// # Errors
/// When a volume of the new name exists, or the store fails; the volume has its old name then, if any can be written.
pub(super) fn rename(
    store: &Arc<dyn Store>,
    id: VolumeId,
    from: &VolumeName,
    to: &VolumeName,
) -> Result<(), VolumeError> {
    io::block_on(store, None, |io| async move {
        let failed = |error| VolumeError::from_store(error, format!("cannot give volume {from} the name {to}"));
        refuse(&io, to).await?;
        let old = ObjectName::Name(from.clone());
        io.remove(old.clone()).await.map_err(failed)?;
        // A power cut must not bring the old name back beside the new one.
        io.sync(vec![old]).await.map_err(failed)?;
        let Err(error) = publish(&io, id, to).await else { return Ok(()) };
        publish(&io, id, from).await.map_err(failed)?;
        Err(if error.kind() == StoreErrorKind::Exists { taken(to) } else { failed(error) })
    })
}

/// # Errors
/// When there is a volume of this name, or the store cannot tell.
pub(super) fn refuse_taken(store: &Arc<dyn Store>, name: &VolumeName) -> Result<(), VolumeError> {
    io::block_on(store, None, |io| async move { refuse(&io, name).await })
}

async fn refuse(io: &Io, name: &VolumeName) -> Result<(), VolumeError> {
    match io.stat(ObjectName::Name(name.clone())).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
        Err(error) => Err(VolumeError::from_store(error, format!("cannot look up volume {name}"))),
        Ok(_) => Err(taken(name)),
    }
}

async fn publish(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(), StoreError> {
    io.publish(ObjectName::Name(name.clone()), &name_record::encode(id), PublishMode::Exclusive).await
}

fn taken(name: &VolumeName) -> VolumeError {
    VolumeError::new(VolumeErrorKind::Exists, format!("there is a volume {name} already"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::create::{CreateRequest, create};
    use crate::admin::info::info;
    use crate::store::memory::MemoryStore;
    use crate::units::{ObjectSize, VolumeSize};

    fn name(text: &str) -> VolumeName {
        VolumeName::new(text).unwrap()
    }

    fn volume(store: &Arc<dyn Store>, text: &str) -> VolumeId {
        let size = VolumeSize::new(1 << 20).unwrap();
        create(store, &CreateRequest { name: name(text), size, object_size: ObjectSize::DEFAULT }).unwrap().id
    }

    #[test]
    fn the_volume_is_found_under_its_new_name_only() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let id = volume(&store, "old");
        rename(&store, id, &name("old"), &name("new")).unwrap();
        assert_eq!(info(&store, &name("new")).unwrap().id, id);
        assert_eq!(info(&store, &name("old")).unwrap_err().kind(), VolumeErrorKind::NotFound);
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (id, other) = (volume(&store, "old"), volume(&store, "new"));
        let error = rename(&store, id, &name("old"), &name("new")).unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::Exists);
        assert_eq!(info(&store, &name("new")).unwrap().id, other);
        assert_eq!(info(&store, &name("old")).unwrap().id, id);
    }
}
