//! Volumes that the daemon holds whether it serves them or not: `open` and `lock`, for orchestrators that decide elsewhere who has a
//! volume when.
//!
//! ```text
//!   open ─► Taking ─► Open(volume) ── attach: serves this very volume; detach leaves it open
//!                        └── close ─► Releasing ─► (gone)
//!   lock ─► Taking ─► Locked(lease) ── unlock ─► (gone)       nobody opens it, this daemon included
//! ```
//! Taking and Releasing keep the volume's place while the registry's lock is not held.

use super::ExportError;
use super::registry::{Entries, Registry};
use crate::store::{Lease, io};
use crate::units::VolumeName;
use crate::volume::lease::{self, CutOff};
use crate::volume::open::find;
use crate::volume::{Access, OpenOptions, Volume};
use std::sync::Arc;

/// What the daemon has of a volume that it holds.
pub(super) enum Held {
    Taking,
    Open(Arc<Volume>),
    Locked { _lease: Lease },
    Releasing,
}

/// Why a volume is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldAs {
    Open,
    Locked,
}

/// A volume that is held, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldStatus {
    pub volume: VolumeName,
    pub held_as: HeldAs,
}

impl Registry {
    /// Opens the volume and keeps it open, served or not, until [`Registry::close`]. Does nothing when it is held open already. Blocks.
    ///
    /// # Errors
    /// When it is locked here, served read-only, or cannot be opened.
    pub fn open(&self, volume: &VolumeName) -> Result<(), ExportError> {
        {
            let mut entries = self.lock();
            match entries.held.get(volume) {
                Some(Held::Open(_)) => return Ok(()),
                Some(held) => return Err(held.in_the_way(volume)),
                None => {}
            }
            if let Some(served) = entries.served(volume)? {
                entries.held.insert(volume.clone(), Held::Open(served));
                return Ok(());
            }
            entries.hold(volume)?;
        }
        let options = OpenOptions { access: Access::ReadWrite, ..self.options.open.clone() };
        let opened = Volume::open(&self.store, volume, &options);
        self.keep(volume, opened.map(Held::Open).map_err(ExportError::from))
    }

    /// Closes a volume that [`Registry::open`] opened. Blocks.
    ///
    /// # Errors
    /// When it is not held open, or served; or could not be closed in order (it is closed all the same).
    pub fn close(&self, volume: &VolumeName) -> Result<(), ExportError> {
        let open = {
            let mut entries = self.lock();
            let open = match entries.held.get(volume) {
                Some(Held::Open(open)) => Arc::clone(open),
                Some(held @ (Held::Taking | Held::Releasing)) => return Err(held.in_the_way(volume)),
                Some(Held::Locked { .. }) | None => return Err(ExportError::NotOpen(volume.clone())),
            };
            entries.refuse_attached(volume)?;
            entries.held.insert(volume.clone(), Held::Releasing);
            open
        };
        let closed = open.close();
        // The lease goes back before the place does.
        drop(open);
        self.lock().held.remove(volume);
        tracing::info!(%volume, "closed");
        Ok(closed?)
    }

    /// Takes the volume's lease without opening it: until [`Registry::unlock`] nobody does. Does nothing when it is locked already.
    ///
    /// # Errors
    /// When there is no such volume, or somebody uses it.
    pub fn lock_volume(&self, volume: &VolumeName) -> Result<(), ExportError> {
        {
            let mut entries = self.lock();
            match entries.held.get(volume) {
                Some(Held::Locked { .. }) => return Ok(()),
                Some(held) => return Err(held.in_the_way(volume)),
                None => {}
            }
            entries.refuse_attached(volume)?;
            entries.hold(volume)?;
        }
        let taken = io::block_on(&self.store, None, |io| async move { find(&io, volume).await })
            .and_then(|id| lease::take(&self.store, id, volume, &self.options.open.lease, None));
        self.keep(volume, taken.map(|taken| Held::Locked { _lease: taken.lease }).map_err(ExportError::from))
    }

