//! What a removed volume leaves: its index objects, when they list nothing any more, and its lock.
//!
//! Another host may be adding an entry at the same moment. So an index object is looked at, and then removed only if it
//! still has the version that was looked at; an entry that comes afterwards makes a new object.

use super::cluster::Pool;
use super::compound::WriteOp;
use super::error::Failure;
use super::home::Home;
use super::key::{self, BEHIND_SHARDS, FIRST, Key, VOLUME_SHARDS};
use super::list;
use super::lock;
use crate::store::WHOLE_STORE;
use crate::units::VolumeId;

/// Called when a header of the volume was removed. Failures leave empty objects, which harm nobody and are logged.
pub(super) fn after_header(home: &Home, volume: VolumeId) {
    if let Err(failure) = tidy(home, volume) {
        let error = failure.at("tidy up after", format_args!("volume {volume}"));
        tracing::warn!(%volume, %error, "empty index objects of a removed volume stay");
    }
}

fn tidy(home: &Home, volume: VolumeId) -> Result<(), Failure> {
    if !list::header_entries(home, volume)?.is_empty() {
        return Ok(());
    }
    // For the version of what was looked at, which librados keeps for each handle.
    let pool = home.metadata_for_a_thread().map_err(|_| Failure(libc::ENOENT))?;
    let index = key::metadata_index(volume);
    if !pool.keys(index.as_c_str(), BEHIND_SHARDS, 1)?.entries.is_empty() {
        return Ok(());
    }
    for shard in list::shards(home, volume)? {
        if !remove_if_empty(&pool, &key::data_index(volume, shard))? {
            return Ok(());
        }
        let entry = key::shard_entry(shard);
        let op = WriteOp::new(pool.library()).remove_entries([entry.as_c_str()].into_iter());
        pool.operate(index.as_c_str(), &op)?;
    }
    remove_if_empty(&pool, &index)?;
    lock::remove_unused(&home.locks, volume)
}

/// Removes the locks of volumes that never had a header, or have none any more, and that nobody holds.
pub(super) fn abandoned_locks(home: &Home) -> Result<(), Failure> {
    for digit in 0..VOLUME_SHARDS {
        for volume in list::locks(home, digit)?.into_iter().filter(|volume| *volume != WHOLE_STORE) {
            if list::header_entries(home, volume)?.is_empty() {
                lock::remove_free(&home.locks, volume)?;
            }
        }
    }
    Ok(())
}

/// Whether it is gone now.
fn remove_if_empty(pool: &Pool, index: &Key) -> Result<bool, Failure> {
    match pool.size(index.as_c_str()) {
        Err(Failure(libc::ENOENT)) => return Ok(true),
        other => other.map(drop)?,
    }
    if !pool.keys(index.as_c_str(), FIRST, 1)?.entries.is_empty() {
        return Ok(false);
    }
    let op = WriteOp::new(pool.library()).assert_version(pool.last_version()).remove();
    match pool.operate(index.as_c_str(), &op) {
        Ok(()) | Err(Failure(libc::ENOENT)) => Ok(true),
        Err(Failure(libc::ERANGE | libc::EOVERFLOW)) => Ok(false),
        Err(failure) => Err(failure),
    }
}
