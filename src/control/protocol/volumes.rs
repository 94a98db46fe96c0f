//! What is known of volumes, and what came of making and copying them.

use crate::admin::export::ExportReport;
use crate::admin::import::ImportReport;
use crate::admin::info::{ParentInfo, VolumeInfo, VolumeState};
use crate::control::failure::Failure;
use crate::map::format::header::{Limits, VolumeKind};
use crate::volume::VolumeError;
use serde::{Deserialize, Serialize};

/// Members that a daemon of another version does not send have no value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeView {
    pub name: String,
    pub id: String,
    pub size: u64,
    pub object_size: u64,
    /// `disk` or `snapshot`.
    pub kind: String,
    /// `closed`, `open` or `removing`.
    pub state: String,
    pub holder: Option<HolderView>,
    pub created: u64,
    pub parent: Option<ParentView>,
    /// Other volumes were made from it.
    pub shared: bool,
    /// A holder that was cut off may still write objects of it.
    pub unfenced: bool,
    /// A transfer into it is not complete.
    pub receiving: bool,
    pub limits: LimitsView,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentView {
    pub id: String,
    /// Null when it was removed.
    pub name: Option<String>,
}

/// Per second, and at once after a rest; zero is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsView {
    pub iops: u64,
    pub iops_burst: u64,
    pub bytes: u64,
    pub bytes_burst: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub host: String,
    pub pid: u32,
}

/// One element of `list`: a volume, or why it cannot be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ListEntryView {
    /// First, because every member of a volume may be missing, so this would be taken for one.
    Unreadable {
        name: String,
        error: Failure,
    },
    Volume(VolumeView),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportView {
    #[serde(flatten)]
    pub volume: VolumeView,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportView {
    pub name: String,
    pub size: u64,
    pub bytes_written: u64,
}

impl From<VolumeInfo> for VolumeView {
    fn from(info: VolumeInfo) -> Self {
        let state = match info.state {
            VolumeState::Closed => "closed",
            VolumeState::Open => "open",
            VolumeState::Removing => "removing",
        };
        let kind = match info.kind {
            VolumeKind::Disk => "disk",
            VolumeKind::Snapshot => "snapshot",
        };
        Self {
            name: info.name.to_string(),
            id: info.id.to_string(),
            size: info.size.bytes(),
            object_size: info.object_size.bytes(),
            kind: kind.into(),
            state: state.into(),
            holder: info.holder.map(|holder| HolderView { host: holder.host, pid: holder.pid }),
            created: info.created,
            parent: info.parent.map(ParentView::from),
            shared: info.shared,
            unfenced: info.unfenced,
            receiving: info.receiving,
            limits: info.limits.into(),
        }
    }
}

impl From<ParentInfo> for ParentView {
    fn from(parent: ParentInfo) -> Self {
        Self { id: parent.id.to_string(), name: parent.name.map(|name| name.to_string()) }
    }
}

impl From<Limits> for LimitsView {
    fn from(Limits { iops, iops_burst, bytes, bytes_burst }: Limits) -> Self {
        Self { iops, iops_burst, bytes, bytes_burst }
    }
}

impl ListEntryView {
    pub fn new((name, info): (crate::units::VolumeName, Result<VolumeInfo, VolumeError>)) -> Self {
        match info {
            Ok(info) => Self::Volume(info.into()),
            Err(error) => Self::Unreadable { name: name.to_string(), error: error.into() },
        }
    }
}

impl From<ImportReport> for ImportView {
    fn from(report: ImportReport) -> Self {
        Self { volume: report.volume.into(), bytes_written: report.written }
    }
}

impl ExportView {
    pub fn new(name: String, report: ExportReport) -> Self {
        Self { name, size: report.size, bytes_written: report.written }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::failure::FailureKind;

    #[test]
    fn a_volume_that_cannot_be_read_is_not_taken_for_one_that_can() {
        let error = Failure::new(FailureKind::NotFound, "making it was interrupted");
        let sent = serde_json::to_value(ListEntryView::Unreadable { name: "web1".into(), error }).unwrap();
        let received: ListEntryView = serde_json::from_value(sent).unwrap();
        assert!(matches!(received, ListEntryView::Unreadable { .. }));
        let sent = serde_json::to_value(ListEntryView::Volume(VolumeView::default())).unwrap();
        assert!(matches!(serde_json::from_value(sent).unwrap(), ListEntryView::Volume(_)));
    }
}