    /// Gives back what [`Registry::lock_volume`] took.
    ///
    /// # Errors
    /// When the volume is not locked here.
    pub fn unlock(&self, volume: &VolumeName) -> Result<(), ExportError> {
        let mut entries = self.lock();
        match entries.held.get(volume) {
            Some(Held::Locked { .. }) => {
                entries.held.remove(volume);
                tracing::info!(%volume, "unlocked");
                Ok(())
            }
            Some(held @ (Held::Taking | Held::Releasing)) => Err(held.in_the_way(volume)),
            Some(Held::Open(_)) | None => Err(ExportError::NotLocked(volume.clone())),
        }
    }

    /// Cuts off whoever else has the volume. See [`lease::break_lock`]. Blocks, for as long as the fence command takes.
    ///
    /// # Errors
    /// When this daemon itself has it, there is no such volume, or the store fails.
    pub fn break_lock(&self, volume: &VolumeName) -> Result<CutOff, ExportError> {
        {
            let entries = self.lock();
            entries.refuse_attached(volume)?;
            if let Some(held) = entries.held.get(volume) {
                return Err(held.in_the_way(volume));
            }
        }
        Ok(lease::break_lock(&self.store, volume, &self.options.open.lease)?)
    }

    /// # Errors
    /// When this daemon holds it.
    pub fn refuse_held(&self, volume: &VolumeName) -> Result<(), ExportError> {
        self.lock().held.get(volume).map_or(Ok(()), |held| Err(held.in_the_way(volume)))
    }

    /// The volumes that are held, by name.
    pub fn held(&self) -> Vec<HeldStatus> {
        let held_as = |held: &Held| match held {
            Held::Open(_) => Some(HeldAs::Open),
            Held::Locked { .. } => Some(HeldAs::Locked),
            Held::Taking | Held::Releasing => None,
        };
        let entries = self.lock();
        let held = entries.held.iter().filter_map(|(volume, held)| Some((volume, held_as(held)?)));
        held.map(|(volume, held_as)| HeldStatus { volume: volume.clone(), held_as }).collect()
    }

    /// Puts what was taken into the place that was kept for it; the daemon may have been told to stop meanwhile.
    fn keep(&self, volume: &VolumeName, taken: Result<Held, ExportError>) -> Result<(), ExportError> {
        let mut entries = self.lock();
        entries.held.remove(volume);
        let held = taken?;
        if !entries.is_stopping() {
            tracing::info!(%volume, locked = matches!(held, Held::Locked { .. }), "held");
            entries.held.insert(volume.clone(), held);
            return Ok(());
        }
        drop(entries);
        if let Held::Open(open) = held {
            open.close()?;
        }
        Err(ExportError::Stopping)
    }
}

impl Held {
    /// What it is in the way of whoever wants the volume otherwise.
    pub(super) fn in_the_way(&self, volume: &VolumeName) -> ExportError {
        match self {
            Self::Taking | Self::Releasing => ExportError::Changing(volume.clone()),
            Self::Open(_) => ExportError::HeldOpen(volume.clone()),
            Self::Locked { .. } => ExportError::Locked(volume.clone()),
        }
    }
}

impl Entries {
    fn hold(&mut self, volume: &VolumeName) -> Result<(), ExportError> {
        if self.is_stopping() {
            return Err(ExportError::Stopping);
        }
        self.held.insert(volume.clone(), Held::Taking);
        Ok(())
    }

    /// The volume that an attachment is to serve, if it is held open; an error when it is held otherwise.
    pub(super) fn held_open(&self, volume: &VolumeName) -> Result<Option<Arc<Volume>>, ExportError> {
        match self.held.get(volume) {
            None => Ok(None),
            Some(Held::Open(open)) => Ok(Some(Arc::clone(open))),
            Some(held) => Err(held.in_the_way(volume)),
        }
    }

    /// Everything that is held open, to be closed.
    pub(super) fn take_held(&mut self) -> Vec<(VolumeName, Arc<Volume>)> {
        let held = std::mem::take(&mut self.held);
        let open = held.into_iter().filter_map(|(volume, held)| match held {
            Held::Open(open) => Some((volume, open)),
            Held::Taking | Held::Locked { .. } | Held::Releasing => None,
        });
        open.collect()
    }
}
