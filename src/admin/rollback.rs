//! `rollback`: a volume becomes again what one of its snapshots is.
//!
//! Only the root changes. Epochs never go back (rule C18): all objects of the volume are shared from then on, those that only
//! its last state named are for collection, and no name is made twice. Order: the volume is opened and closed, so that its
//! last state is whole, whatever became of its last holder; then, under its lease, one header with the snapshot's root, while
//! the snapshot cannot be removed. A crash leaves the one state or the other.

use super::info::{VolumeInfo, info};
use crate::map::format::header::{Header, HeaderState, VolumeKind};
use crate::store::io::{self, Io};
use crate::store::{Lease, ObjectName, PublishMode, Store};
use crate::units::{Epoch, VolumeName};
use crate::volume::lease::confirm;
use crate::volume::open::{Holder, find, lock, lock_shared, read_header};
use crate::volume::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use std::sync::Arc;

/// The volume must not be open anywhere, and the snapshot must be its own, or the one that it was cloned from.
///
/// # Errors
/// When one of the two is not there, the volume is in use, or they do not belong together.
pub fn rollback(
    store: &Arc<dyn Store>,
    volume: &VolumeName,
    snapshot: &VolumeName,
    options: &OpenOptions,
) -> Result<VolumeInfo, VolumeError> {
    let (target, kept) = io::block_on(store, None, |io| async move {
        let target = find(&io, volume).await?;
        let kept = find(&io, snapshot).await?;
        let (target_header, _) = read_header(&io, target, volume).await?;
        let (kept_header, _) = read_header(&io, kept, snapshot).await?;
        refuse_strangers(&target_header, volume, &kept_header, snapshot)?;
        Ok::<_, VolumeError>((target, kept))
    })?;
    let kept_lease = &lock_shared(store, kept, snapshot)?;
    // All rules of taking a volume over from whoever had it last are those of opening it.
    let options = OpenOptions { access: Access::ReadWrite, ..options.clone() };
    Volume::open(store, volume, &options)?.close()?;
    let lease = lock(store, target, volume, &Holder::successor(None, None))?;
    let held = &lease;
    io::block_on(
        store,
        Some(held),
        |io| async move { set_root(&io, store, (held, kept_lease), volume, snapshot).await },
    )?;
    info(store, volume)
}

/// The last step, of a volume that is closed in order, under the volume's lease and a lock on the snapshot.
///
/// # Errors
/// As [`rollback`]; whether it happened is open then, if the store failed. What the volume was before is still there.
pub async fn set_root(
    io: &Io,
    store: &Arc<dyn Store>,
    (lease, kept_lease): (&Lease, &Lease),
    volume: &VolumeName,
    snapshot: &VolumeName,
) -> Result<(), VolumeError> {
    // Opening may have taken long, and a lock that was broken meanwhile does not keep the snapshot's objects.
    confirm(store, kept_lease, snapshot)?;
    let (target, highest) = read_header(io, lease.volume, volume).await?;
    let (kept, _) = read_header(io, find(io, snapshot).await?, snapshot).await?;
    refuse_strangers(&target, volume, &kept, snapshot)?;
    if target.state != HeaderState::Closed {
        let text = format!("volume {volume} is used by somebody at this moment: try again");
        return Err(VolumeError::new(VolumeErrorKind::Busy, text));
    }
    let header = rolled_back(&target, &kept, highest.next());
    let object = ObjectName::Header { volume: header.id, generation: header.generation };
    let published = io.publish(object, &header.encode(), PublishMode::Exclusive).await;
    published.map_err(|error| VolumeError::from_store(error, format!("cannot roll volume {volume} back")))?;
    // Whoever broke that lock while the header was on its way may have had the snapshot's objects removed: then the older header is the
    // only one that leads to something.
    confirm(store, kept_lease, snapshot)?;
    // Now it is outdated; an opening would remove it as well.
    let outdated = ObjectName::Header { volume: target.id, generation: target.generation };
    if let Err(error) = io.remove(outdated).await {
        tracing::warn!(%volume, %error, "an outdated header stays until the next opening");
    }
    Ok(())
}

fn rolled_back(target: &Header, kept: &Header, generation: crate::units::Generation) -> Header {
    // Below the limit any epoch may have been used.
    let shared_epoch = target.epoch_limit;
    Header {
        generation,
        size: kept.size,
        shared_epoch,
        epoch: Epoch(shared_epoch.0 + 1),
        epoch_limit: Epoch(shared_epoch.0 + 2),
        live_bytes: kept.live_bytes,
        root: kept.root,
        content: kept.content,
        receiving: None,
        ..target.clone()
    }
}

fn refuse_strangers(
    target: &Header,
    volume: &VolumeName,
    kept: &Header,
    snapshot: &VolumeName,
) -> Result<(), VolumeError> {
    let refuse = |text| Err(VolumeError::new(VolumeErrorKind::OutOfRange, text));
    if target.kind == VolumeKind::Snapshot {
        return refuse(format!(
            "{volume} is a snapshot, which never changes: name the volume first, then the snapshot"
        ));
    }
    if kept.kind != VolumeKind::Snapshot {
        return refuse(format!(
            "{snapshot} is not a snapshot: {volume} goes back to one of its own, which `archvhost tree {volume}` shows"
        ));
    }
    let is_parent = |child: &Header, parent: &Header| child.parent.is_some_and(|link| link.id == parent.id);
    if (is_parent(kept, target) || is_parent(target, kept)) && target.object_size == kept.object_size {
        return Ok(());
    }
    refuse(format!(
        "{snapshot} is neither a snapshot of {volume} nor what {volume} was cloned from: `archvhost clone {snapshot} NEW` makes a \
         volume of it"
    ))
}
