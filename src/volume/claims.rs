//! Claims on granules: whoever is about to put them into an object holds their claim, others wait in order.
//!
//! Two queues that write to the same unwritten block must not both create its object, and a write of a whole granule must not
//! be undone by one that copies the rest of the same granule (rule C9). Who makes or drops a block's object claims all of the
//! block; who fills granules of the block's own top claims those, so that fills of different granules pass each other.
//! Reads, and writes in place, need no claim. A claim ends when its guard is dropped.

use crate::map::overlay::GranuleRange;
use crate::units::BlockIndex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Blocks of which something is claimed.
    blocks: Mutex<FxHashMap<BlockIndex, Block>>,
}

#[derive(Debug, Default)]
struct Block {
    held: Vec<GranuleRange>,
    waiting: VecDeque<(GranuleRange, oneshot::Sender<()>)>,
}

#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    block: BlockIndex,
    range: GranuleRange,
}

/// Waiting for a claim. Given up at the very moment when it is handed on, it is handed on further.
struct Turn<'a> {
    claims: &'a Claims,
    block: BlockIndex,
    range: GranuleRange,
    receiver: oneshot::Receiver<()>,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if !self.taken && self.receiver.try_recv().is_ok() {
            self.claims.release(self.block, self.range);
        }
    }
}

impl Block {
    fn is_free(&self, range: GranuleRange) -> bool {
        !self.held.iter().any(|held| overlap(*held, range))
    }

    /// Hands what is free to those who wait for it, each only if nobody before it wants some of the same.
    fn hand_on(&mut self) {
        let mut still_waiting: VecDeque<(GranuleRange, oneshot::Sender<()>)> = VecDeque::new();
        for (range, sender) in std::mem::take(&mut self.waiting) {
            let behind = still_waiting.iter().any(|(before, _)| overlap(*before, range));
            if behind || !self.is_free(range) {
                still_waiting.push_back((range, sender));
            } else if sender.send(()).is_ok() {
                self.held.push(range);
            }
        }
        self.waiting = still_waiting;
    }
}

fn overlap(a: GranuleRange, b: GranuleRange) -> bool {
    a.first < b.end() && b.first < a.end()
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<BlockIndex, Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Panics
    /// When the range is empty.
    pub(super) async fn claim(&self, block: BlockIndex, range: GranuleRange) -> Claim<'_> {
        assert!(!range.is_empty(), "a claim is on something");
        let turn = {
            let mut blocks = self.lock();
            let state = blocks.entry(block).or_default();
            let behind = state.waiting.iter().any(|(before, _)| overlap(*before, range));
            if !behind && state.is_free(range) {
                state.held.push(range);
                None
            } else {
                let (sender, turn) = oneshot::channel();
                state.waiting.push_back((range, sender));
                Some(turn)
            }
        };
        if let Some(receiver) = turn {
            let mut turn = Turn { claims: self, block, range, receiver, taken: false };
            (&mut turn.receiver).await.expect("a claim is handed on, never just dropped");
            turn.taken = true;
        }
        Claim { claims: self, block, range }
    }

    fn release(&self, block: BlockIndex, range: GranuleRange) {
        let mut blocks = self.lock();
        let state = blocks.get_mut(&block).expect("a claimed block is in the table");
        let held = state.held.iter().position(|held| *held == range).expect("a claim ends once");
        state.held.swap_remove(held);
        state.hand_on();
        if state.held.is_empty() && state.waiting.is_empty() {
            blocks.remove(&block);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.release(self.block, self.range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const BLOCK: BlockIndex = BlockIndex(1);

    fn range(first: u16, count: u16) -> GranuleRange {
        GranuleRange { first, count }
    }

    #[test]
    fn a_granule_has_one_claim_at_a_time_in_order() {
        let claims = Claims::default();
        let first = claims.claim(BLOCK, range(0, 8)).now_or_never().unwrap();
        let mut second = Box::pin(claims.claim(BLOCK, range(7, 1)));
        let mut third = Box::pin(claims.claim(BLOCK, range(0, 1024)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(claims.claim(BlockIndex(2), range(0, 8)).now_or_never().is_some());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().unwrap();
        drop(second);
        drop(third.now_or_never().unwrap());
        assert!(claims.lock().is_empty());
    }

    #[test]
    fn different_granules_of_a_block_pass_each_other() {
        let claims = Claims::default();
        let _first = claims.claim(BLOCK, range(0, 8)).now_or_never().unwrap();
        let _second = claims.claim(BLOCK, range(8, 8)).now_or_never().unwrap();
        let mut whole = Box::pin(claims.claim(BLOCK, range(0, 1024)));
        assert!(whole.as_mut().now_or_never().is_none());
        assert!(
            claims.claim(BLOCK, range(100, 1)).now_or_never().is_none(),
            "nobody overtakes whoever waits for the same"
        );
    }

    #[test]
    fn one_who_gives_up_waiting_is_passed_over() {
        let claims = Claims::default();
        let first = claims.claim(BLOCK, range(0, 1)).now_or_never().unwrap();
        let mut second = Box::pin(claims.claim(BLOCK, range(0, 1)));
        let mut third = Box::pin(claims.claim(BLOCK, range(0, 1)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn one_who_gives_up_when_its_turn_has_come_hands_it_on() {
        let claims = Claims::default();
        let first = claims.claim(BLOCK, range(0, 1)).now_or_never().unwrap();
        let mut second = Box::pin(claims.claim(BLOCK, range(0, 1)));
        let mut third = Box::pin(claims.claim(BLOCK, range(0, 1)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(claims.lock().is_empty());
    }
}
