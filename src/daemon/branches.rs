//! Volumes from volumes: snapshots, with guests frozen around them if wanted, clones, and what else descent is good for.

use super::{Daemon, DaemonError};
use crate::admin::branch::{BranchReport, CloneRequest, SnapshotRequest, clone, snapshot};
use crate::admin::diff::{Difference, Flow, diff};
use crate::admin::flatten::{FlattenReport, flatten};
use crate::admin::freeze::{Consistency, FreezeError, Frozen};
use crate::admin::info::{VolumeInfo, info};
use crate::admin::job::Job;
use crate::admin::remove::remove;
use crate::admin::rollback::rollback;
use crate::admin::tree::{TreeNode, tree};
use crate::units::{VolumeId, VolumeName};
use std::path::PathBuf;

/// Whose file systems are frozen while snapshots are taken.
#[derive(Debug, Clone)]
pub struct FreezeRequest {
    /// Of the guests' agents; empty when no freezing is wanted.
    pub sockets: Vec<PathBuf>,
    pub if_not_frozen: IfNotFrozen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfNotFrozen {
    /// There is no snapshot then.
    Fail,
    TakeCrashConsistent,
}

#[derive(Debug)]
pub struct SnapshotReport {
    pub branch: BranchReport,
    pub consistency: Consistency,
    /// Why it is less than was wanted.
    pub freeze_failure: Option<FreezeError>,
}

impl Daemon {
    /// All snapshots of one instant. The guests are thawed afterwards, whatever happens.
    ///
    /// # Errors
    /// When a guest cannot be frozen and that was insisted on, and as [`snapshot`]; no snapshot is there then.
    pub fn snapshot(
        &self,
        requests: &[SnapshotRequest],
        freeze: &FreezeRequest,
    ) -> Result<SnapshotReport, DaemonError> {
        let (frozen, not_frozen) = match Frozen::freeze_all(&freeze.sockets) {
            Ok(frozen) => (frozen, None),
            Err(error) if freeze.if_not_frozen == IfNotFrozen::Fail => return Err(DaemonError::NotFrozen(error)),
            Err(error) => (Vec::new(), Some(error)),
        };
        let branch = snapshot(&self.store, requests, &self.registry, &self.options.export.open);
        let thawed = Frozen::thaw_all(frozen);
        let branch = branch?;
        let freeze_failure = not_frozen.or(thawed.err());
        match freeze_failure {
            Some(error) if freeze.if_not_frozen == IfNotFrozen::Fail => Err(self.undo(&branch, error)),
            freeze_failure => {
                let frozen = !freeze.sockets.is_empty() && freeze_failure.is_none();
                let consistency = if frozen { Consistency::Frozen } else { Consistency::Crash };
                Ok(SnapshotReport { branch, consistency, freeze_failure })
            }
        }
    }

    /// # Errors
    /// See [`clone`].
    pub fn clone_volume(&self, request: &CloneRequest) -> Result<BranchReport, DaemonError> {
        Ok(clone(&self.store, request, &self.registry, &self.options.export.open)?)
    }

    /// # Errors
    /// When the volume is attached, and as [`rollback`].
    pub fn rollback(&self, volume: &VolumeName, snapshot: &VolumeName) -> Result<VolumeInfo, DaemonError> {
        self.refuse_if_attached(volume)?;
        Ok(rollback(&self.store, volume, snapshot, &self.options.export.open)?)
    }

    /// # Errors
    /// See [`diff`].
    pub fn diff(
        &self,
        from: &VolumeName,
        to: &VolumeName,
        visit: &mut dyn FnMut(Difference) -> Flow,
        job: &Job,
    ) -> Result<(), DaemonError> {
        Ok(diff(&self.store, from, to, &self.options.export.open, visit, job)?)
    }

    /// # Errors
    /// See [`flatten`].
    pub fn flatten(&self, name: &VolumeName, job: &Job) -> Result<FlattenReport, DaemonError> {
        Ok(flatten(&self.store, name, &self.registry, &self.options.export.open, job)?)
    }

    /// All families of volumes, or the one that has `member` in it.
    ///
    /// # Errors
    /// When the store cannot be listed, or has no such volume.
    pub fn tree(&self, member: Option<&VolumeName>) -> Result<Vec<TreeNode>, DaemonError> {
        let mut families = tree(&self.store)?;
        if let Some(member) = member {
            let id = info(&self.store, member)?.id;
            families.retain(|family| has(family, id));
        }
        Ok(families)
    }

    /// A snapshot that has not what was insisted on is worse than none.
    fn undo(&self, branch: &BranchReport, error: FreezeError) -> DaemonError {
        let mut left = Vec::new();
        for volume in &branch.volumes {
            if let Err(error) = remove(&self.store, &volume.name, &Job::default()) {
                tracing::warn!(volume = %volume.name, %error, "cannot remove a snapshot again");
                left.push(volume.name.to_string());
            }
        }
        if left.is_empty() {
            DaemonError::ThawedEarly(error)
        } else {
            DaemonError::SnapshotLeft { names: left.join(", "), source: error }
        }
    }
}

fn has(node: &TreeNode, id: VolumeId) -> bool {
    node.id == id || node.children.iter().any(|child| has(child, id))
}
