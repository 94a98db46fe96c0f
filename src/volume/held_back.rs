//! A queue's requests that wait for their turn under the volume's limits ([`super::limits`]). In order, and each of them
//! still ends as every other: held back is in flight.
//!
//! Bounded by the queue's ring, as all that is in flight.

use super::Request;
use super::limits::{Throttle, Turn};
use crate::store::Wake;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct HeldBack {
    waiting: VecDeque<(u32, Request)>,
    /// Of the first that waits.
    turn: Option<Turn>,
    /// Turns are still taken, but not waited for.
    let_through: bool,
    /// Kept, because the throttle does not.
    _wake: Arc<dyn Wake>,
}

impl HeldBack {
    pub(super) fn new(throttle: &Throttle, wake: Arc<dyn Wake>) -> Self {
        throttle.add_port(&wake);
        Self { waiting: VecDeque::new(), turn: None, let_through: false, _wake: wake }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        self.waiting.iter().map(|(tag, _)| *tag)
    }

    pub(super) fn push(&mut self, tag: u32, request: Request) {
        self.waiting.push_back((tag, request));
    }

    /// The first request, if its turn has come.
    pub(super) fn pop(&mut self, throttle: &Throttle) -> Option<(u32, Request)> {
        let (_, first) = self.waiting.front()?;
        let given = self.turn.and_then(|turn| throttle.has_come(turn).map(|has_come| (turn, has_come)));
        let (turn, has_come) = given.unwrap_or_else(|| {
            let turn = throttle.reserve(first);
            (turn, throttle.has_come(turn).unwrap_or(false))
        });
        if has_come || self.let_through {
            self.turn = None;
            return self.waiting.pop_front();
        }
        self.turn = Some(turn);
        None
    }

    /// How long until [`HeldBack::pop`] has something; `None` if nothing waits.
    pub(super) fn time_left(&self, throttle: &Throttle) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        match self.turn {
            Some(turn) if !self.let_through => Some(throttle.time_until(turn)),
            _ => Some(Duration::ZERO),
        }
    }

    pub(super) fn let_through(&mut self) {
        self.let_through = true;
    }

    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
        self.turn = None;
    }
}
