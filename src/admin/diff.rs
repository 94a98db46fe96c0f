//! `diff`: where two snapshots of one line of descent may differ, found by comparing maps, not data.

pub use crate::map::compare::Difference;

use super::job::Job;
use crate::map::compare::append;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::{Access, OpenOptions, Port, Volume, VolumeError};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    GoOn,
    Stop,
}

/// Calls `visit` with the differences, ascending and disjoint, until it says stop. Both must be snapshots, or closed. Where one
/// is longer, the other counts as zeros. The job counts bytes compared, and a cancelled one ends early.
///
/// # Errors
/// When one of them is not there, damaged or in use, or their object sizes differ.
pub fn diff(
    store: &Arc<dyn Store>,
    from: &VolumeName,
    to: &VolumeName,
    options: &OpenOptions,
    visit: &mut dyn FnMut(Difference) -> Flow,
    job: &Job,
) -> Result<(), VolumeError> {
    let options = OpenOptions { access: Access::ReadOnly, ..options.clone() };
    let from = Volume::open(store, from, &options)?;
    let to = Volume::open(store, to, &options)?;
    let port = Port::open(&to)?;
    let end = from.size().bytes().max(to.size().bytes());
    job.set_total(end);
    // The last one found waits here, because the next may go on where it ends.
    let (mut waiting, mut at) = (Vec::new(), 0);
    while let Some(part) = port.block_on(port.differences(Some(&from), at))? {
        for difference in part.differences {
            append(&mut waiting, difference);
            if waiting.len() > 1 && visit(waiting.remove(0)) == Flow::Stop {
                return Ok(());
            }
        }
        at = part.next;
        job.reached(at.min(end));
        if job.is_cancelled() {
            return Ok(());
        }
    }
    from.confirm_reads()?;
    to.confirm_reads()?;
    if let Some(last) = waiting.pop() {
        let _nothing_follows = visit(last);
    }
    job.reached(end);
    Ok(())
}
