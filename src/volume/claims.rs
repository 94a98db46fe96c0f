//! Claims on blocks: whoever is about to create or drop a block's object holds the block's claim, others wait in order.
//!
//! Two queues that write to the same unwritten block must not both create its object. Reads, and writes in place, need no
//! claim. A claim ends when its guard is dropped.

use crate::units::BlockIndex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Claimed blocks, each with those who wait for it.
    blocks: Mutex<FxHashMap<BlockIndex, VecDeque<oneshot::Sender<()>>>>,
}

#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    block: BlockIndex,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<BlockIndex, VecDeque<oneshot::Sender<()>>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn claim(&self, block: BlockIndex) -> Claim<'_> {
        let turn = {
            let mut blocks = self.lock();
            match blocks.get_mut(&block) {
                None => {
                    blocks.insert(block, VecDeque::new());
                    None
                }
                Some(waiting) => {
                    let (sender, turn) = oneshot::channel();
                    waiting.push_back(sender);
                    Some(turn)
                }
            }
        };
        if let Some(turn) = turn {
            turn.await.expect("a claim is handed on, never just dropped");
        }
        Claim { claims: self, block }
    }
}

impl Drop for Claim<'_> {
    /// Hands the claim to the first who still waits.
    fn drop(&mut self) {
        let mut blocks = self.claims.lock();
        let waiting = blocks.get_mut(&self.block).expect("a claimed block is in the table");
        while let Some(next) = waiting.pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        blocks.remove(&self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_block_has_one_claim_at_a_time_in_order() {
        let claims = Claims::default();
        let first = claims.claim(BlockIndex(1)).now_or_never().unwrap();
        let mut second = Box::pin(claims.claim(BlockIndex(1)));
        let mut third = Box::pin(claims.claim(BlockIndex(1)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(claims.claim(BlockIndex(2)).now_or_never().is_some());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().unwrap();
        drop(second);
        drop(third.now_or_never().unwrap());
        assert!(claims.lock().is_empty());
    }

    #[test]
    fn one_who_gives_up_waiting_is_passed_over() {
        let claims = Claims::default();
        let first = claims.claim(BlockIndex(1)).now_or_never().unwrap();
        let mut second = Box::pin(claims.claim(BlockIndex(1)));
        let mut third = Box::pin(claims.claim(BlockIndex(1)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        assert!(third.now_or_never().is_some());
    }
}
