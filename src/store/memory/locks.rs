//! Volume locks within one process: held for as long as any clone of the lease lives.

use crate::store::{Lease, LockMode, Seized, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Default)]
pub(crate) struct Locks {
    records: Mutex<HashMap<VolumeId, Record>>,
}

/// What leases keep. Not of size zero, so that each has an address of its own.
#[derive(Default)]
struct Kept {
    _address: u8,
}

#[derive(Default)]
struct Record {
    /// Upgradable for as long as the lease is held, or any reader's is.
    held: Weak<Kept>,
    readers: Weak<Kept>,
    /// Of the last lease that was exclusive.
    holder: Option<Vec<u8>>,
}

impl Locks {
    /// See [`Store::lock`](crate::store::Store::lock).
    pub(crate) fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        let mut records = self.records();
        let record = records.entry(volume).or_default();
        let refuse = |kind| Err(StoreError::new(kind, "lock", format_args!("volume {volume}")));
        let readers = record.readers.upgrade();
        let mut replaced = None;
        let keep = match (mode, readers) {
            _ if record.held.strong_count() != 0 => return refuse(StoreErrorKind::Held),
            (LockMode::Exclusive | LockMode::ExclusiveToFree, Some(_)) => return refuse(StoreErrorKind::BeingRead),
            (LockMode::Exclusive | LockMode::ExclusiveToFree, None) => {
                let keep = Arc::<Kept>::default();
                record.held = Arc::downgrade(&keep);
                replaced = record.holder.replace(holder.to_vec());
                keep
            }
            (LockMode::Shared, readers) => {
                let keep = readers.unwrap_or_default();
                record.readers = Arc::downgrade(&keep);
                keep
            }
        };
        Ok(Lease { volume, keep, replaced, locked: None })
    }

    /// See [`Store::seize`](crate::store::Store::seize).
    pub(crate) fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        let mut records = self.records();
        let record = records.entry(volume).or_default();
        if record.holder.as_deref() != from {
            let error = StoreError::new(StoreErrorKind::Held, "seize the lock of", format_args!("volume {volume}"));
            return Err(error);
        }
        let keep = Arc::<Kept>::default();
        let replaced = record.holder.take();
        *record = Record { held: Arc::downgrade(&keep), readers: Weak::new(), holder: Some(holder.to_vec()) };
        Ok(Seized { lease: Lease { volume, keep, replaced, locked: None }, fenced: false })
    }

    /// See [`Store::confirm`](crate::store::Store::confirm).
    pub(crate) fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        let records = self.records();
        let is_it = |kept: &Weak<Kept>| kept.as_ptr().cast::<()>() == Arc::as_ptr(&lease.keep).cast::<()>();
        match records.get(&lease.volume) {
            Some(record) if is_it(&record.held) || is_it(&record.readers) => Ok(()),
            _ => {
                Err(StoreError::new(StoreErrorKind::Lost, "keep the lock of", format_args!("volume {}", lease.volume)))
            }
        }
    }

    /// See [`Store::record`](crate::store::Store::record).
    pub(crate) fn record(&self, lease: &Lease, holder: &[u8]) {
        self.records().entry(lease.volume).or_default().holder = Some(holder.to_vec());
    }

    /// See [`Store::holder`](crate::store::Store::holder).
    pub(crate) fn holder(&self, volume: VolumeId) -> Option<Vec<u8>> {
        self.records().get(&volume).and_then(|record| record.holder.clone())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<VolumeId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
