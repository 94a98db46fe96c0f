//! Volumes from volumes.

use crate::admin::branch::{CloneRequest, SnapshotRequest};
use crate::admin::diff::{Difference, Flow};
use crate::admin::job::Job;
use crate::admin::stream;
use crate::control::failure::{Failure, FailureKind};
use crate::control::protocol::branches::{CloneView, DiffView, FlattenView, RangeView, SnapshotView, TreeView};
use crate::control::protocol::params::{
    CloneParams, DiffParams, NameParams, RollbackParams, SnapshotOf, SnapshotParams, TreeParams,
};
use crate::control::protocol::volumes::VolumeView;
use crate::daemon::branches::{FreezeRequest, IfNotFrozen};
use crate::daemon::{Daemon, DaemonError};
use crate::units::{VolumeName, VolumeSize};
use std::fs::File;
use std::path::PathBuf;

/// Volumes in one group: each is captured at the same instant, and more than anybody's disks would only be a mistake.
const GROUP_MAX: usize = 64;

pub(super) fn snapshot(daemon: &Daemon, params: SnapshotParams) -> Result<SnapshotView, Failure> {
    let requests = params.snapshots.iter().map(snapshot_request).collect::<Result<Vec<_>, _>>()?;
    if requests.is_empty() || requests.len() > GROUP_MAX {
        let text = format!("one request takes 1 to {GROUP_MAX} snapshots, and not {}", requests.len());
        return Err(Failure::new(FailureKind::Usage, text));
    }
    let if_not_frozen = if params.or_crash_consistent { IfNotFrozen::TakeCrashConsistent } else { IfNotFrozen::Fail };
    let sockets = params.freeze_via.into_iter().map(agent_socket).collect::<Result<_, _>>()?;
    Ok(daemon.snapshot(&requests, &FreezeRequest { sockets, if_not_frozen })?.into())
}

fn snapshot_request(params: &SnapshotOf) -> Result<SnapshotRequest, Failure> {
    Ok(SnapshotRequest { volume: VolumeName::new(&params.volume)?, name: VolumeName::new(&params.name)? })
}

fn agent_socket(path: String) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(path);
    let refused = || {
        Failure::new(FailureKind::Usage, format!("the agent's socket must be absolute, and {} is not", path.display()))
    };
    if path.is_absolute() { Ok(path) } else { Err(refused()) }
}

pub(super) fn clone(daemon: &Daemon, params: CloneParams) -> Result<CloneView, Failure> {
    let request = CloneRequest {
        source: VolumeName::new(&params.source)?,
        name: VolumeName::new(&params.name)?,
        size: params.size.map(VolumeSize::new).transpose()?,
    };
    let report = daemon.clone_volume(&request)?;
    Ok(CloneView::of(report).expect("a clone that was made is reported"))
}

pub(super) fn rollback(daemon: &Daemon, params: RollbackParams) -> Result<VolumeView, Failure> {
    Ok(daemon.rollback(&VolumeName::new(&params.name)?, &VolumeName::new(&params.snapshot)?)?.into())
}

pub(super) fn flatten(daemon: &Daemon, params: NameParams, job: &Job) -> Result<FlattenView, Failure> {
    let report = daemon.flatten(&VolumeName::new(&params.name)?, job)?;
    Ok(FlattenView::new(params.name, report))
}

pub(super) fn tree(daemon: &Daemon, params: TreeParams) -> Result<Vec<TreeView>, Failure> {
    let member = params.name.as_deref().map(VolumeName::new).transpose()?;
    Ok(daemon.tree(member.as_ref())?.into_iter().map(TreeView::from).collect())
}

/// The ranges go to `target` as they are found; there may be millions of them.
pub(super) fn diff(daemon: &Daemon, params: DiffParams, target: File, job: &Job) -> Result<DiffView, Failure> {
    let (from, to) = (VolumeName::new(&params.from)?, VolumeName::new(&params.to)?);
    let mut lines = Lines { target, job, pending: Vec::new(), sum: DiffView::default(), failed: None };
    let visited = daemon.diff(&from, &to, &mut |difference| lines.add(difference), job);
    lines.flush();
    if job.is_cancelled() {
        let text = format!("interrupted: the differences of {from} and {to} are not all there");
        return Err(Failure::new(FailureKind::Cancelled, text));
    }
    visited?;
    lines.failed.map_or(Ok(lines.sum), Err)
}

/// So many bytes of lines are written at once.
const LINES_BYTES: usize = 64 << 10;

/// JSON, one object a line.
struct Lines<'a> {
    target: File,
    job: &'a Job,
    pending: Vec<u8>,
    sum: DiffView,
    failed: Option<Failure>,
}

impl Lines<'_> {
    fn add(&mut self, difference: Difference) -> Flow {
        let range = RangeView::from(difference);
        self.sum.ranges += 1;
        self.sum.bytes += range.length;
        if serde_json::to_writer(&mut self.pending, &range).is_ok() {
            self.pending.push(b'\n');
        }
        if self.pending.len() >= LINES_BYTES {
            self.flush();
        }
        if self.failed.is_some() { Flow::Stop } else { Flow::GoOn }
    }

    fn flush(&mut self) {
        let written = stream::write(&self.target, &self.pending, self.job);
        self.pending.clear();
        if let Err(error) = written {
            self.failed.get_or_insert(DaemonError::from(error).into());
        }
    }
}
