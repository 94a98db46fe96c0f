//! Data that goes nowhere: for measuring everything above a store. Never for anything one wants to keep.
//!
//! What makes a volume a volume (names, headers, journals, segments) is kept in memory, so that volumes can be created and
//! opened. Data objects take every write and forget it, exist whether they were created or not, and **a read leaves its
//! buffer as it is**: filling it with zeros would measure memset. (qemu's null-co does the same unless told otherwise.)
//! A guest therefore reads back whatever its own page held.

use super::immediate::{Execute, ImmediateChannel};
use super::memory::{Locks, MemoryObjects};
use super::{
    Buffer, Channel, FreeLock, Lease, LockMode, ObjectName, Op, Outcome, Persistence, Seized, Store, StoreError,
    StoreInfo,
};
use crate::units::{ByteSize, VolumeId};
use std::sync::Arc;

/// See the module's text.
pub struct NullStore {
    info: StoreInfo,
    objects: Arc<NullObjects>,
    locks: Locks,
}

#[derive(Default)]
struct NullObjects {
    metadata: MemoryObjects,
}

impl NullStore {
    /// `size` is what [`implied_volume_size`](super::open::implied_volume_size) tells whoever makes volumes here; the
    /// store itself has no limit.
    pub fn new(size: ByteSize) -> Self {
        let info = StoreInfo {
            url: format!("null:{size}"),
            io_align: 1,
            persistent: false,
            free_lock: FreeLock::ProvesTheEnd,
            method: "data is dropped, reads leave the buffer as it is".to_owned(),
        };
        Self { info, objects: Arc::default(), locks: Locks::default() }
    }
}

impl Store for NullStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn channel(&self, _lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        Ok(Box::new(ImmediateChannel::new(Arc::clone(&self.objects))?))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.locks.lock(volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.locks.seize(volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.locks.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.locks.record(lease, holder);
        Ok(())
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.locks.holder(volume))
    }

    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Execute for NullObjects {
    fn execute(&self, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>) {
        const DATA: fn(&ObjectName) -> bool = |name| matches!(name, ObjectName::Data { .. });
        let changed = Ok(Outcome::Changed(Persistence::Durable));
        match op {
            Op::Read { object, buffer, .. } if DATA(&object) => (Ok(Outcome::Done), Some(buffer)),
            Op::Write { object, buffer, .. } | Op::Create { object, buffer, .. } if DATA(&object) => {
                (changed, Some(buffer))
            }
            Op::Zero { object, .. } if DATA(&object) => (changed, None),
            Op::Remove { object } if DATA(&object) => (Ok(Outcome::Done), None),
            Op::Stat { object } if DATA(&object) => (Ok(Outcome::Size(0)), None),
            metadata => self.metadata.execute(metadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::io::block_on;
    use crate::store::{Durability, PublishMode, StoreErrorKind};
    use crate::units::{BlockIndex, Epoch, Generation};

    #[test]
    fn data_goes_nowhere_and_metadata_stays() {
        let store: Arc<dyn Store> = Arc::new(NullStore::new(ByteSize(1 << 40)));
        let volume = VolumeId::random();
        let data = ObjectName::Data { volume, epoch: Epoch(1), block: BlockIndex(7) };
        let header = ObjectName::Header { volume, generation: Generation(1) };
        let done: Result<(), StoreError> = block_on(&store, None, |io| async move {
            let written = io.write(data.clone(), 0, Buffer::copied_from(b"gone"), Durability::Cached).await?;
            assert_eq!(written, Persistence::Durable);
            let read = io.read(data, 0, Buffer::copied_from(b"mine")).await?;
            assert_eq!(read.to_vec(), b"mine");
            assert_eq!(io.read_all(header.clone()).await.unwrap_err().kind(), StoreErrorKind::NotFound);
            io.publish(header.clone(), b"root", PublishMode::Exclusive).await?;
            assert_eq!(io.read_all(header).await?, b"root");
            Ok(())
        });
        done.unwrap();
    }
}
