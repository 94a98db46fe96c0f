//! `check`: whether everything that volumes name is there and whole, and what nobody names.

use super::branch::Opened;
use super::job::Job;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::VolumeError;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// All volumes when empty.
    pub volumes: Vec<VolumeName>,
    pub repair: Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    Nothing,
    /// What can be mended without guessing at data.
    Safe,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub volume: Option<VolumeName>,
    /// What is wrong, and with which object.
    pub text: String,
    pub severity: Severity,
    /// What was done about it.
    pub repaired: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Costs space only.
    Leak,
    /// Data is missing or cannot be reached.
    Damage,
}

#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    pub volumes: u64,
    pub objects: u64,
    pub findings: Vec<Finding>,
    pub cancelled: bool,
}

/// # Errors
/// When the store cannot be listed; what is found wrong is no error.
pub fn check(
    _store: &Arc<dyn Store>,
    _request: &CheckRequest,
    _opened: &dyn Opened,
    _job: &Job,
) -> Result<CheckReport, VolumeError> {
    todo!()
}
