//! A checkpoint: the frozen leaves become pages in a new segment, and one header makes them the truth (rules C7, P8).
//!
//! Order: sync what the leaves name; segment; the journal after next; header {root, current := next, next := that}; then
//! the old current is not needed any more. Until the header is durable nothing that was true before is touched.

use super::keeper::Keeper;
use super::open::EPOCHS_RESERVED;
use super::{VolumeError, VolumeErrorKind};
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::JournalId;
use crate::map::format::segment::SegmentBuilder;
use crate::map::journal::JournalWriter;
use crate::map::state::{Checkpointed, Frozen};
use crate::map::tree::{self, TreeError, WrittenTree};
use crate::store::{ObjectName, PublishMode, StoreError, StoreErrorKind};
use crate::units::{Epoch, VolumeName};

/// Bytes of a journal: 256 records of the smallest size. Half of them trigger a checkpoint.
pub(super) const JOURNAL_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum CheckpointError {
    /// Nothing changed; it may be tried again.
    NoSpace(StoreError),
    /// The volume failed.
    Failed(VolumeError),
}

impl CheckpointError {
    pub(super) fn into_volume_error(self, name: &VolumeName) -> VolumeError {
        match self {
            Self::NoSpace(source) => {
                VolumeError::from_store(source, format!("volume {name}: no space to write its map down"))
            }
            Self::Failed(error) => error,
        }
    }
}

/// Writes a checkpoint and publishes a header in the given state. Closed headers name no journals.
pub(super) async fn write(keeper: &Keeper, frozen: Frozen, state: HeaderState) -> Result<(), CheckpointError> {
    keeper.sync().await.map_err(CheckpointError::Failed)?;
    let old = keeper.header.borrow().clone();
    let number = next_number(keeper);
    let mut segment = SegmentBuilder::new(old.id, old.generation, number);
    let written = tree::write(&keeper.volume.map, &keeper.io, &frozen, &mut segment).await;
    let written = written.map_err(|error| tree_failed(keeper, error))?;
    let segment_len = if segment.is_empty() { 0 } else { segment.len() as u64 };
    if segment_len != 0 {
        let object = ObjectName::Segment { volume: old.id, generation: old.generation, number };
        let published = keeper.io.publish(object, &segment.finish(), PublishMode::Exclusive).await;
        published.map_err(|error| store_failed(keeper, error))?;
    }
    let spare = match state {
        HeaderState::Closed => None,
        _ => Some(new_journal(keeper, &old).await?),
    };
    let header = next_header(keeper, &old, &frozen, &written, segment_len, state, spare.as_ref());
    keeper.publish_header(&header).await.map_err(|error| store_failed(keeper, error))?;
    adopt(keeper, header, written, &frozen, spare).await;
    Ok(())
}

async fn new_journal(keeper: &Keeper, old: &Header) -> Result<JournalWriter, CheckpointError> {
    let number = next_number(keeper);
    let id = JournalId { volume: old.id, generation: old.generation, number };
    JournalWriter::create(&keeper.io, id, JOURNAL_BYTES).await.map_err(|error| store_failed(keeper, error))
}

fn next_number(keeper: &Keeper) -> u32 {
    let mut journals = keeper.journals.borrow_mut();
    journals.number += 1;
    journals.number
}

fn next_header(
    keeper: &Keeper,
    old: &Header,
    frozen: &Frozen,
    written: &WrittenTree,
    segment_len: u64,
    state: HeaderState,
    spare: Option<&JournalWriter>,
) -> Header {
    let next = keeper.header.borrow().next_journal;
    Header {
        state,
        size: keeper.volume.size(),
        epoch: frozen.epoch,
        epoch_limit: Epoch((frozen.epoch_next.0 + EPOCHS_RESERVED).min(Epoch::MAX.0)),
        change_through: frozen.through,
        segment_bytes: old.segment_bytes + segment_len,
        live_bytes: (old.live_bytes + written.bytes_added).saturating_sub(written.bytes_replaced),
        current_journal: spare.map_or(0, |_| next),
        next_journal: spare.map_or(0, JournalWriter::number),
        root: written.root,
        ..old.clone()
    }
}

/// The header is durable: the keeper and the map go on from it.
async fn adopt(keeper: &Keeper, header: Header, written: WrittenTree, frozen: &Frozen, spare: Option<JournalWriter>) {
    let (epoch_limit, through) = (header.epoch_limit, frozen.through);
    let outdated = ObjectName::Journal {
        volume: header.id,
        generation: header.generation,
        number: keeper.header.borrow().current_journal,
    };
    let closed = header.state == HeaderState::Closed;
    let last = keeper.header.replace(header).next_journal;
    if !closed {
        keeper.journals.borrow_mut().rotate(spare);
    }
    let WrittenTree { root, inner, .. } = written;
    keeper.volume.map.checkpointed(Checkpointed { root, inner, through, epoch_limit });
    remove(keeper, outdated).await;
    if closed {
        let id = keeper.volume.id;
        let generation = keeper.header.borrow().generation;
        remove(keeper, ObjectName::Journal { volume: id, generation, number: last }).await;
    }
}

/// A leftover is removed at the next opening otherwise.
async fn remove(keeper: &Keeper, object: ObjectName) {
    if let Err(error) = keeper.io.remove(object).await {
        tracing::warn!(volume = %keeper.volume.name(), %error, "an old journal stays until the next opening");
    }
}

fn store_failed(keeper: &Keeper, error: StoreError) -> CheckpointError {
    if error.kind() == StoreErrorKind::NoSpace {
        return CheckpointError::NoSpace(error);
    }
    CheckpointError::Failed(keeper.fail(error, "could not write its map down"))
}

fn tree_failed(keeper: &Keeper, error: TreeError) -> CheckpointError {
    let failure = match error {
        TreeError::Store(error) => keeper.fail(error, "could not read its map"),
        damaged @ TreeError::Damaged { .. } => {
            let error =
                VolumeError::new(VolumeErrorKind::Damaged, format!("volume {}: {damaged}", keeper.volume.name()));
            keeper.volume.fail(error.clone());
            error
        }
    };
    CheckpointError::Failed(failure)
}
