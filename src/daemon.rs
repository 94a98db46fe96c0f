//! One process's work on one store: the verbs, whoever asks for them, and the attachments.
//!
//! The control socket calls these methods for its clients; the command line calls the same methods directly when no
//! daemon runs (then there are no attachments). All of them block; none may be called from a thread of the control
//! socket's runtime or from a queue's thread. Safe beside other processes: what changes a volume takes its lease.

use crate::admin::create::{CreateRequest, create};
use crate::admin::export::{ExportReport, export};
use crate::admin::freeze::FreezeError;
use crate::admin::import::{ImportReport, ImportRequest, import};
use crate::admin::increment::{StreamRequest, export_stream};
use crate::admin::info::{VolumeInfo, info, list};
use crate::admin::job::Job;
use crate::admin::limit::{LimitChange, limit};
use crate::admin::remove::{Removal, remove_as};
use crate::admin::rename::rename;
use crate::admin::resize::{ResizeRequest, resize};
use crate::admin::transfer::TransferError;
use crate::export::registry::StopFailures;
use crate::export::{AttachRequest, AttachmentStatus, ExportError, ExportOptions, Registry};
use crate::map::format::header::VolumeKind;
use crate::map::soft_journal::SoftJournal;
use crate::store::{Store, StoreError, StoreInfo};
use crate::units::{Generation, VolumeId, VolumeName};
use crate::volume::VolumeError;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub mod branches;
pub mod holding;
pub mod upkeep;

pub struct Daemon {
    store: Arc<dyn Store>,
    registry: Registry,
    options: DaemonOptions,
    started: Instant,
}

#[derive(Debug, Clone)]
pub struct DaemonOptions {
    pub export: ExportOptions,
    /// Memory for a collection's marks, and where those go that do not fit.
    pub collect_memory_bytes: u64,
    pub collect_spill_dir: PathBuf,
}

