//! Volume locks within one process: held for as long as any clone of the lease lives.

use crate::store::{Lease, LockMode, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Default)]
pub(crate) struct Locks {
    records: Mutex<HashMap<VolumeId, Record>>,
}

#[derive(Default)]
struct Record {
    /// Upgradable for as long as the lease is held, or any reader's is.
    held: Weak<()>,
    readers: Weak<()>,
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
        let keep = match (mode, readers) {
            _ if record.held.strong_count() != 0 => return refuse(StoreErrorKind::Held),
            (LockMode::Exclusive, Some(_)) => return refuse(StoreErrorKind::BeingRead),
            (LockMode::Exclusive, None) => {
                let keep = Arc::new(());
                record.held = Arc::downgrade(&keep);
                record.holder = Some(holder.to_vec());
                keep
            }
            (LockMode::Shared, readers) => {
                let keep = readers.unwrap_or_default();
                record.readers = Arc::downgrade(&keep);
                keep
            }
        };
        Ok(Lease { volume, keep, locked: None })
    }

    /// See [`Store::holder`](crate::store::Store::holder).
    pub(crate) fn holder(&self, volume: VolumeId) -> Option<Vec<u8>> {
        self.records().get(&volume).and_then(|record| record.holder.clone())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<VolumeId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
