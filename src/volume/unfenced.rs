//! Objects that a holder who was cut off may still write (rule C4).
//!
//! A take-over that no proof stands behind records the epochs of the objects that the old holder may write in place. They count as
//! shared, so we do not write them; and none of them is read through: what a read touches of one is copied first, once, into an
//! object of ours, and served from there. So a late write of the old holder is seen either always or never. A task of the keeper's
//! copies the rest, a block at a time, and then the header forgets the range. Snapshots wait for that.

use super::capture::Amendment;
use super::compose::Extent;
use super::discard::give_way;
use super::{Port, Volume, VolumeError};
use crate::map::entry::VolumeIndex;
use crate::map::format::header;
use crate::units::{BlockIndex, Epoch};
use futures_util::future::{Either, select};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Unfenced {
    range: Option<header::Unfenced>,
    /// Whether anything may still be in the range; `false` for good when the copy is complete.
    active: AtomicBool,
    copying: AtomicBool,
    stopping: AtomicBool,
    /// Attempts to copy everything that have ended, and how the last one failed.
    attempts: AtomicU64,
    trouble: Mutex<Option<VolumeError>>,
    /// Another attempt is wanted, or none any more.
    asked: Notify,
    news: Notify,
}

impl Unfenced {
    pub(super) fn new(range: Option<header::Unfenced>) -> Self {
        Self {
            range,
            active: range.is_some().into(),
            copying: false.into(),
            stopping: false.into(),
            attempts: 0.into(),
            trouble: Mutex::default(),
            asked: Notify::new(),
            news: Notify::new(),
        }
    }

    /// Whether reads have to look.
    pub(super) fn is_set(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether the object of an entry is in the range.
    fn covers(&self, volume: VolumeIndex, epoch: Epoch) -> bool {
        volume == VolumeIndex::OWN && self.range.is_some_and(|range| range.above < epoch && epoch <= range.through)
    }

    /// Ends the copying, complete or not; for the keeper, before it closes.
    pub(super) async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.asked.notify_one();
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if !self.copying.load(Ordering::Acquire) {
                return;
            }
            news.await;
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn ended(&self, result: Result<(), VolumeError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
        self.attempts.fetch_add(1, Ordering::AcqRel);
        self.news.notify_waiters();
    }
}

impl Volume {
    /// Waits until no part of the volume lies in an object that somebody else may still write.
    ///
    /// # Errors
    /// Why the copy could not be completed.
    pub(super) async fn fenced(&self) -> Result<(), VolumeError> {
        let unfenced = &self.unfenced;
        let enough = unfenced.attempts.load(Ordering::Acquire) + 2;
        loop {
            let mut news = std::pin::pin!(unfenced.news.notified());
            news.as_mut().enable();
            if !unfenced.is_set() {
                return Ok(());
            }
            self.check_writable()?;
            if unfenced.is_stopping() {
                return Err(self.closing());
            }
            let trouble = unfenced.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match trouble {
                Some(trouble) if unfenced.attempts.load(Ordering::Acquire) >= enough => return Err(trouble),
                _ => unfenced.asked.notify_one(),
            }
            news.await;
        }
    }
}

impl Port {
    /// Copies what the extent touches of unfenced objects.
    pub(super) async fn fence(&self, extent: Extent) -> Result<(), VolumeError> {
        let unfenced = &self.volume().unfenced;
        let touched = |granules: crate::map::overlay::Granules| granules.touched(extent.offset, extent.len);
        self.detach_part(extent.block, touched, |volume, epoch| unfenced.covers(volume, epoch)).await.map(drop)
    }
}

/// The keeper's task: copies everything, again when it failed and somebody asks.
pub(super) async fn keep_copying(port: Port) {
    let volume = Arc::clone(port.volume());
    let unfenced = &volume.unfenced;
    unfenced.copying.store(true, Ordering::Release);
    tracing::warn!(volume = %volume.name, "copying what its last holder, who was cut off, may still write");
    while !unfenced.is_stopping() {
        let result = {
            let stopped = std::pin::pin!(stopped(unfenced));
            match select(std::pin::pin!(copy_all(&port)), stopped).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => break,
            }
        };
        if let Err(error) = &result {
            tracing::error!(volume = %volume.name, %error, "cannot copy what its last holder may still write");
        }
        let done = result.is_ok();
        unfenced.ended(result);
        if done {
            break;
        }
        unfenced.asked.notified().await;
    }
    unfenced.copying.store(false, Ordering::Release);
    unfenced.news.notify_waiters();
}

async fn stopped(unfenced: &Unfenced) {
    while !unfenced.is_stopping() {
        unfenced.asked.notified().await;
    }
}

/// One block at a time: a guest's requests come first (P13). Entries that come meanwhile name no object of the range.
async fn copy_all(port: &Port) -> Result<(), VolumeError> {
    let volume = port.volume();
    let (mut next, mut bytes) = (BlockIndex(0), 0);
    for count in 1.. {
        let found = volume.map.next_allocated(port.io(), next).await;
        let Some(block) = found.map_err(|error| super::open::tree_error(&volume.name, error))? else { break };
        port.confirmed().await?;
        bytes += port.detach(block, |volume_index, epoch| volume.unfenced.covers(volume_index, epoch)).await?;
        next = BlockIndex(block.0 + 1);
        give_way(count).await;
    }
    volume.amend(Amendment::NoUnfenced).await?;
    volume.unfenced.active.store(false, Ordering::Release);
    tracing::info!(volume = %volume.name, bytes, "nothing of it can be written by its last holder any more");
    Ok(())
}
