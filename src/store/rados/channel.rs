//! A thread's channel to a RADOS store.
//!
//! ```text
//!   submit ─ read, write, zero, stat ─────────────────► librados ─► arrivals ─► reap
//!          ├ create ─► index ─► (kick) librados ─► arrivals ─► librados ─► arrivals ─► reap
//!          ├ remove ─► librados ─► arrivals ─► index ─► librados ─► arrivals ─► reap
//!          ├ sync ─► done: what RADOS has acknowledged is durable
//!          └ publications, listings, name records ─► helper threads ─► reap
//! ```
//! Nothing here blocks: librados sends from threads of its own, and its limits on what is in flight are out of reach
//! (cluster.rs). In their stead a channel has one of its own: librados copies what it sends, and a guest decides how much there is
//! of it. What is beyond waits here. Both ways back end the thread's sleep.

use super::blocking;
use super::cluster::Pool;
use super::completion::{Arrival, Arrivals};
use super::home::Home;
use super::index::{Batch, Index};
use super::lock;
use super::operation::{Operation, Progress};
use crate::store::reply::{Reply, Returns};
use crate::store::sleep::Sleeper;
use crate::store::{Channel, Completion, Lease, ObjectName, Op, Outcome, StoreError, Token, Wake, WatchId};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Data that librados has of one channel at a time, in bytes; a single operation may have more.
const BYTES_MAX: usize = 64 << 20;

/// What travels through librados.
pub(super) enum Cargo {
    One(Operation),
    Batch(Batch),
}

pub(super) struct RadosChannel {
    home: Arc<Home>,
    metadata: Pool,
    data: Pool,
    arrivals: Arc<Arrivals<Cargo>>,
    returns: Arc<Returns>,
    index: Index,
    /// Bytes of the operations that librados has, and operations that wait for it to have fewer.
    bytes: usize,
    waiting: VecDeque<Operation>,
    finished: Vec<Completion>,
    /// Submitted and not in `finished` yet.
    under_way: usize,
    sleeper: Sleeper,
    lease: Option<Lease>,
}

impl RadosChannel {
    pub(super) fn new(home: &Arc<Home>, lease: Option<&Lease>) -> Result<Self, StoreError> {
        let (metadata, data) = home.pools_for_a_channel()?;
        let sleeper = Sleeper::new()?;
        Ok(Self {
            home: Arc::clone(home),
            metadata,
            data,
            arrivals: Arrivals::new(sleeper.event_waker()),
            returns: Returns::new(sleeper.event_waker()),
            index: Index::default(),
            bytes: 0,
            waiting: VecDeque::new(),
            finished: Vec::new(),
            under_way: 0,
            sleeper,
            lease: lease.cloned(),
        })
    }

    fn start(&mut self, operation: Operation) {
        self.waiting.push_back(operation);
        self.start_waiting();
    }

    /// In their order. There is always one under way when one waits, so its arrival lets the next go.
    fn start_waiting(&mut self) {
        let fits = |bytes: usize, next: &Operation| bytes == 0 || bytes + next.bytes() <= BYTES_MAX;
        while self.waiting.front().is_some_and(|next| fits(self.bytes, next))
            && let Some(operation) = self.waiting.pop_front()
        {
            self.bytes += operation.bytes();
            self.send(operation);
        }
    }

    fn send(&self, operation: Operation) {
        let pool = match operation.object() {
            ObjectName::Data { .. } => &self.data,
            _ => &self.metadata,
        };
        operation.start(pool, &self.arrivals);
    }

    fn start_batches(&mut self) {
        while let Some(batch) = self.index.next() {
            let (object, op) = (batch.object(), batch.op(self.metadata.library()));
            self.arrivals.write(&self.metadata, object.as_c_str(), &op, Cargo::Batch(batch));
        }
    }

    fn finish(&mut self, completion: Completion) {
        self.under_way -= 1;
        self.finished.push(completion);
    }

    /// Handles everything that has come back, and starts what follows from it.
    fn turn(&mut self) {
        while let Some(Arrival { cargo, answer, size }) = self.arrivals.next() {
            match cargo {
                Cargo::One(cargo) => {
                    self.bytes -= cargo.bytes();
                    match Operation::arrived(Arrival { cargo, answer, size }) {
                        Progress::Done(completion) => self.finish(completion),
                        Progress::Removed(operation) => self.index.push(operation),
                    }
                }
                Cargo::Batch(batch) => self.batch_arrived(batch, answer),
            }
        }
        self.under_way -= self.returns.collect(&mut self.finished);
        self.start_waiting();
        self.start_batches();
    }

    fn batch_arrived(&mut self, batch: Batch, answer: Result<i32, super::error::Failure>) {
        let answer = batch.answer(answer);
        for operation in self.index.ended(batch, answer) {
            match answer {
                Ok(()) if operation.is_create() => self.start(operation),
                _ => self.finish(operation.complete(answer.map(|()| 0))),
            }
        }
    }
}

impl Channel for RadosChannel {
    fn submit(&mut self, token: Token, op: Op) {
        self.under_way += 1;
        match Operation::from_op(token, op) {
            Ok(operation) if operation.is_create() => self.index.push(operation),
            Ok(operation) => self.start(operation),
            Err(Op::Sync { .. } | Op::SyncAll) => {
                self.finish(Completion { token, result: Ok(Outcome::Done), buffer: None });
            }
            Err(other) => blocking::start(&self.home, other, Reply::new(&self.returns, token)),
        }
    }

    fn kick(&mut self) {
        self.start_batches();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.turn();
        done.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.under_way + self.finished.len()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.sleeper.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.sleeper.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.start_batches();
        if self.finished.is_empty() && !self.arrivals.any() && !self.returns.any() {
            self.sleeper.sleep(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sleeper.waker()
    }
}

impl Drop for RadosChannel {
    /// Buffers go back to their owners only when nothing can touch them any more.
    fn drop(&mut self) {
        while self.under_way != 0 {
            self.finished.clear();
            self.wait(None);
            self.turn();
        }
        // This thread may have other guests to serve.
        if let Some(lease) = self.lease.take() {
            lock::let_go(lease);
        }
    }
}
