//! Capturing volumes at one instant, and amending what a header says of an open volume. What snapshots, clones and resizing
//! are made of.
//!
//! ```text
//!   caller                                        each volume's keeper
//!   hold ────────────────────────────────────────► ends the checkpoint under way, switches journals, starts none
//!   close the gates, wait for writes in place
//!   share and freeze, all at once (Map::capture)
//!   open the gates            (here the guest goes on)
//!   the frozen leaves ───────────────────────────► sync, pages, header
//!   ◄──────────────────────────────────────────── header
//!   headers of what descends from it
//!   let go ──────────────────────────────────────► checkpoints as before
//! ```
//! A caller that gives up anywhere lets go; the keeper then makes what was frozen dirty again. That some objects have become
//! shared stays, and is harmless.

use super::checkpoint::CheckpointError;
use super::gate::Closed;
use super::keeper::Keeper;
use super::{Access, Volume, VolumeError, VolumeErrorKind, checkpoint};
use crate::map::Map;
use crate::map::format::header::{Header, HeaderState, Limits, Receiving};
use crate::map::state::Frozen;
use crate::map::tree::Extent;
use crate::units::{VolumeId, VolumeSize};
use futures_util::future::{join_all, try_join_all};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A volume as of one instant: `header` has the root, and is durable. Until this is dropped the volume's keeper makes no
/// checkpoint, so the root stays named by that header: make the header of what descends from it durable first.
#[derive(Debug)]
pub struct Captured {
    pub header: Header,
    /// How long writes in place had to wait.
    pub pause: Duration,
    _hold: oneshot::Sender<()>,
}

/// A change of what the header says; durable when [`Volume::amend`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendment {
    /// Nothing: a checkpoint, after which the persisted map names all that was written before.
    Checkpoint,
    Size(VolumeSize),
    Limits(Limits),
    /// Nothing of it lies in another volume's objects any more.
    NoParent,
    /// Nothing of it lies in objects that somebody else may still write (rule C4).
    NoUnfenced,
    /// Whose bytes it has.
    Content {
        content: Option<VolumeId>,
        receiving: Option<Receiving>,
    },
}

/// A checkpoint that somebody waits for.
#[derive(Debug)]
pub(super) enum Wish {
    Amend {
        amendment: Amendment,
        answer: oneshot::Sender<Result<(), VolumeError>>,
    },
    /// None until what comes back is dropped, or one of the leaves that are sent to it.
    Hold {
        answer: oneshot::Sender<oneshot::Sender<ToPublish>>,
    },
}

/// What came of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    Checkpoint,
    /// It was given up.
    Nothing,
}

/// What a capture froze, to be written by the keeper.
#[derive(Debug)]
pub(super) struct ToPublish {
    frozen: Frozen,
    answer: oneshot::Sender<Result<Header, VolumeError>>,
    /// Ends when the caller lets go.
    held: oneshot::Receiver<()>,
}

impl Amendment {
    pub(super) fn apply(self, header: Header) -> Header {
        match self {
            Self::Checkpoint => header,
            Self::Size(size) => Header { size, ..header },
            Self::Limits(limits) => Header { limits, ..header },
            Self::NoParent => Header { parent: None, ..header },
            Self::NoUnfenced => Header { unfenced: None, ..header },
            Self::Content { content, receiving } => Header { content, receiving, ..header },
        }
    }
}

impl Volume {
    /// Captures open volumes, all at the same instant (rule C8): no write in place is under way at it, whatever completed before
    /// is in it, and everything that the maps name then is never written in place again. The guest waits only for that
    /// instant; then data, pages and headers are made durable while it goes on.
    ///
    /// # Errors
    /// When one of them is open read-only, failed, or cannot be made durable; nothing but some sharing has happened then.
    ///
    /// # Panics
    /// When a volume is there twice.
    pub async fn capture(volumes: &[Arc<Volume>]) -> Result<Vec<Captured>, VolumeError> {
        for volume in volumes {
            // What somebody else may still write must be in nothing that never changes again (rule C4).
            volume.fenced().await?;
        }
        let holds = Self::hold_all(volumes).await?;
        let start = Instant::now();
        let closed: Vec<Closed<'_>> = join_all(volumes.iter().map(|volume| volume.gate.close())).await;
        let maps: Vec<&Map> = volumes.iter().map(|volume| &volume.map).collect();
        let frozen = Map::capture(&maps);
        drop(closed);
        let pause = start.elapsed();
        let parts = volumes.iter().zip(holds).zip(frozen);
        try_join_all(parts.map(|((volume, hold), frozen)| volume.publish_captured(hold, frozen, pause))).await
    }

