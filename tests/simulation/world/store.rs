//! The world as a store: what the code under test gets to see.

use super::World;
use super::pending::{ChannelId, Incarnation, Origin};
use archvhost::store::{
    Channel, Completion, FreeLock, Lease, LockMode, Op, Seized, Store, StoreError, StoreInfo, Token, Wake, WatchId,
};
use archvhost::units::VolumeId;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The store as one process opened it. When that process is dead, whatever it still submits is lost.
pub struct SimStore {
    world: World,
    incarnation: Incarnation,
    info: StoreInfo,
}

impl SimStore {
    /// The store as this process sees it.
    pub fn open(world: &World, incarnation: Incarnation, free_lock: FreeLock) -> Arc<dyn Store> {
        let info = StoreInfo {
            url: "simulated:".to_owned(),
            io_align: 512,
            persistent: true,
            free_lock,
            method: "simulated".to_owned(),
        };
        Arc::new(Self { world: world.clone(), incarnation, info })
    }
}

impl Store for SimStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        let mut state = self.world.state();
        let channel = ChannelId(state.next_channel);
        state.next_channel += 1;
        let lease = lease.map(|lease| lease.volume);
        let origin = Origin { channel, incarnation: self.incarnation, lease };
        let waker = Arc::new(SimWaker(AtomicBool::new(false)));
        Ok(Box::new(SimChannel { world: self.world.clone(), origin, in_flight: 0, waker, watches: 0 }))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.world.lock(self.incarnation, volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.world.seize(self.incarnation, volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.world.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.confirm(lease)?;
        self.world.state().holders.insert(lease.volume, holder.to_vec());
        Ok(())
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.world.state().holders.get(&volume).cloned())
    }

    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct SimChannel {
    world: World,
    origin: Origin,
    in_flight: usize,
    waker: Arc<SimWaker>,
    watches: u32,
}

struct SimWaker(AtomicBool);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Channel for SimChannel {
    fn submit(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        self.world.state().submit(self.origin, token, op);
    }

    fn kick(&mut self) {
        self.world.state().kick(self.origin.channel);
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let ended = self.world.state().reap(self.origin.channel);
        self.in_flight -= ended.len();
        done.extend(ended);
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn watch(&mut self, _fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.watches += 1;
        Ok(WatchId(self.watches))
    }

    fn unwatch(&mut self, _watch: WatchId) {}

    /// Time passes only here for code that blocks: the world steps until this channel has something to reap.
    fn wait(&mut self, _timeout: Option<Duration>) {
        self.kick();
        while !self.waker.0.swap(false, Ordering::SeqCst) {
            let mut state = self.world.state();
            if !state.lives(self.origin.incarnation) || state.crash_is_due() {
                drop(state);
                std::panic::resume_unwind(Box::new(ProcessEnds));
            }
            if state.ended.contains_key(&self.origin.channel) || !state.step() {
                return;
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }
}

/// Unwinds a blocking call of a process that a crash ends.
struct ProcessEnds;
