//! The channel of a faulty store: keeps what must wait, and rewrites results.

use super::{Action, Faults, RuleId, error};
use crate::store::{Channel, Completion, Op, OpKind, StoreError, Token, Wake, WatchId};
use slab::Slab;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct FaultyChannel {
    inner: Box<dyn Channel>,
    faults: Arc<Faults>,
    /// Operations that the inner driver has; its tokens are keys of this.
    running: Slab<Running>,
    /// Operations that wait, in the order of their submission.
    waiting: Vec<Waiting>,
    failed: Vec<Completion>,
    waker: Arc<dyn Wake>,
}

struct Running {
    token: Token,
    /// Reported in place of success.
    error: Option<StoreError>,
}

struct Waiting {
    token: Token,
    op: Op,
    until: Until,
}

#[derive(Clone, Copy)]
enum Until {
    Time(Instant),
    Removed(RuleId),
}

impl FaultyChannel {
    pub(super) fn new(inner: Box<dyn Channel>, faults: Arc<Faults>) -> Self {
        let waker = inner.waker();
        faults.add_sleeper(&waker);
        Self { inner, faults, running: Slab::new(), waiting: Vec::new(), failed: Vec::new(), waker }
    }

    fn pass(&mut self, token: Token, op: Op, error: Option<StoreError>) {
        let key = self.running.insert(Running { token, error });
        self.inner.submit(Token(u64::try_from(key).expect("keys fit in 64 bits")), op);
    }

    /// Passes on what need not wait any more.
    fn release(&mut self) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            let over = match waiting.until {
                Until::Time(time) => time <= now,
                Until::Removed(rule) => !self.faults.is_alive(rule),
            };
            if over {
                self.pass(waiting.token, waiting.op, None);
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// How long until something waiting becomes due.
    fn due_in(&self) -> Option<Duration> {
        let times = self.waiting.iter().filter_map(|waiting| match waiting.until {
            Until::Time(time) => Some(time.saturating_duration_since(Instant::now())),
            Until::Removed(_) => None,
        });
        times.min()
    }
}

fn target(op: &Op) -> String {
    op.object().map_or_else(|| "the store".to_owned(), ToString::to_string)
}

impl Channel for FaultyChannel {
    fn submit(&mut self, token: Token, op: Op) {
        let Some((rule, action)) = self.faults.strike(&op) else { return self.pass(token, op, None) };
        let (kind, target) = (OpKind::of(&op), target(&op));
        match action {
            Action::Fail(errno) => {
                let result = Err(error(errno, kind, &target));
                self.failed.push(Completion { token, result, buffer: op.into_buffer() });
            }
            Action::FailAfter(errno) => self.pass(token, op, Some(error(errno, kind, &target))),
            Action::Delay(time) => {
                self.waiting.push(Waiting { token, op, until: Until::Time(Instant::now() + time) });
            }
            Action::Hold => self.waiting.push(Waiting { token, op, until: Until::Removed(rule) }),
        }
    }

    fn kick(&mut self) {
        self.release();
        self.inner.kick();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.release();
        done.append(&mut self.failed);
        let first = done.len();
        self.inner.reap(done);
        for completion in &mut done[first..] {
            let key = usize::try_from(completion.token.0).expect("tokens are our own keys");
            let running = self.running.remove(key);
            completion.token = running.token;
            if let (Ok(_), Some(error)) = (&completion.result, running.error) {
                completion.result = Err(error);
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.waiting.len() + self.failed.len()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.inner.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.inner.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.release();
        if self.failed.is_empty() {
            let due = self.due_in();
            self.inner.wait(timeout.into_iter().chain(due).min());
        } else {
            self.inner.kick();
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker)
    }
}
