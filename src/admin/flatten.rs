//! `flatten`: a clone gets copies of all that it shares with its parent, and needs it no more.
//!
//! Block by block, by copy-up: what other volumes' objects hold is copied into objects of its own ([`Port::detach`]), beside a guest
//! that reads and writes. Granules that are its own stay where they are. Interrupted, it goes on at the first block that still
//! needs others: finding that one out costs a look at the map.

use super::branch::Opened;
use super::job::Job;
use crate::map::entry::VolumeIndex;
use crate::store::Store;
use crate::units::{BlockIndex, ByteRange, VolumeName};
use crate::volume::capture::Amendment;
use crate::volume::{Access, OpenOptions, Port, Volume, VolumeError};
use futures_util::future::join_all;
use std::sync::Arc;

/// Blocks copied at once beside a guest: its writes wait in the same device queue, and a snapshot for the slowest (rule P13).
const BLOCKS_BESIDE_GUEST: usize = 1;

/// Blocks copied at once when nobody else uses the volume, at most 64 MiB.
const BLOCKS_ALONE: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlattenReport {
    /// Bytes copied.
    pub copied: u64,
    /// False when the job was cancelled: what was copied stays, and doing it again goes on.
    pub finished: bool,
}

/// Blocks until it is done. The job counts bytes of the volume that need nobody else any more.
///
/// # Errors
/// When the volume is not there, is held elsewhere, is a snapshot, or the store fails.
pub fn flatten(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    opened: &dyn Opened,
    options: &OpenOptions,
    job: &Job,
) -> Result<FlattenReport, VolumeError> {
    if let Some(volume) = opened.open_volume(name) {
        return detach_all(&volume, BLOCKS_BESIDE_GUEST, job);
    }
    let options = OpenOptions { access: Access::ReadWrite, ..options.clone() };
    let volume = Volume::open(store, name, &options)?;
    let detached = detach_all(&volume, BLOCKS_ALONE, job);
    let closed = volume.close();
    let report = detached?;
    closed.map(|()| report)
}

fn detach_all(volume: &Arc<Volume>, at_once: usize, job: &Job) -> Result<FlattenReport, VolumeError> {
    let port = Port::open(volume)?;
    let size = || volume.size().bytes();
    job.set_total(size());
    let (mut at, mut copied) = (0, 0);
    loop {
        if job.is_cancelled() {
            return Ok(FlattenReport { copied, finished: false });
        }
        let blocks = next_blocks(&port, &mut at, size(), at_once)?;
        if blocks.is_empty() {
            break;
        }
        let foreign = |owner: VolumeIndex, _| owner != VolumeIndex::OWN;
        // All of them end before the first failure is told.
        let detached = port.block_on(join_all(blocks.into_iter().map(|block| port.detach(block, foreign))));
        for bytes in detached {
            copied += bytes?;
        }
        job.reached(at);
    }
    port.block_on(volume.amend(Amendment::NoParent))?;
    job.reached(size());
    Ok(FlattenReport { copied, finished: true })
}

/// The next blocks that have data, at most `count`; `at` moves behind them.
fn next_blocks(port: &Port, at: &mut u64, size: u64, count: usize) -> Result<Vec<BlockIndex>, VolumeError> {
    let object_size = port.volume().object_size();
    let mut blocks = Vec::with_capacity(count);
    while blocks.len() < count && *at < size {
        let Some(piece) = port.block_on(port.allocated(ByteRange::new(*at, size - *at)))? else { break };
        let block = object_size.block_of(piece.offset);
        blocks.push(block);
        *at = (block.0 + 1).saturating_mul(object_size.bytes());
    }
    Ok(blocks)
}
