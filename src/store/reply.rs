//! The way back from a helper thread to the channel whose operation it ran.

use crate::store::sleep::EventWaker;
use crate::store::{Buffer, Completion, Outcome, StoreError, StoreErrorKind, Token, Wake};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One channel's letter box.
pub(crate) struct Returns {
    completions: Mutex<Vec<Completion>>,
    /// Whether there may be any: looked at on every turn, so it must cost nothing.
    any: AtomicBool,
    waker: Arc<EventWaker>,
}

/// The duty to complete one operation, exactly once. Dropped unanswered (a thread panicked), it answers with an error.
pub(crate) struct Reply {
    to: Arc<Returns>,
    token: Option<Token>,
}

impl Returns {
    pub(crate) fn new(waker: Arc<EventWaker>) -> Arc<Self> {
        Arc::new(Self { completions: Mutex::default(), any: AtomicBool::new(false), waker })
    }

    /// Appends what has come back; returns how many.
    pub(crate) fn collect(&self, done: &mut Vec<Completion>) -> usize {
        if !self.any.swap(false, Ordering::SeqCst) {
            return 0;
        }
        let mut completions = self.lock();
        let count = completions.len();
        done.append(&mut completions);
        count
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.completions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    pub(crate) fn new(to: &Arc<Returns>, token: Token) -> Self {
        Self { to: Arc::clone(to), token: Some(token) }
    }

    pub(crate) fn send(mut self, result: Result<Outcome, StoreError>, buffer: Option<Buffer>) {
        self.answer(result, buffer);
    }

    fn answer(&mut self, result: Result<Outcome, StoreError>, buffer: Option<Buffer>) {
        if let Some(token) = self.token.take() {
            self.to.lock().push(Completion { token, result, buffer });
            self.to.any.store(true, Ordering::SeqCst);
            self.to.waker.wake();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let lost = || StoreError::new(StoreErrorKind::Io, "finish", "an operation whose thread panicked");
        if self.token.is_some() {
            self.answer(Err(lost()), None);
        }
    }
}
