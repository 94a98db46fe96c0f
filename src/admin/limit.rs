//! `limit`: what guests may do to a volume per second, also changed while one uses it.

use super::branch::{Opened, Source};
use super::info::{VolumeInfo, info};
use crate::map::format::header::Limits;
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::capture::Amendment;
use crate::volume::{OpenOptions, Port, Volume, VolumeError, VolumeErrorKind};
use std::sync::Arc;

/// What is to be another; zero is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitChange {
    pub iops: Option<u64>,
    pub iops_burst: Option<u64>,
    pub bytes: Option<u64>,
    pub bytes_burst: Option<u64>,
}

/// Durable when it returns, and in force, where the volume is attached, for requests that wait already.
///
/// # Errors
/// When the volume is not there, is held elsewhere or is a snapshot, or a burst is wanted of what has no limit.
pub fn limit(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    change: &LimitChange,
    opened: &dyn Opened,
    options: &OpenOptions,
) -> Result<VolumeInfo, VolumeError> {
    let source = Source::open(store, name, opened, options)?;
    let limited = limit_open(&source.volume, change);
    let closed = source.close();
    limited?;
    closed?;
    info(store, name)
}

fn limit_open(volume: &Arc<Volume>, change: &LimitChange) -> Result<(), VolumeError> {
    let limits = change.of(volume.limits())?;
    let port = Port::open(volume)?;
    port.block_on(volume.amend(Amendment::Limits(limits)))
}

impl LimitChange {
    /// The limits after the change. A burst goes with its limit.
    fn of(&self, before: Limits) -> Result<Limits, VolumeError> {
        let (iops, iops_burst) = pair((self.iops, self.iops_burst), (before.iops, before.iops_burst), "requests")?;
        let (bytes, bytes_burst) = pair((self.bytes, self.bytes_burst), (before.bytes, before.bytes_burst), "bytes")?;
        Ok(Limits { iops, iops_burst, bytes, bytes_burst })
    }
}

fn pair(change: (Option<u64>, Option<u64>), before: (u64, u64), of: &str) -> Result<(u64, u64), VolumeError> {
    let rate = change.0.unwrap_or(before.0);
    match (rate, change.1) {
        (0, Some(1..)) => {
            let text = format!("a burst of {of} needs a limit of {of}");
            Err(VolumeError::new(VolumeErrorKind::OutOfRange, text))
        }
        (0, _) => Ok((0, 0)),
        (rate, burst) => Ok((rate, burst.unwrap_or(before.1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Limits = Limits { iops: 500, iops_burst: 2000, bytes: 0, bytes_burst: 0 };

    #[test]
    fn what_is_not_mentioned_stays() {
        let change = LimitChange { bytes: Some(1 << 20), ..LimitChange::default() };
        assert_eq!(change.of(BEFORE).unwrap(), Limits { bytes: 1 << 20, ..BEFORE });
    }

    #[test]
    fn a_burst_goes_with_its_limit_and_needs_one() {
        let none = LimitChange { iops: Some(0), ..LimitChange::default() };
        assert_eq!(none.of(BEFORE).unwrap(), Limits::default());
        let alone = LimitChange { bytes_burst: Some(1), ..LimitChange::default() };
        assert_eq!(alone.of(BEFORE).unwrap_err().kind(), VolumeErrorKind::OutOfRange);
    }
}