/// What a verb may answer instead of its result; each layer's error says what happened.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("no snapshot was taken (--or-crash-consistent takes one that is not frozen)")]
    NotFrozen(#[source] FreezeError),
    #[error("the snapshot was removed again, since a guest did not stay frozen until it was taken")]
    ThawedEarly(#[source] FreezeError),
    #[error("a guest did not stay frozen until the snapshot was taken: do not rely on {names}")]
    SnapshotLeft { names: String, source: FreezeError },
    #[error("volume {volume} is attached, at {endpoint}: detach it first")]
    InUse { volume: VolumeName, endpoint: String },
    #[error("interrupted: volume {0} is half removed and cannot be opened; `archvhost remove {0}` goes on with it")]
    HalfRemoved(VolumeName),
}

/// One volume of a list: one that cannot be read hides no other.
pub type ListEntry = (VolumeName, Result<VolumeInfo, VolumeError>);

impl Daemon {
    pub fn new(store: Arc<dyn Store>, options: DaemonOptions) -> Self {
        let registry = Registry::new(Arc::clone(&store), options.export.clone());
        Self { store, registry, options, started: Instant::now() }
    }

    pub fn store_info(&self) -> &StoreInfo {
        self.store.info()
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// # Errors
    /// When the name is taken or the store fails.
    pub fn create(&self, request: &CreateRequest) -> Result<VolumeInfo, DaemonError> {
        Ok(create(&self.store, request)?)
    }

    /// # Errors
    /// When the store cannot be listed.
    pub fn list(&self) -> Result<Vec<ListEntry>, DaemonError> {
        Ok(list(&self.store)?)
    }

    /// # Errors
    /// When there is no such volume, or it is damaged.
    pub fn info(&self, name: &VolumeName) -> Result<VolumeInfo, DaemonError> {
        Ok(info(&self.store, name)?)
    }

    /// # Errors
    /// When there is no such volume, somebody uses it, or the job is cancelled halfway.
    pub fn remove(&self, name: &VolumeName, job: &Job) -> Result<(), DaemonError> {
        self.refuse_if_attached(name)?;
        let id = info(&self.store, name).map(|info| info.id);
        let removal = remove_as(&self.store, name, &self.options.export.open.lease, job)?;
        if let Ok(id) = id {
            self.remove_soft_journals(id);
        }
        match removal {
            Removal::Finished | Removal::SpaceLater => Ok(()),
            Removal::Interrupted => Err(DaemonError::HalfRemoved(name.clone())),
        }
    }

    /// # Errors
    /// When the name is taken, or the image or the store fails; the volume does not exist then.
    pub fn import(&self, request: &ImportRequest, image: File, job: &Job) -> Result<ImportReport, DaemonError> {
        Ok(import(&self.store, request, &self.options.export.open, image, job)?)
    }

    /// # Errors
    /// When the volume is not there or somebody uses it, or the target cannot be written.
    pub fn export(&self, name: &VolumeName, target: File, job: &Job) -> Result<ExportReport, DaemonError> {
        self.refuse_if_written(name)?;
        Ok(export(&self.store, name, &self.options.export.open, target, job)?)
    }

    /// # Errors
    /// See [`export_stream`].
    pub fn export_stream(&self, request: &StreamRequest, target: File, job: &Job) -> Result<ExportReport, DaemonError> {
        Ok(export_stream(&self.store, request, &self.options.export.open, target, job)?)
    }

    /// # Errors
    /// When the volume is attached, and as [`rename`].
    pub fn rename(&self, name: &VolumeName, new_name: &VolumeName) -> Result<VolumeInfo, DaemonError> {
        self.refuse_if_attached(name)?;
        rename(&self.store, name, new_name, &self.options.export.open)?;
        Ok(info(&self.store, new_name)?)
    }

    /// Also while it is attached: the guest is told.
    ///
    /// # Errors
    /// See [`resize`].
    pub fn resize(&self, request: &ResizeRequest, job: &Job) -> Result<VolumeInfo, DaemonError> {
        let resized = resize(&self.store, request, &self.registry, &self.options.export.open, job);
        // Also of a shrink that failed: the guest may have seen the smaller size meanwhile.
        self.registry.capacity_changed(&request.volume);
        Ok(resized?)
    }

    /// # Errors
    /// See [`limit`].
    pub fn limit(&self, name: &VolumeName, change: &LimitChange) -> Result<VolumeInfo, DaemonError> {
        Ok(limit(&self.store, name, change, &self.registry, &self.options.export.open)?)
    }

    /// # Errors
    /// See [`Registry::attach`].
    pub fn attach(&self, request: AttachRequest) -> Result<AttachmentStatus, DaemonError> {
        Ok(self.registry.attach(request)?)
    }

    /// Attaches what the configuration asks for; a failure is logged, kept in the list, and hinders nobody.
    pub fn attach_configured(&self, request: AttachRequest) {
        let volume = request.volume.clone();
        if let Err(error) = self.registry.attach_or_keep_failure(request) {
            tracing::error!(%volume, error = %error, cause = error_cause(&error), "cannot attach a configured volume");
        }
    }

    /// # Errors
    /// See [`Registry::detach`] and [`Registry::detach_at`].
    pub fn detach(&self, name: &VolumeName, socket: Option<&Path>) -> Result<(), DaemonError> {
        match socket {
            Some(socket) => self.registry.detach_at(name, socket)?,
            None => self.registry.detach(name)?,
        }
        Ok(())
    }

    pub fn attachments(&self) -> Vec<AttachmentStatus> {
        self.registry.attachments()
    }

    /// See [`Registry::wait_until_over`].
    pub fn wait_until_over(&self, name: &VolumeName) {
        self.registry.wait_until_over(name);
    }

    /// The orderly end: drains and closes every attachment. Blocks.
    pub fn stop(&self) -> StopFailures {
        self.registry.stop_all()
    }

    /// A holder that died left them; nobody will read them now.
    fn remove_soft_journals(&self, id: VolumeId) {
        let every = Generation(u64::MAX);
        match SoftJournal::remove_through(&self.options.export.open.soft_journal_dir, id, every) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(volume = %id, %error, "cannot remove the soft journals of a removed volume");
            }
            _ => {}
        }
    }

    fn refuse_if_written(&self, name: &VolumeName) -> Result<(), DaemonError> {
        let snapshot = info(&self.store, name).is_ok_and(|info| info.kind == VolumeKind::Snapshot);
        if snapshot { Ok(()) } else { self.refuse_if_attached(name) }
    }

    fn refuse_if_attached(&self, name: &VolumeName) -> Result<(), DaemonError> {
        let attached = self.registry.attachments().into_iter().find(|attachment| attachment.volume == *name);
        match attached {
            Some(status) => Err(DaemonError::InUse { volume: status.volume, endpoint: status.endpoint }),
            None => Ok(self.registry.refuse_held(name)?),
        }
    }
}

fn error_cause(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(ToString::to_string)
}
