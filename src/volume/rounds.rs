//! Flush rounds: how workers and the keeper meet.
//!
//! A flush waits for a round that starts after it was asked for; all that wait when a round starts share it. The keeper runs
//! rounds one at a time ([`super::keeper`]). A flush that finds no round, no changed entry and nothing to sync but the device
//! does that itself: it is the common case of a volume whose blocks are all written, and costs no other thread's wake-up.

use super::VolumeError;
use super::capture::Wish;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

pub(super) type Answer = oneshot::Sender<Result<(), VolumeError>>;

#[derive(Debug, Default)]
pub(super) struct Rounds {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    waiting: Vec<Answer>,
    closing: Option<Answer>,
    /// A round is wanted though nobody waits for it.
    commit: bool,
    /// Checkpoints that somebody waits for, first come first served.
    wishes: VecDeque<Wish>,
    closed: bool,
}

/// What a flush needs when no round is running or waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// Everything is durable.
    Nothing,
    /// A flush of the device, which has been taken on.
    Device,
    Round,
}

/// What a flush takes.
#[derive(Debug)]
pub(super) enum Flush {
    Done,
    /// The caller flushes the device itself.
    Device,
    /// The answer of the next round; never, when the keeper has ended.
    Round(oneshot::Receiver<Result<(), VolumeError>>),
}

/// What the keeper is asked to do next.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) flushes: Vec<Answer>,
    pub(super) commit: bool,
    pub(super) close: Option<Answer>,
}

impl Rounds {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a flush takes. `alone` is asked while no round can start, and says what is needed without one.
    pub(super) fn flush(&self, alone: impl FnOnce() -> Alone) -> Flush {
        let mut state = self.lock();
        if !state.running && state.waiting.is_empty() {
            match alone() {
                Alone::Nothing => return Flush::Done,
                Alone::Device => return Flush::Device,
                Alone::Round => {}
            }
        }
        let (answer, receiver) = oneshot::channel();
        if !state.closed {
            state.waiting.push(answer);
        }
        drop(state);
        self.ring();
        Flush::Round(receiver)
    }

    /// Asks the keeper to end in order; in vain when it has ended.
    pub(super) fn close(&self) -> oneshot::Receiver<Result<(), VolumeError>> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.lock();
        if !state.closed {
            state.closing = Some(answer);
        }
        drop(state);
        self.ring();
        receiver
    }

    /// Asks for a round that nobody waits for: it lets go of what was dropped.
    pub(super) fn commit(&self) {
        self.lock().commit = true;
        self.ring();
    }

    /// Asks for a checkpoint; when the keeper has ended, the wish is dropped, and with it whom it would answer.
    pub(super) fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if !state.closed {
            state.wishes.push_back(wish);
        }
        drop(state);
        self.ring();
    }

    pub(super) fn next_wish(&self) -> Option<Wish> {
        self.lock().wishes.pop_front()
    }

    pub(super) fn has_wishes(&self) -> bool {
        !self.lock().wishes.is_empty()
    }

    /// Makes the keeper look whether there is something to do.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) fn ring_if(&self, needed: bool) {
        if needed {
            self.ring();
        }
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Starts a round: flushes asked for from now on wait for the next.
    pub(super) fn begin(&self) -> Work {
        let mut state = self.lock();
        state.running = true;
        Work {
            flushes: std::mem::take(&mut state.waiting),
            commit: std::mem::take(&mut state.commit),
            close: state.closing.take(),
        }
    }

    pub(super) fn end(&self) {
        self.lock().running = false;
    }

    /// The keeper has ended: whoever waits, or comes now, finds nobody.
    pub(super) fn closed(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        state.wishes.clear();
        state.closing = None;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}
