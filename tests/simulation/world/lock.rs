//! The volumes' locks, each had by one process for itself, or by any number of readers. A lock belongs to a process and, by
//! rule C5, to every operation that the process submitted under it: a successor gets it only when the last of them has ended.

use super::pending::Incarnation;
use super::{State, World};
use archvhost::store::{Lease, LockMode, Seized, StoreError, StoreErrorKind};
use archvhost::units::VolumeId;
use std::sync::Arc;

/// A lock that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    number: u64,
    volume: VolumeId,
    owner: Incarnation,
    mode: LockMode,
}

/// Gives the lock back when the last clone of the lease is gone.
struct Unlock {
    world: World,
    number: u64,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        self.world.state().locks.retain(|lock| lock.number != self.number);
    }
}

impl World {
    /// Takes the lock for a living process. While a dead process's operations are still in flight it may wait for them
    /// or, as a lock attempt that does not block, report the volume as held.
    pub(super) fn lock(
        &self,
        owner: Incarnation,
        volume: VolumeId,
        mode: LockMode,
        holder: &[u8],
    ) -> Result<Lease, StoreError> {
        // There is no full store here.
        let mode = if mode == LockMode::ExclusiveToFree { LockMode::Exclusive } else { mode };
        let mut state = self.state();
        let refused = |kind| Err(StoreError::new(kind, "lock", format!("volume {volume}")));
        if !state.lives(owner) {
            return refused(StoreErrorKind::Unavailable);
        }
        let had = |mode| state.locks_of(volume).any(|lock| lock.mode == mode);
        if had(LockMode::Exclusive) {
            return refused(StoreErrorKind::Held);
        }
        if mode == LockMode::Exclusive && had(LockMode::Shared) {
            return refused(StoreErrorKind::BeingRead);
        }
        while state.has_late_io(volume) {
            if state.rng.one_in(20) {
                return refused(StoreErrorKind::Held);
            }
            state.step();
        }
        Ok(self.grant(&mut state, Lock { number: 0, volume, owner, mode }, holder))
    }

    /// Takes the lock away from whoever left the record `from`, alive or not, and from all readers.
    pub(super) fn seize(
        &self,
        owner: Incarnation,
        volume: VolumeId,
        from: Option<&[u8]>,
        holder: &[u8],
    ) -> Result<Seized, StoreError> {
        let mut state = self.state();
        if !state.lives(owner) || state.holders.get(&volume).map(Vec::as_slice) != from {
            return Err(StoreError::new(StoreErrorKind::Held, "seize the lock of", format!("volume {volume}")));
        }
        let owners: Vec<Incarnation> = state.locks_of(volume).map(|lock| lock.owner).collect();
        owners.into_iter().for_each(|owner| state.rules.lease_seized(volume, owner));
        state.locks.retain(|lock| lock.volume != volume);
        let lease = self.grant(&mut state, Lock { number: 0, volume, owner, mode: LockMode::Exclusive }, holder);
        Ok(Seized { lease, fenced: false })
    }

    fn grant(&self, state: &mut State, lock: Lock, holder: &[u8]) -> Lease {
        let number = state.next_lock;
        state.next_lock += 1;
        state.locks.push(Lock { number, ..lock });
        let mut replaced = None;
        if lock.mode == LockMode::Exclusive {
            replaced = state.holders.insert(lock.volume, holder.to_vec());
            state.rules.lease_taken(lock.volume, lock.owner);
        }
        Lease { volume: lock.volume, keep: Arc::new(Unlock { world: self.clone(), number }), replaced, locked: None }
    }

    /// Whether the lease still counts.
    pub(super) fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        let ours = lease.keep.downcast_ref::<Unlock>().map(|unlock| unlock.number);
        let state = self.state();
        if state.locks.iter().any(|lock| Some(lock.number) == ours && state.lives(lock.owner)) {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Lost, "keep the lock of", format!("volume {}", lease.volume)))
    }
}

impl State {
    /// Those of living processes.
    fn locks_of(&self, volume: VolumeId) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(move |lock| lock.volume == volume && self.lives(lock.owner))
    }

    /// Whether the process may change the volume.
    pub(super) fn has_lease(&self, process: Incarnation, volume: VolumeId) -> bool {
        self.locks_of(volume).any(|lock| lock.owner == process && lock.mode == LockMode::Exclusive)
    }

    fn has_late_io(&self, volume: VolumeId) -> bool {
        let late = |origin: super::Origin| origin.lease == Some(volume) && !self.lives(origin.incarnation);
        !self.habits.lock_ignores_late_io && self.pending.iter().any(|pending| late(pending.origin))
    }
}
