//! What collection and checks found and did.

use crate::admin::check::{CheckReport, Finding, Severity, Unchecked};
use crate::admin::collect::CollectReport;
use serde::{Deserialize, Serialize};

/// The answer of `gc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectView {
    /// Whether `removed` means only that it would be.
    pub dry_run: bool,
    pub volumes: u64,
    pub objects_kept: u64,
    pub objects_removed: u64,
    pub bytes_removed: u64,
    /// Removed volumes of which nothing is left now.
    pub volumes_forgotten: u64,
    /// False when it was interrupted.
    pub finished: bool,
}

/// The answer of `check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckView {
    pub volumes: u64,
    pub objects: u64,
    pub findings: Vec<FindingView>,
    /// Volumes that were not looked at, because another process has them.
    pub unchecked: Vec<UncheckedView>,
    /// False when it was interrupted.
    pub finished: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UncheckedView {
    pub volume: String,
    /// Who has it.
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindingView {
    pub volume: Option<String>,
    pub text: String,
    /// `leak`: costs space only. `damage`: data is missing or cannot be reached.
    pub severity: String,
    /// What was done about it.
    pub repaired: Option<String>,
}

impl CheckView {
    /// Whether there is damage that was not repaired.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == DAMAGE && finding.repaired.is_none())
    }
}

const LEAK: &str = "leak";
const DAMAGE: &str = "damage";

impl CollectView {
    pub fn new(dry_run: bool, report: CollectReport) -> Self {
        Self {
            dry_run,
            volumes: report.volumes,
            objects_kept: report.objects_kept,
            objects_removed: report.objects_removed,
            bytes_removed: report.bytes_removed,
            volumes_forgotten: report.volumes_forgotten,
            finished: !report.cancelled,
        }
    }
}

impl From<CheckReport> for CheckView {
    fn from(report: CheckReport) -> Self {
        Self {
            volumes: report.volumes,
            objects: report.objects,
            findings: report.findings.into_iter().map(FindingView::from).collect(),
            unchecked: report.unchecked.into_iter().map(UncheckedView::from).collect(),
            finished: !report.cancelled,
        }
    }
}

impl From<Unchecked> for UncheckedView {
    fn from(unchecked: Unchecked) -> Self {
        Self { volume: unchecked.volume.to_string(), text: unchecked.text }
    }
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let severity = match finding.severity {
            Severity::Leak => LEAK,
            Severity::Damage => DAMAGE,
        };
        Self {
            volume: finding.volume.map(|name| name.to_string()),
            text: finding.text,
            severity: severity.into(),
            repaired: finding.repaired,
        }
    }
}
