//! Volume locks within one process: held for as long as any clone of the lease lives.

use crate::store::{Lease, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Default)]
pub(crate) struct Locks {
    records: Mutex<HashMap<VolumeId, Record>>,
}

struct Record {
    /// Upgradable for as long as the lease is held.
    held: Weak<()>,
    holder: Vec<u8>,
}

impl Locks {
    /// See [`Store::lock`](crate::store::Store::lock).
    pub(crate) fn lock(&self, volume: VolumeId, holder: &[u8]) -> Result<Lease, StoreError> {
        let mut records = self.records();
        if records.get(&volume).is_some_and(|record| record.held.strong_count() != 0) {
            return Err(StoreError::new(StoreErrorKind::Held, "lock", format_args!("volume {volume}")));
        }
        let keep = Arc::new(());
        records.insert(volume, Record { held: Arc::downgrade(&keep), holder: holder.to_vec() });
        Ok(Lease { volume, keep, locked: None })
    }

    /// See [`Store::holder`](crate::store::Store::holder).
    pub(crate) fn holder(&self, volume: VolumeId) -> Option<Vec<u8>> {
        self.records().get(&volume).map(|record| record.holder.clone())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<VolumeId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
