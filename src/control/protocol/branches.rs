//! What came of making volumes from volumes, and how they descend from one another.

use super::volumes::VolumeView;
use crate::admin::branch::BranchReport;
use crate::admin::diff::Difference;
use crate::admin::flatten::FlattenReport;
use crate::admin::freeze::Consistency;
use crate::admin::tree::TreeNode;
use crate::daemon::branches::SnapshotReport;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotView {
    /// In the order of the request.
    pub volumes: Vec<VolumeView>,
    /// `crash-consistent`: as after a power cut. `frozen`: as after an orderly unmount.
    pub guarantee: String,
    /// How long writes waited.
    pub pause_seconds: f64,
    /// Why the guests were not frozen, where that was wanted.
    pub freeze_failure: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloneView {
    #[serde(flatten)]
    pub volume: VolumeView,
    /// How long the source's writes waited; zero where the source is not written.
    pub pause_seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlattenView {
    pub name: String,
    pub bytes_copied: u64,
    /// False when it was interrupted.
    pub finished: bool,
}

/// One line of what `diff` writes to its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeView {
    pub offset: u64,
    pub length: u64,
    /// There is nothing there now: it reads as zeros.
    pub zero: bool,
}

/// The answer of `diff`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffView {
    pub ranges: u64,
    /// Bytes in them.
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TreeView {
    pub id: String,
    /// Null when it was removed and its descendants are left.
    pub volume: Option<VolumeView>,
    /// Oldest first.
    pub children: Vec<TreeView>,
}

impl From<SnapshotReport> for SnapshotView {
    fn from(report: SnapshotReport) -> Self {
        let guarantee = match report.consistency {
            Consistency::Crash => "crash-consistent",
            Consistency::Frozen => "frozen",
        };
        Self {
            volumes: report.branch.volumes.into_iter().map(VolumeView::from).collect(),
            guarantee: guarantee.into(),
            pause_seconds: report.branch.pause.as_secs_f64(),
            freeze_failure: report.freeze_failure.map(|error| error.to_string()),
        }
    }
}

impl CloneView {
    /// `None` for a report of nothing.
    pub fn of(report: BranchReport) -> Option<Self> {
        let pause_seconds = report.pause.as_secs_f64();
        let volume = report.volumes.into_iter().next()?.into();
        Some(Self { volume, pause_seconds })
    }
}

impl FlattenView {
    pub fn new(name: String, report: FlattenReport) -> Self {
        Self { name, bytes_copied: report.copied, finished: report.finished }
    }
}

impl From<Difference> for RangeView {
    fn from(difference: Difference) -> Self {
        Self { offset: difference.range.offset, length: difference.range.len, zero: difference.zero }
    }
}

impl From<TreeNode> for TreeView {
    fn from(node: TreeNode) -> Self {
        Self {
            id: node.id.to_string(),
            volume: node.volume.map(VolumeView::from),
            children: node.children.into_iter().map(Self::from).collect(),
        }
    }
}
