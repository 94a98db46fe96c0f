//! The volume's lock, had by one process, for itself or for reading. It belongs to a process and, by rule C5, to every operation that the process submitted under it: a
//! successor gets it only when the last of them has ended.

use super::pending::Incarnation;
use super::{State, World};
use archvhost::store::{Lease, LockMode, StoreError, StoreErrorKind};
use archvhost::units::VolumeId;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    owner: Incarnation,
    /// Leases that share it; none when it is exclusive.
    readers: usize,
}

/// Gives the lock back when the last clone of the lease is gone, if its process still lives.
struct Unlock {
    world: World,
    volume: VolumeId,
    owner: Incarnation,
    mode: LockMode,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut state = self.world.state();
        if state.incarnation != self.owner {
            return;
        }
        match (self.mode, state.locks.get_mut(&self.volume)) {
            (LockMode::Shared, Some(lock)) if lock.readers > 1 => lock.readers -= 1,
            _ => drop(state.locks.remove(&self.volume)),
        }
    }
}

impl World {
    /// Takes the lock for the living process. While a dead process's operations are still in flight it may wait for them
    /// or, as a lock attempt that does not block, report the volume as held.
    pub(super) fn lock(
        &self,
        owner: Incarnation,
        volume: VolumeId,
        mode: LockMode,
        holder: &[u8],
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        let refused = |kind| StoreError::new(kind, "lock", format!("volume {volume}"));
        let held = || refused(StoreErrorKind::Held);
        if owner != state.incarnation {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "lock", format!("volume {volume}")));
        }
        let readers = match (mode, state.locks.get(&volume).filter(|lock| lock.owner == owner)) {
            (_, Some(Lock { readers: 0, .. })) => return Err(held()),
            (LockMode::Exclusive, Some(_)) => return Err(refused(StoreErrorKind::BeingRead)),
            (LockMode::Exclusive, None) => 0,
            (LockMode::Shared, there) => 1 + there.map_or(0, |lock| lock.readers),
        };
        while state.has_late_io(volume) {
            if state.rng.one_in(20) {
                return Err(held());
            }
            state.step();
        }
        state.locks.insert(volume, Lock { owner, readers });
        if mode == LockMode::Exclusive {
            state.holders.insert(volume, holder.to_vec());
            state.rules.lease_taken(volume);
        }
        let keep = Arc::new(Unlock { world: self.clone(), volume, owner, mode });
        Ok(Lease { volume, keep, locked: None })
    }
}

impl World {
    /// Takes the lock although a dead process's operations are still in flight.
    pub(super) fn seize(
        &self,
        owner: Incarnation,
        volume: VolumeId,
        from: Option<&[u8]>,
        holder: &[u8],
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        if owner != state.incarnation || state.holders.get(&volume).map(Vec::as_slice) != from {
            return Err(StoreError::new(StoreErrorKind::Held, "seize the lock of", format!("volume {volume}")));
        }
        state.locks.insert(volume, Lock { owner, readers: 0 });
        state.holders.insert(volume, holder.to_vec());
        state.rules.lease_taken(volume);
        let keep = Arc::new(Unlock { world: self.clone(), volume, owner, mode: LockMode::Exclusive });
        Ok(Lease { volume, keep, locked: None })
    }

    pub(super) fn confirm(&self, owner: Incarnation, lease: &Lease) -> Result<(), StoreError> {
        let state = self.state();
        let there = state.locks.get(&lease.volume).is_some_and(|lock| lock.owner == owner);
        let lost = || StoreError::new(StoreErrorKind::Lost, "keep the lock of", format!("volume {}", lease.volume));
        there.then_some(()).ok_or_else(lost)
    }
}

impl State {
    fn has_late_io(&self, volume: VolumeId) -> bool {
        let late = |origin: super::Origin| origin.lease == Some(volume) && origin.incarnation != self.incarnation;
        !self.habits.lock_ignores_late_io && self.pending.iter().any(|pending| late(pending.origin))
    }
}
