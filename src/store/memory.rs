//! Objects in this process's memory: for tests and for trying things out. Nothing outlives the process.
//!
//! Names are spread over shards so that threads rarely meet; all headers of a volume share a shard, which makes listing
//! volumes a matter of skipping from one to the next. An object's bytes have a lock of their own, held while they are
//! copied. Operations finish while they are submitted.

mod locks;
mod shards;

use super::immediate::{Execute, ImmediateChannel};
use super::{
    Buffer, Channel, FreeLock, Lease, LockMode, ObjectName, Op, Outcome, Persistence, PublishMode, Seized, Store,
    StoreError, StoreErrorKind, StoreInfo,
};
use crate::units::VolumeId;
pub(crate) use locks::Locks;
use shards::Shards;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// See the module's text.
pub struct MemoryStore {
    info: StoreInfo,
    objects: Arc<MemoryObjects>,
    locks: Locks,
}

/// The objects, without the store around them; the null driver keeps its metadata in one.
#[derive(Default)]
pub(crate) struct MemoryObjects {
    shards: Shards<Object>,
}

/// One object's bytes.
#[derive(Default)]
struct Object(RwLock<Vec<u8>>);

impl MemoryStore {
    pub fn new() -> Self {
        let info = StoreInfo {
            url: "memory:".to_owned(),
            io_align: 1,
            persistent: false,
            free_lock: FreeLock::ProvesTheEnd,
            method: "copies in memory".to_owned(),
        };
        Self { info, objects: Arc::default(), locks: Locks::default() }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
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

impl Execute for MemoryObjects {
    fn execute(&self, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>) {
        match op {
            Op::Read { object, offset, buffer } => (self.read(&object, offset, &buffer), Some(buffer)),
            Op::Write { object, offset, buffer, durability: _ } => (self.write(&object, offset, &buffer), Some(buffer)),
            Op::Create { object, offset, buffer, size: _ } => (self.create(object, offset, &buffer), Some(buffer)),
            Op::Zero { object, offset, len, space: _ } => (self.zero(&object, offset, len), None),
            Op::Remove { object } => {
                self.shards.remove(&object);
                (Ok(Outcome::Done), None)
            }
            Op::Sync { objects: _ } | Op::SyncAll => (Ok(Outcome::Done), None),
            Op::Publish { object, content, mode, room: _ } => (self.publish(object, &content, mode), Some(content)),
            Op::Stat { object } => (self.stat(&object), None),
            Op::List { scope, after, limit } => (Ok(Outcome::Names(self.shards.list(scope, after, limit))), None),
        }
    }
}

impl MemoryObjects {
    fn read(&self, name: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
        let object = self.find(name, "read")?;
        let bytes = object.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let present = (bytes.len() - start).min(buffer.len());
        buffer.copy_in(0, &bytes[start..start + present]);
        buffer.fill_zero(present, buffer.len() - present);
        Ok(Outcome::Done)
    }

    fn write(&self, name: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
        let object = self.find(name, "write")?;
        fill(&mut object.bytes_mut(), name, offset, buffer)
    }

    fn create(&self, name: ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
        let object = Object::default();
        let outcome = fill(&mut object.bytes_mut(), &name, offset, buffer)?;
        self.insert_new(name, object, "create").map(|()| outcome)
    }

    fn zero(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Outcome, StoreError> {
        let object = self.find(name, "zero")?;
        let mut bytes = object.bytes_mut();
        let within = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        let range = within(offset)..within(offset.saturating_add(len));
        bytes[range].fill(0);
        Ok(Outcome::Changed(Persistence::Durable))
    }

    fn publish(&self, name: ObjectName, content: &Buffer, mode: PublishMode) -> Result<Outcome, StoreError> {
        let object = Object(RwLock::new(content.to_vec()));
        match mode {
            PublishMode::Exclusive => self.insert_new(name, object, "publish")?,
            PublishMode::Replace => self.shards.replace(name, object),
        }
        Ok(Outcome::Done)
    }

    fn stat(&self, name: &ObjectName) -> Result<Outcome, StoreError> {
        let len = self.find(name, "look at")?.bytes().len();
        Ok(Outcome::Size(u64::try_from(len).expect("a length in memory fits in 64 bits")))
    }

    fn find(&self, name: &ObjectName, operation: &'static str) -> Result<Arc<Object>, StoreError> {
        self.shards.get(name).ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, operation, name))
    }

    fn insert_new(&self, name: ObjectName, object: Object, operation: &'static str) -> Result<(), StoreError> {
        self.shards.insert_new(name, object).map_err(|name| StoreError::new(StoreErrorKind::Exists, operation, name))
    }
}

/// Copies the buffer into the bytes from `offset` on, making them longer when needed.
fn fill(bytes: &mut Vec<u8>, name: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(buffer.len())?));
    let range = range.ok_or_else(|| StoreError::new(StoreErrorKind::NoSpace, "write", name))?;
    if bytes.len() < range.end {
        let missing = range.end - bytes.len();
        bytes.try_reserve(missing).map_err(|_| StoreError::new(StoreErrorKind::NoSpace, "write", name))?;
        bytes.resize(range.end, 0);
    }
    buffer.copy_out(0, &mut bytes[range]);
    Ok(Outcome::Changed(Persistence::Durable))
}

impl Object {
    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_mut(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
