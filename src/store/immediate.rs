//! The channel of drivers that finish an operation while it is being submitted: memory and null.

use super::sleep::Sleeper;
use super::{Buffer, Channel, Completion, Op, Outcome, StoreError, Token, Wake, WatchId};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// What such a driver does with one operation.
pub(crate) trait Execute {
    fn execute(&self, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>);
}

pub(crate) struct ImmediateChannel<D> {
    driver: Arc<D>,
    done: Vec<Completion>,
    sleeper: Sleeper,
}

impl<D: Execute> ImmediateChannel<D> {
    pub(crate) fn new(driver: Arc<D>) -> Result<Self, StoreError> {
        Ok(Self { driver, done: Vec::new(), sleeper: Sleeper::new()? })
    }
}

impl<D: Execute> Channel for ImmediateChannel<D> {
    fn submit(&mut self, token: Token, op: Op) {
        let (result, buffer) = self.driver.execute(op);
        self.done.push(Completion { token, result, buffer });
    }

    fn kick(&mut self) {}

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.sleeper.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.sleeper.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.done.is_empty() {
            self.sleeper.sleep(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sleeper.waker()
    }
}
