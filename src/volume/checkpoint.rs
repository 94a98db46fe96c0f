//! A checkpoint: the frozen leaves become pages in a new segment, and one header makes them the truth (rules C7, P8).
//!
//! Order: sync what the leaves name; segment; the journal after next; header {root, current := next, next := that}; then
//! the old current is not needed any more. Until the header is durable nothing that was true before is touched.

use super::capture::Amendment;
use super::keeper::Keeper;
use super::open::{EPOCH_LAST, EPOCHS_RESERVED, list_all, used_up};
use super::{VolumeError, VolumeErrorKind};
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::JournalId;
use crate::map::journal::{JournalSize, JournalWriter};
use crate::map::state::{Checkpointed, Frozen};
use crate::map::tree::{self, Extent, Segments, TreeError, WrittenTree};
use crate::store::{ListScope, ObjectName, StoreError, StoreErrorKind};
use crate::units::{Epoch, VolumeName};

/// Dead bytes in segments that are not worth a rewrite.
const DEAD_BYTES_MIN: u64 = 4 << 20;

#[derive(Debug)]
pub(super) enum CheckpointError {
    /// Nothing changed; it may be tried again.
    NoSpace(StoreError),
    /// A cleaning met a page that cannot be read, or found no space: nothing changed, and nothing depends on it.
    NotCleaned(String),
    /// The volume failed.
    Failed(VolumeError),
}

impl CheckpointError {
    /// Where a cleaning finds no space, a checkpoint of what changed may find enough.
    fn of(self, extent: Extent) -> Self {
        match (self, extent) {
            (Self::NoSpace(error), Extent::Whole) => Self::NotCleaned(with_causes(&error)),
            (error, _) => error,
        }
    }

    pub(super) fn to_volume_error(&self, name: &VolumeName) -> VolumeError {
        match self {
            Self::NoSpace(source) => {
                VolumeError::from_store(source.clone(), format!("volume {name}: no space to write its map down"))
            }
            Self::NotCleaned(text) => VolumeError::new(
                VolumeErrorKind::Failed,
                format!("volume {name}: its map was not written anew: {text}"),
            ),
            Self::Failed(error) => error.clone(),
        }
    }
}

/// Writes a checkpoint and publishes a header in the given state. Closed headers name no journals.
pub(super) async fn write(
    keeper: &Keeper,
    frozen: Frozen,
    state: HeaderState,
    amendment: Amendment,
    extent: Extent,
) -> Result<(), CheckpointError> {
    if frozen.epoch_next > EPOCH_LAST {
        // A header without epochs below its limit is none.
        let error = used_up(&keeper.volume.name);
        keeper.volume.fail(error.clone());
        return Err(CheckpointError::Failed(error));
    }
    keeper.sync().await.map_err(CheckpointError::Failed)?;
    let old = keeper.header.borrow().clone();
    let mut number = || next_number(keeper);
    let segments = Segments::new(&keeper.io, old.id, old.generation, &mut number);
    let written = tree::write(&keeper.volume.map, &frozen, extent, segments).await;
    let written = written.map_err(|error| match extent {
        Extent::Whole => CheckpointError::NotCleaned(with_causes(&error)),
        Extent::Changed => tree_failed(keeper, error),
    })?;
    let spare = match state {
        HeaderState::Closed => None,
        _ => match new_journal(keeper, &old).await {
            Ok(journal) => Some(journal),
            Err(error) => {
                remove_all(keeper, written.segments).await;
                return Err(error.of(extent));
            }
        },
    };
    let header = amendment.apply(next_header(keeper, &old, &frozen, (&written, extent), state, spare.as_ref()));
    debug_assert!(extent == Extent::Changed || !is_mostly_dead(&header), "cleaning would never end");
    if let Err(error) = keeper.publish_header(&header).await {
        let error = store_failed(keeper, error);
        if let CheckpointError::NoSpace(_) = error {
            remove_all(keeper, written.segments).await;
            remove_all(keeper, spare.map(|journal| journal.object()).into_iter().collect()).await;
        }
        return Err(error.of(extent));
    }
    // Whoever took over may have read the header before this one: it needs what that one names, and the epochs above its limit.
    keeper.volume.check_not_superseded(&keeper.io).await.map_err(CheckpointError::Failed)?;
    let keep = written.segments.clone();
    let alone = is_alone(&header);
    adopt(keeper, header, written, &frozen, spare).await;
    if extent == Extent::Whole && alone {
        remove_segments_but(keeper, &keep).await;
    }
    Ok(())
}

