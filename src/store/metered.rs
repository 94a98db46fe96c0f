//! A driver around another that counts and times what goes through: what `status` shows of a store.
//!
//! Each channel counts for itself, so threads do not meet; [`Meter::figures`] adds up. A time begins at the submission and
//! ends when the owner of the channel reaps, so it is what the layers above wait for.

use super::{
    Channel, Completion, Lease, LockMode, Op, OpKind, Seized, Store, StoreError, StoreInfo, Token, Wake, WatchId,
};
use crate::units::VolumeId;
use slab::Slab;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const KINDS: usize = OpKind::ALL.len();

/// See the module's text.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    meter: Arc<Meter>,
}

/// What went through all channels of a store.
#[derive(Default)]
pub struct Meter {
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    open: Vec<Arc<Counters>>,
    /// What closed channels have counted.
    closed: [Figures; KINDS],
}

/// Of one kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub completed: u64,
    /// Of those, how many with an error.
    pub failed: u64,
    /// Data moved by those that succeeded.
    pub bytes: u64,
    /// The sum of all times from submission to completion.
    pub time: Duration,
}

/// One channel's, written by its thread alone.
#[derive(Default)]
struct Counters {
    kinds: [KindCounters; KINDS],
}

#[derive(Default)]
struct KindCounters {
    completed: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl MeteredStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, meter: Arc::default() }
    }

    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl Meter {
    /// What has completed so far, by kind, in the order of [`OpKind::ALL`].
    pub fn figures(&self) -> [(OpKind, Figures); KINDS] {
        let channels = self.lock();
        let mut figures = channels.closed;
        channels.open.iter().for_each(|counters| counters.add_to(&mut figures));
        OpKind::ALL.map(|kind| (kind, figures[kind.index()]))
    }

    fn open(&self) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        self.lock().open.push(Arc::clone(&counters));
        counters
    }

    fn close(&self, counters: &Arc<Counters>) {
        let mut channels = self.lock();
        channels.open.retain(|open| !Arc::ptr_eq(open, counters));
        counters.add_to(&mut channels.closed);
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn add_to(&self, figures: &mut [Figures; KINDS]) {
        for (figures, counters) in figures.iter_mut().zip(&self.kinds) {
            figures.completed += counters.completed.load(Ordering::Relaxed);
            figures.failed += counters.failed.load(Ordering::Relaxed);
            figures.bytes += counters.bytes.load(Ordering::Relaxed);
            figures.time += Duration::from_nanos(counters.nanoseconds.load(Ordering::Relaxed));
        }
    }
}

impl Store for MeteredStore {
    fn info(&self) -> &StoreInfo {
        self.inner.info()
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        let inner = self.inner.channel(lease)?;
        let (meter, counters) = (self.meter(), self.meter.open());
        Ok(Box::new(MeteredChannel { inner, started: Slab::new(), meter, counters }))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.lock(volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.try_lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.inner.seize(volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.inner.record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.holder(volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
}

struct MeteredChannel {
    inner: Box<dyn Channel>,
    /// The inner tokens are keys of this.
    started: Slab<Started>,
    meter: Arc<Meter>,
    counters: Arc<Counters>,
}

struct Started {
    token: Token,
    kind: OpKind,
    bytes: usize,
    at: Instant,
}

impl MeteredChannel {
    fn count(&mut self, completion: &mut Completion) {
        let key = usize::try_from(completion.token.0).expect("tokens are our own keys");
        let started = self.started.remove(key);
        completion.token = started.token;
        let counters = &self.counters.kinds[started.kind.index()];
        let time = u64::try_from(started.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        add(&counters.completed, 1);
        add(&counters.nanoseconds, time);
        match completion.result {
            Ok(_) => add(&counters.bytes, u64::try_from(started.bytes).unwrap_or(u64::MAX)),
            Err(_) => add(&counters.failed, 1),
        }
    }
}

/// Only one thread writes a counter, so this needs no locked instruction.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl Channel for MeteredChannel {
    fn submit(&mut self, token: Token, op: Op) {
        let started = Started { token, kind: OpKind::of(&op), bytes: op.data_len(), at: Instant::now() };
        let key = self.started.insert(started);
        self.inner.submit(Token(u64::try_from(key).expect("keys fit in 64 bits")), op);
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let first = done.len();
        self.inner.reap(done);
        done[first..].iter_mut().for_each(|completion| self.count(completion));
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.inner.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.inner.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }
}

impl Drop for MeteredChannel {
    fn drop(&mut self) {
        self.meter.close(&self.counters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::io::block_on;
    use crate::store::memory::MemoryStore;
    use crate::store::{Buffer, Durability, ObjectName, PublishMode};
    use crate::units::{BlockIndex, Epoch, VolumeName};

    #[test]
    fn operations_are_counted_by_kind_also_after_their_channel_closed() {
        let metered = MeteredStore::new(Arc::new(MemoryStore::new()));
        let meter = metered.meter();
        let store: Arc<dyn Store> = Arc::new(metered);
        let data = ObjectName::Data { volume: VolumeId([1; 16]), epoch: Epoch(1), block: BlockIndex(1) };
        let done = block_on(&store, None, |io| async move {
            let name = ObjectName::Name(VolumeName::new("a").unwrap());
            io.publish(name, &[0; 100], PublishMode::Exclusive).await?;
            for _ in 0..3 {
                let written = io.write(data.clone(), 0, Buffer::zeroed(8), Durability::Cached).await;
                assert!(written.is_err());
            }
            Ok::<_, StoreError>(())
        });
        done.unwrap();
        let figures = meter.figures();
        let of = |kind: OpKind| figures[kind.index()].1;
        assert_eq!((of(OpKind::Publish).completed, of(OpKind::Publish).bytes), (1, 100));
        assert_eq!((of(OpKind::Write).completed, of(OpKind::Write).failed, of(OpKind::Write).bytes), (3, 3, 0));
        assert_eq!(of(OpKind::Read), Figures::default());
    }
}
