//! The volume's lock. It belongs to a process and, by rule C5, to every operation that the process submitted under it: a
//! successor gets it only when the last of them has ended.

use super::pending::Incarnation;
use super::{State, World};
use archvhost::store::{Lease, StoreError, StoreErrorKind};
use archvhost::units::VolumeId;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    owner: Incarnation,
}

/// Gives the lock back when the last clone of the lease is gone, if its process still lives.
struct Unlock {
    world: World,
    volume: VolumeId,
    owner: Incarnation,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut state = self.world.state();
        let ours = Lock { owner: self.owner };
        if state.incarnation == self.owner && state.locks.get(&self.volume) == Some(&ours) {
            state.locks.remove(&self.volume);
        }
    }
}

impl World {
    /// Takes the lock for the living process. While a dead process's operations are still in flight it may wait for them
    /// or, as a lock attempt that does not block, report the volume as held.
    pub(super) fn lock(&self, owner: Incarnation, volume: VolumeId, holder: &[u8]) -> Result<Lease, StoreError> {
        let mut state = self.state();
        let held = || StoreError::new(StoreErrorKind::Held, "lock", format!("volume {volume}"));
        if owner != state.incarnation {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "lock", format!("volume {volume}")));
        }
        if state.locks.get(&volume).is_some_and(|lock| lock.owner == owner) {
            return Err(held());
        }
        while state.has_late_io(volume) {
            if state.rng.one_in(20) {
                return Err(held());
            }
            state.step();
        }
        state.locks.insert(volume, Lock { owner });
        state.holders.insert(volume, holder.to_vec());
        state.rules.lease_taken(volume);
        let keep = Arc::new(Unlock { world: self.clone(), volume, owner });
        Ok(Lease { volume, keep, locked: None })
    }
}

impl State {
    fn has_late_io(&self, volume: VolumeId) -> bool {
        let late = |origin: super::Origin| origin.lease == Some(volume) && origin.incarnation != self.incarnation;
        !self.habits.lock_ignores_late_io && self.pending.iter().any(|pending| late(pending.origin))
    }
}
