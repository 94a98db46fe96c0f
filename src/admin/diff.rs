//! `diff`: where two snapshots of one line of descent may differ, found by comparing maps, not data.

use super::job::Job;
use crate::store::Store;
use crate::units::{ByteRange, VolumeName};
use crate::volume::{OpenOptions, VolumeError};
use std::sync::Arc;

/// A range in which `to` may differ from `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    pub range: ByteRange,
    /// In `to` it reads as zeros, and nothing holds it.
    pub zero: bool,
}

/// Calls `visit` with the differences, ascending and disjoint, until it says stop. Both must be snapshots, or closed.
///
/// # Errors
/// When one of them is not there, damaged or in use, or their object sizes differ.
pub fn diff(
    _store: &Arc<dyn Store>,
    _from: &VolumeName,
    _to: &VolumeName,
    _options: &OpenOptions,
    _visit: &mut dyn FnMut(Difference) -> Flow,
    _job: &Job,
) -> Result<(), VolumeError> {
    todo!()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    GoOn,
    Stop,
}
