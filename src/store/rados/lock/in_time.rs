//! A bound for taking a lock: librados waits for silent monitors and OSDs for as long as they are silent.
//!
//! Nothing is cancelled, for what was sent may still happen. A thread goes on with it, and a lock that it has too late it gives back.
//! Seizing has no such bound: it takes the lock from somebody, and an operator who stops waiting ends the process.

use super::gone::Reach;
use super::{Locks, take, volume_text};
use crate::store::{Lease, LockMode, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Longer than it takes to see that a holder is gone, cut it off and have its lock.
const ANSWER_MAX: Duration = Duration::from_secs(50);

/// As [`take`], in time.
///
/// # Errors
/// As [`take`]; [`StoreErrorKind::Unavailable`] when the cluster does not answer.
pub(super) fn take_in_time(
    locks: &Arc<Locks>,
    volume: VolumeId,
    (mode, holder): (LockMode, &[u8]),
    reach: Reach,
) -> Result<Lease, StoreError> {
    let (locks, holder) = (Arc::clone(locks), holder.to_vec());
    let (taken, answer) = mpsc::channel();
    let thread = thread::Builder::new().name("lock".to_owned()).spawn(move || {
        let lease = take(&locks, volume, (mode, &holder), reach);
        // Before whoever waits goes on, and may be the last to use the store (blocking.rs).
        drop(locks);
        let _given_back_when_nobody_waits = taken.send(lease);
    });
    thread.map_err(|error| StoreError::from_io(error, "start a thread to lock", volume_text(volume)))?;
    answer.recv_timeout(ANSWER_MAX).unwrap_or_else(|_| {
        let why = io::Error::other(format!("the cluster did not answer within {} s", ANSWER_MAX.as_secs()));
        Err(StoreError::from_io(why, "lock", volume_text(volume)).with_kind(StoreErrorKind::Unavailable))
    })
}
