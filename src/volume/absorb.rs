//! Absorbing a layer: an overlay has room for a few ([`crate::map::overlay`]), and a new top needs one of them.
//!
//! An overlay that has become full gives one layer up in the background: the granules of its smallest shared layer are copied into
//! its own top, a run at a time, so that the first write after the next snapshot finds room and copies nothing. Only where
//! snapshots come faster than that does the write itself take a layer into the top that it makes.
//!
//! ```text
//!   cover ── full now? ─► queue ── the keeper's task ─► put(Same) run by run ─► the layer is empty, and gone
//!        └── was full: absorb at once
//! ```
//! Nothing depends on the queue: it is forgotten when the volume closes, and what does not fit into it is left to the writes.

use super::copy_up::{Aligned, Content, extent_of};
use super::write::Creation;
use super::{Port, VolumeError};
use crate::map::Entry;
use crate::map::entry::VolumeIndex;
use crate::map::overlay::{GranuleRange, LAYERS_MAX, Layer, Mask, Overlay};
use crate::units::{BlockIndex, Epoch};
use futures_util::future::{Either, join_all, select};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Blocks that wait at most: 1 MiB of memory.
const QUEUE_MAX: usize = 1 << 17;

/// The blocks whose overlays have become full.
#[derive(Debug, Default)]
pub(super) struct FullBlocks {
    state: Mutex<State>,
    /// There is a block, or the work is to stop.
    news: Notify,
    stopped: Notify,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<BlockIndex>,
    working: bool,
    stopping: bool,
}

impl FullBlocks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, block: BlockIndex) {
        let mut state = self.lock();
        if state.working && !state.stopping && state.queue.len() < QUEUE_MAX {
            state.queue.push_back(block);
            drop(state);
            self.news.notify_one();
        }
    }

    /// `None` when the work is to stop.
    async fn next(&self) -> Option<BlockIndex> {
        loop {
            {
                let mut state = self.lock();
                if state.stopping {
                    return None;
                }
                if let Some(block) = state.queue.pop_front() {
                    return Some(block);
                }
            }
            self.news.notified().await;
        }
    }

    /// Ends the work where it stands; for the keeper, before it closes.
    pub(super) async fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
        self.stopped.notify_one();
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if !self.lock().working {
                return;
            }
            ended.await;
        }
    }
}

impl Port {
    /// Copies the granules of the layer that a new top takes in, but for those that are written anyway.
    pub(super) async fn absorb(
        &self,
        creation: &Creation<'_>,
        block: BlockIndex,
        overlay: &Overlay,
        touched: GranuleRange,
    ) -> Result<Option<u8>, VolumeError> {
        let Some(index) = overlay.to_absorb() else { return Ok(None) };
        let wanted = overlay.layers()[usize::from(index)].mask.without(&Mask::of(touched));
        let object = creation.object();
        let copies = wanted.runs().map(|run| {
            let object = object.clone();
            async move {
                let Aligned { offset, data } =
                    self.exact(extent_of(block, overlay.granules(), run), Content::Same).await?;
                self.write_object(&object, offset, data).await.map_err(|error| self.store_error(error))
            }
        });
        join_all(copies).await.into_iter().collect::<Result<(), _>>()?;
        Ok(Some(index))
    }

    /// The block got a new top: if it is full now, the keeper's task sees to it.
    pub(super) fn absorb_later(&self, block: BlockIndex) {
        let full = |entry: Entry| matches!(entry, Entry::Overlay(overlay) if overlay.layers().len() == LAYERS_MAX);
        if self.entry_at_hand(block).is_some_and(full) {
            self.volume().full_blocks.push(block);
        }
    }

    /// Gives the block's smallest shared layer up, unless a snapshot has taken the top meanwhile.
    async fn absorb_ahead(&self, block: BlockIndex) -> Result<(), VolumeError> {
        let mut absorbed = None;
        loop {
            self.volume().check_writable()?;
            let entry = self.entry(block).await?;
            let Entry::Overlay(overlay) = &entry else { return Ok(()) };
            if overlay.layers().len() < LAYERS_MAX || !self.volume().map.owns(&entry) {
                return Ok(());
            }
            let smallest = || overlay.layers()[1..].iter().min_by_key(|layer| layer.mask.len());
            let chosen = absorbed.and_then(|object| overlay.layers()[1..].iter().find(|layer| object == name(layer)));
            let Some(layer) = chosen.or_else(smallest) else { return Ok(()) };
            absorbed = Some(name(layer));
            let Some(run) = layer.mask.runs().next() else { return Ok(()) };
            // Done, or something has changed: either way the next look tells.
            let _ = self.put(extent_of(block, overlay.granules(), run), Content::Same).await?;
        }
    }
}

fn name(layer: &Layer) -> (VolumeIndex, Epoch) {
    (layer.volume, layer.epoch)
}

/// The keeper's task.
pub(super) fn keep_absorbing(port: Port) -> impl Future<Output = ()> {
    let volume = Arc::clone(port.volume());
    volume.full_blocks.lock().working = true;
    async move {
        let blocks = &volume.full_blocks;
        while let Some(block) = blocks.next().await {
            // Stopped by the keeper, which would not make room for it any more.
            let stopped = std::pin::pin!(blocks.stopped.notified());
            let absorbed = match select(std::pin::pin!(port.absorb_ahead(block)), stopped).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => break,
            };
            if let Err(error) = absorbed {
                // Nothing is lost by it: the next write there copies, or says what is wrong.
                tracing::debug!(volume = %volume.name, %error, "a full overlay stays as it is");
            }
        }
        blocks.lock().working = false;
        blocks.ended.notify_waiters();
    }
}