/// Segments fill up with pages that later checkpoints replaced. When most of their bytes are such, the whole tree is written
/// anew, and they go: at once when no other volume can name their pages, otherwise when collection finds that none does. That
/// takes long for a large map, so it is never done while somebody waits.
pub(super) fn is_mostly_dead(header: &Header) -> bool {
    header.segment_bytes > 2 * header.live_bytes + DEAD_BYTES_MIN
}

/// Whether no other volume has ever shared its objects and pages.
fn is_alone(header: &Header) -> bool {
    header.parent.is_none() && header.shared_epoch == Epoch(0)
}

async fn remove_segments_but(keeper: &Keeper, keep: &[ObjectName]) {
    let names = match list_all(&keeper.io, ListScope::Metadata(keeper.volume.id)).await {
        Ok(names) => names,
        Err(error) => return tracing::warn!(volume = %keeper.volume.name(), %error, "cannot look for old segments"),
    };
    // Never a successor's: we may have slept since we looked whether there is one.
    let generation = keeper.volume.generation;
    let ours = |name: &ObjectName| matches!(name, ObjectName::Segment { generation: of, .. } if *of <= generation);
    remove_all(keeper, names.into_iter().filter(|name| ours(name) && !keep.contains(name)).collect()).await;
}

/// No header names these, and the space is wanted.
async fn remove_all(keeper: &Keeper, objects: Vec<ObjectName>) {
    for object in objects {
        remove(keeper, object).await;
    }
}

async fn new_journal(keeper: &Keeper, old: &Header) -> Result<JournalWriter, CheckpointError> {
    let number = next_number(keeper);
    let id = JournalId { volume: old.id, generation: old.generation, number };
    JournalWriter::create(&keeper.io, id, JournalSize::Large).await.map_err(|error| store_failed(keeper, error))
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
    (written, extent): (&WrittenTree, Extent),
    state: HeaderState,
    spare: Option<&JournalWriter>,
) -> Header {
    let next = keeper.header.borrow().next_journal;
    Header {
        state,
        epoch: frozen.epoch,
        shared_epoch: frozen.shared_epoch,
        epoch_limit: Epoch(frozen.epoch_next.0 + EPOCHS_RESERVED),
        change_through: frozen.through,
        segment_bytes: match extent {
            Extent::Changed => old.segment_bytes + written.segment_bytes,
            Extent::Whole => written.segment_bytes,
        },
        live_bytes: match extent {
            // Pages that a parent wrote were never counted, and cannot be taken off.
            Extent::Changed => (old.live_bytes + written.bytes_added).saturating_sub(written.bytes_replaced),
            Extent::Whole => written.bytes_added,
        },
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
        tracing::warn!(volume = %keeper.volume.name(), %error, "an outdated object stays");
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn store_failed(keeper: &Keeper, error: StoreError) -> CheckpointError {
    if error.kind() == StoreErrorKind::NoSpace {
        return CheckpointError::NoSpace(error);
    }
    CheckpointError::Failed(keeper.fail(error, "could not write its map down"))
}

fn tree_failed(keeper: &Keeper, error: TreeError) -> CheckpointError {
    let failure = match error {
        TreeError::Store(error) => return store_failed(keeper, error),
        damaged @ TreeError::Damaged { .. } => {
            let error =
                VolumeError::new(VolumeErrorKind::Damaged, format!("volume {}: {damaged}", keeper.volume.name()));
            keeper.volume.fail(error.clone());
            error
        }
    };
    CheckpointError::Failed(failure)
}
