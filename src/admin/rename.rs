//! `rename`: a volume, disk or snapshot, gets another name, and its old one is free.
//!
//! ```text
//!   lock ─► new name record, exclusively ─► header g+1 with the new name ─► old record removed, synced ─► older headers removed
//!                                            ▲ from here on the new name counts
//! ```
//! The volume has a name at every moment, and never two that count (`volume::naming`). A crash leaves at most a record that
//! does not count: the same command goes on from there, and `check --repair` removes it.
//!
//! The lock is the writer's: a volume that is attached, read or held anywhere is refused, and the text says by whom.

use crate::map::format::header::{Header, HeaderState};
use crate::map::format::name as name_record;
use crate::store::io::{self, Io};
use crate::store::{Lease, ObjectName, PublishMode, Store, StoreError, StoreErrorKind};
use crate::units::{Generation, VolumeId, VolumeName};
use crate::volume::lease::{self, LeaseOptions, Taken};
use crate::volume::naming::{self, taken};
use crate::volume::open::{find, header_generations, read_header_of, refuse_removed};
use crate::volume::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use std::sync::Arc;

enum Step {
    Done,
    /// Its last holder died: it must be opened and closed first, because a header with another generation would have none
    /// of that holder's journals.
    Recover,
}

/// # Errors
/// When there is no volume `from`, somebody uses it, there is a volume `to`, or the store fails; one of the two names leads to the
/// volume all the same.
pub fn rename(
    store: &Arc<dyn Store>,
    from: &VolumeName,
    to: &VolumeName,
    options: &OpenOptions,
) -> Result<(), VolumeError> {
    if from == to {
        return Err(taken(to));
    }
    match try_rename(store, from, to, &options.lease)? {
        Step::Done => return Ok(()),
        Step::Recover => {
            let options = OpenOptions { access: Access::ReadWrite, ..options.clone() };
            Volume::open(store, from, &options)?.close()?;
        }
    }
    match try_rename(store, from, to, &options.lease)? {
        Step::Done => Ok(()),
        Step::Recover => Err(VolumeError::new(VolumeErrorKind::Busy, format!("volume {from} was opened meanwhile"))),
    }
}

/// # Errors
/// When there is a volume of this name, or the store cannot tell.
pub(super) fn refuse_taken(store: &Arc<dyn Store>, name: &VolumeName) -> Result<(), VolumeError> {
    io::block_on(store, None, |io| async move { naming::refuse_taken(&io, name).await })
}

fn try_rename(
    store: &Arc<dyn Store>,
    from: &VolumeName,
    to: &VolumeName,
    options: &LeaseOptions,
) -> Result<Step, VolumeError> {
    let id = io::block_on(store, None, |io| async move { find(&io, from).await })?;
    let Taken { lease, .. } = lease::take(store, id, from, options, None)?;
    let held = &lease;
    io::block_on(
        store,
        Some(held),
        |io| async move { Renaming { io: &io, store, lease: held, id, from, to }.run().await },
    )
}

struct Renaming<'a> {
    io: &'a Io,
    store: &'a Arc<dyn Store>,
    lease: &'a Lease,
    id: VolumeId,
    from: &'a VolumeName,
    to: &'a VolumeName,
}

impl Renaming<'_> {
    async fn run(&self) -> Result<Step, VolumeError> {
        let (io, from) = (self.io, self.from);
        // Looked up again: until the lock was ours, others could rename or remove it.
        if find(io, from).await? != self.id {
            return Err(VolumeError::new(VolumeErrorKind::Busy, format!("volume {from} was replaced meanwhile")));
        }
        let (header, highest) = read_header_of(io, self.id, from).await?;
        refuse_removed(&header, from)?;
        let led = self.target().await?;
        if header.name == *self.to && led {
            // An earlier run got as far as the header.
            return self.finish(highest).await.map(|()| Step::Done);
        }
        naming::refuse_outdated(io, &header, from).await?;
        match header.state {
            HeaderState::Live | HeaderState::TakingOver { .. } => return Ok(Step::Recover),
            HeaderState::Building | HeaderState::Closed | HeaderState::Removed => {}
        }
        self.change(header, highest, led).await.map(|()| Step::Done)
    }

    /// Whether the new name leads to the volume already, as an earlier run may have left it.
    async fn target(&self) -> Result<bool, VolumeError> {
        match find(self.io, self.to).await {
            Ok(id) if id == self.id => Ok(true),
            Ok(_) => Err(taken(self.to)),
            Err(error) if error.kind() == VolumeErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn change(&self, header: Header, mut highest: Generation, led: bool) -> Result<(), VolumeError> {
        if header.name != *self.from {
            // The header must name the one that counts before there are two.
            highest = self.publish_header(&header, highest, self.from).await?;
        }
        if !led {
            self.publish_name().await?;
        }
        match self.publish_header(&header, highest, self.to).await {
            Ok(generation) => self.finish(generation).await,
            Err(error) => {
                // Whichever name the header has now, one record alone counts.
                let _ = self.remove_name(self.to).await;
                Err(error)
            }
        }
    }

    async fn publish_name(&self) -> Result<(), VolumeError> {
        let (object, record) = (ObjectName::Name(self.to.clone()), name_record::encode(self.id));
        let published = self.io.publish(object, &record, PublishMode::Exclusive).await;
        published.map_err(|error| match error.kind() {
            StoreErrorKind::Exists => taken(self.to),
            _ => self.failed(error),
        })
    }

    /// Returns the new header's generation.
    async fn publish_header(
        &self,
        header: &Header,
        highest: Generation,
        name: &VolumeName,
    ) -> Result<Generation, VolumeError> {
        let generation = highest.next();
        let header = Header { generation, name: name.clone(), ..header.clone() };
        let object = ObjectName::Header { volume: self.id, generation };
        let published = self.io.publish(object, &header.encode(), PublishMode::Exclusive).await;
        published.map_err(|error| match error.kind() {
            StoreErrorKind::Exists => {
                let text = format!("volume {} was taken over by another holder", self.from);
                VolumeError::new(VolumeErrorKind::Held, text)
            }
            _ => self.failed(error),
        })?;
        Ok(generation)
    }

    /// What is left to do once the header has the new name.
    async fn finish(&self, generation: Generation) -> Result<(), VolumeError> {
        self.remove_name(self.from).await?;
        let old = ObjectName::Name(self.from.clone());
        self.io.sync(vec![old]).await.map_err(|error| self.failed(error))?;
        // A snapshot is never opened for writing, which is when older headers are removed otherwise.
        let Ok(generations) = header_generations(self.io, self.id).await else { return Ok(()) };
        for older in generations.into_iter().filter(|older| *older < generation) {
            let object = ObjectName::Header { volume: self.id, generation: older };
            if let Err(error) = self.io.remove(object).await {
                tracing::warn!(volume = %self.to, %error, "an older header stays");
            }
        }
        Ok(())
    }

    /// Whoever broke the lock meanwhile may have given the name to another volume: so the lock is looked at right before.
    async fn remove_name(&self, name: &VolumeName) -> Result<(), VolumeError> {
        lease::confirm(self.store, self.lease, self.from)?;
        self.io.remove(ObjectName::Name(name.clone())).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: StoreError) -> VolumeError {
        VolumeError::from_store(error, format!("cannot give volume {} the name {}", self.from, self.to))
    }
}

#[cfg(test)]
mod tests;