    /// In the order of the ids, so that two groups that share volumes do not wait for each other.
    async fn hold_all(volumes: &[Arc<Volume>]) -> Result<Vec<oneshot::Sender<ToPublish>>, VolumeError> {
        let mut in_order: Vec<(usize, &Arc<Volume>)> = volumes.iter().enumerate().collect();
        in_order.sort_by_key(|(_, volume)| volume.id);
        let mut holds = Vec::with_capacity(volumes.len());
        for (index, volume) in in_order {
            volume.check_writable()?;
            let (answer, held) = oneshot::channel();
            volume.rounds.wish(Wish::Hold { answer });
            holds.push((index, held.await.map_err(|_| volume.closing())?));
        }
        holds.sort_by_key(|(index, _)| *index);
        Ok(holds.into_iter().map(|(_, hold)| hold).collect())
    }

    async fn publish_captured(
        &self,
        hold: oneshot::Sender<ToPublish>,
        frozen: Frozen,
        pause: Duration,
    ) -> Result<Captured, VolumeError> {
        let (answer, published) = oneshot::channel();
        let (let_go, held) = oneshot::channel();
        hold.send(ToPublish { frozen, answer, held }).map_err(|_| self.closing())?;
        let header = published.await.map_err(|_| self.closing())??;
        Ok(Captured { header, pause, _hold: let_go })
    }

    /// Changes what the header says, with a checkpoint. Size and limits take effect for requests from now on.
    ///
    /// # Errors
    /// As a flush; also when the volume is open read-only.
    pub async fn amend(&self, amendment: Amendment) -> Result<(), VolumeError> {
        self.check_writable()?;
        let (answer, done) = oneshot::channel();
        self.rounds.wish(Wish::Amend { amendment, answer });
        done.await.map_err(|_| self.closing())?
    }

    pub(super) fn closing(&self) -> VolumeError {
        if let (Access::ReadWrite, Some(failure)) = (self.access, self.failure.get()) {
            return failure.clone();
        }
        let text = format!("volume {} is being closed", self.name);
        VolumeError::new(VolumeErrorKind::Busy, text)
    }

    fn adopt(&self, amendment: Amendment) {
        match amendment {
            Amendment::Size(size) => self.size.store(size.bytes(), Ordering::Release),
            Amendment::Limits(limits) => self.set_limits_in_memory(limits),
            Amendment::Checkpoint | Amendment::NoParent | Amendment::NoUnfenced | Amendment::Content { .. } => {}
        }
    }
}

impl Wish {
    /// Grants it. The keeper has switched journals, and makes no other checkpoint until this ends.
    pub(super) async fn grant(self, keeper: &Keeper) -> Result<Granted, CheckpointError> {
        match self {
            Self::Amend { amendment, answer } => {
                let result = write(keeper, keeper.volume.map.freeze(), amendment).await;
                if result.is_ok() {
                    keeper.volume.adopt(amendment);
                }
                let told = result.as_ref().map(|_| ()).map_err(|error| error.to_volume_error(&keeper.volume.name));
                let _nobody_waits = answer.send(told);
                result.map(|()| Granted::Checkpoint)
            }
            Self::Hold { answer } => {
                let (hold, to_publish) = oneshot::channel();
                let _nobody_waits = answer.send(hold);
                let Ok(ToPublish { frozen, answer, held }) = to_publish.await else {
                    // Given up, perhaps after the freeze.
                    keeper.volume.map.unfreeze();
                    return Ok(Granted::Nothing);
                };
                let result = write(keeper, frozen, Amendment::Checkpoint).await;
                let header = || keeper.header.borrow().clone();
                let told =
                    result.as_ref().map(|()| header()).map_err(|error| error.to_volume_error(&keeper.volume.name));
                let _nobody_waits = answer.send(told);
                if result.is_ok() {
                    let _let_go = held.await;
                }
                result.map(|()| Granted::Checkpoint)
            }
        }
    }
}

async fn write(keeper: &Keeper, frozen: Frozen, amendment: Amendment) -> Result<(), CheckpointError> {
    checkpoint::write(keeper, frozen, HeaderState::Live, amendment, Extent::Changed).await
}
