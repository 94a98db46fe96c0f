//! The channel where there is no io_uring: every operation goes to a helper thread. Slower, the same in everything else.

use super::blocking;
use super::home::Home;
use crate::store::reply::{Reply, Returns};
use crate::store::sleep::Sleeper;
use crate::store::{Channel, Completion, Lease, Op, StoreError, Token, Wake, WatchId};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct PoolChannel {
    home: Arc<Home>,
    in_flight: usize,
    returns: Arc<Returns>,
    sleeper: Sleeper,
    /// Threads of a killed process end before its locks fall, so this need not be known to the kernel.
    _lease: Option<Lease>,
}

impl PoolChannel {
    pub(super) fn new(home: &Arc<Home>, lease: Option<&Lease>) -> Result<Self, StoreError> {
        let sleeper = Sleeper::new()?;
        let returns = Returns::new(sleeper.event_waker());
        Ok(Self { home: Arc::clone(home), in_flight: 0, returns, sleeper, _lease: lease.cloned() })
    }
}

impl Channel for PoolChannel {
    fn submit(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        blocking::start(&self.home, op, Reply::new(&self.returns, token));
    }

    fn kick(&mut self) {}

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.in_flight -= self.returns.collect(done);
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.sleeper.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.sleeper.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if !self.returns.any() {
            self.sleeper.sleep(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sleeper.waker()
    }
}

impl Drop for PoolChannel {
    /// Buffers go back to their owners only when nothing can touch them any more.
    fn drop(&mut self) {
        while self.in_flight != 0 {
            self.wait(None);
            self.reap(&mut Vec::new());
        }
    }
}
