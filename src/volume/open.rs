//! Opening a volume: from its name to a live map, in the order of rules C2 and C3.
//!
//! ```text
//!   lock ─► header g+1 "taking over", exclusively ─► only then: header g, its journals, the soft journal
//!        ─► sync what a dead predecessor wrote ─► checkpoint what was replayed ─► header g+1 "live" ─► remove generations ≤ g
//! ```
//! headers.rs says which header is the truth, replay.rs what the journals add to it, publish.rs how this opening becomes the truth.
//! Every step can be the last before a crash: docs/map-format.md says what each leaves.

mod headers;
mod publish;
mod replay;

use super::absorb::FullBlocks;
use super::keeper::KeeperSeed;
use super::lease::watch::Watch;
use super::lease::{self, Doubt, Taken, is_closed};
use super::limits::Throttle;
use super::unfenced::Unfenced;
use super::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use crate::map::Map;
use crate::map::format::header::{self, Header, HeaderState, VolumeKind};
use crate::map::overlay::Granules;
use crate::map::soft_journal::SoftJournal;
use crate::map::state::MapSeed;
use crate::map::tree::TreeError;
use crate::store::io::{self, Io};
use crate::store::{Lease, ObjectName, PublishMode, Store, StoreError, StoreErrorKind};
use crate::units::{Epoch, Generation, VolumeId, VolumeName};
use std::path::Path;
use std::sync::Arc;

pub use super::lease::{Holder, lock, lock_shared};
use headers::read_truth;
pub use headers::{find, header_generations, list_all, read_any_header, read_header, read_header_of};

/// Epochs that a header reserves: so many objects may leave the map before a new header is needed. An opening uses them up,
/// so 40 bits last for 16 million openings.
pub const EPOCHS_RESERVED: u64 = 1 << 16;

/// The last epoch from which a header can reserve so many.
pub(super) const EPOCH_LAST: Epoch = Epoch(Epoch::MAX.0 - EPOCHS_RESERVED);

/// An open volume, and what its keeper needs; a read-only one has no keeper.
pub struct Opened {
    pub volume: Arc<Volume>,
    pub keeper: Option<KeeperSeed>,
}

/// Takes the lease and opens the volume, with a channel of its own.
pub(super) fn open_blocking(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    options: &OpenOptions,
) -> Result<Opened, VolumeError> {
    let id = io::block_on(store, None, |io| async move { find(&io, name).await })?;
    let Taken { lease, predecessor } = match options.access {
        Access::ReadWrite => lease::take(store, id, name, &options.lease, Some(&options.soft_journal_dir))?,
        Access::ReadOnly => {
            let lease = lock_shared(store, id, name)?;
            Taken { lease, predecessor: lease::holder(store, id) }
        }
    };
    let (held, before) = (lease.clone(), predecessor.clone());
    let opening = |io: Io| async move { open(&io, store, lease, name, predecessor.as_ref(), options).await };
    let opened = io::block_on(store, Some(&held), opening);
    let refused = opened.as_ref().is_err_and(|error| error.kind() == VolumeErrorKind::Held);
    if refused && options.access == Access::ReadWrite {
        lease::put_back(store, &held, before.as_ref());
    }
    opened
}

/// Opens a volume whose lease the caller has. `predecessor` is who had it before, if that is known.
///
/// # Errors
/// When anything of it cannot be read or written, or is damaged.
pub async fn open(
    io: &Io,
    store: &Arc<dyn Store>,
    lease: Lease,
    name: &VolumeName,
    predecessor: Option<&Holder>,
    options: &OpenOptions,
) -> Result<Opened, VolumeError> {
    let id = lease.volume;
    let opening = Opening { io, store, id, name, predecessor, options };
    let (base, highest) = read_header(io, id, name).await?;
    refuse_removed(&base, name)?;
    refuse_writing_snapshot(&base, name, options.access)?;
    refuse_used_up(&base, name, options.access)?;
    let mine = highest.next();
    let doubts = opening.settle(&base)?;
    if options.access == Access::ReadWrite {
        opening.begin_take_over(&base, mine, PublishMode::Exclusive).await?;
    }
    // Read again: until our header was there, a predecessor could still change what it says.
    let base = opening.read_again(&base, highest).await?;
    let doubts = doubts.map_or_else(|| opening.settle(&base), |doubts| Ok(Some(doubts)))?;
    let base = if doubts.unwrap_or_default().is_empty() { base } else { unfence(base) };
    let map = opening.map(&base, mine)?;
    let unclean = opening.replay(&map, &base).await?;
    let keeper = match options.access {
        Access::ReadOnly => None,
        Access::ReadWrite => Some(opening.publish(&map, &base, mine, unclean).await?),
    };
    if options.access == Access::ReadWrite {
        lease::forget_doubts(store, &lease);
    }
    let watch = Watch::new(options.lease.valid_for);
    let volume = Volume {
        id,
        name: name.clone(),
        size: base.size.bytes().into(),
        object_size: base.object_size,
        access: options.access,
        generation: mine,
        store: Arc::clone(store),
        lease,
        watch,
        unfenced: Unfenced::new(base.unfenced),
        full_blocks: FullBlocks::default(),
        map,
        dirty: Default::default(),
        claims: Default::default(),
        gate: Default::default(),
        changes: Default::default(),
        resizing: Default::default(),
        rounds: Default::default(),
        throttle: Throttle::new(base.limits),
        failure: Default::default(),
        closed: false.into(),
        out_of_space: false.into(),
        checkpoints: 0.into(),
        keeper: Default::default(),
    };
    Ok(Opened { volume: Arc::new(volume), keeper })
}

struct Opening<'a> {
    io: &'a Io,
    store: &'a Arc<dyn Store>,
    id: VolumeId,
    name: &'a VolumeName,
    predecessor: Option<&'a Holder>,
    options: &'a OpenOptions,
}

impl Opening<'_> {
    fn store_error(&self, error: StoreError, doing: &str) -> VolumeError {
        VolumeError::from_store(error, format!("cannot open volume {}: {doing} failed", self.name))
    }

    /// Whose writes may still come, when the volume was not closed; `None` when it was.
    fn settle(&self, base: &Header) -> Result<Option<Vec<Doubt>>, VolumeError> {
        let read_only = self.options.access == Access::ReadOnly;
        if read_only && base.unfenced.is_some() {
            return Err(self.unsettled());
        }
        if is_closed(base) {
            return Ok(None);
        }
        let doubts = lease::settle(self.store, self.name, self.predecessor, &self.options.lease)?;
        if read_only && !doubts.is_empty() { Err(self.unsettled()) } else { Ok(Some(doubts)) }
    }

    fn unsettled(&self) -> VolumeError {
        let text = format!(
            "parts of volume {} may still be written by a holder that was cut off: open it for writing once, so that they \
             are copied",
            self.name
        );
        VolumeError::new(VolumeErrorKind::Busy, text)
    }

    async fn begin_take_over(&self, base: &Header, mine: Generation, mode: PublishMode) -> Result<(), VolumeError> {
        let state = HeaderState::TakingOver { previous: base.generation };
        let header = Header { state, generation: mine, ..base.clone() };
        let object = ObjectName::Header { volume: self.id, generation: mine };
        let published = self.io.publish(object, &header.encode(), mode).await;
        published.map_err(|error| match error.kind() {
            StoreErrorKind::Exists => {
                let text = format!("volume {} is being opened by somebody else at this moment", self.name);
                VolumeError::new(VolumeErrorKind::Held, text)
            }
            _ => self.store_error(error, "writing the new header"),
        })
    }

    /// The truth as of now, when our header keeps everybody else from changing it. A holder in doubt, who was still at its own opening,
    /// may have become the truth between our first look and that: then our header points to it.
    async fn read_again(&self, base: &Header, highest: Generation) -> Result<Header, VolumeError> {
        let now = read_truth(self.io, self.id, highest, self.name).await?;
        if now.generation != base.generation && self.options.access == Access::ReadWrite {
            self.begin_take_over(&now, highest.next(), PublishMode::Replace).await?;
        }
        Ok(Header { unfinished: None, ..now })
    }

    fn granules(&self, base: &Header) -> Granules {
        Granules::new(base.object_size, self.options.granule_bytes.min(base.object_size.bytes()))
    }

    fn map(&self, base: &Header, mine: Generation) -> Result<Map, VolumeError> {
        let soft = match self.options.access {
            Access::ReadOnly => None,
            Access::ReadWrite => {
                let dir = &self.options.soft_journal_dir;
                let made = SoftJournal::create(dir, self.id, mine, self.granules(base));
                Some(made.map_err(|error| self.soft_error(dir, &error))?)
            }
        };
        Ok(Map::new(MapSeed {
            volume: self.id,
            shared_epoch: base.shared_epoch,
            epoch: base.epoch_limit,
            epoch_limit: Epoch((base.epoch_limit.0 + EPOCHS_RESERVED).min(Epoch::MAX.0)),
            root: base.root,
            change_through: base.change_through,
            granules: self.granules(base),
            cache_bytes: self.options.cache_bytes,
            soft,
        }))
    }

    fn soft_error(&self, dir: &Path, error: &std::io::Error) -> VolumeError {
        let text = format!("cannot open volume {}: soft journal in {}: {error}", self.name, dir.display());
        VolumeError::new(VolumeErrorKind::Store, text)
    }
}

/// The header, with everything that its holder may write in place counted as shared, and as unfenced (rule C4).
fn unfence(base: Header) -> Header {
    // Its holder raises the limit only after it has seen that nobody took over.
    let through = Epoch(base.epoch_limit.0 - 1);
    let above = base.unfenced.map_or(base.shared_epoch, |range| range.above.min(base.shared_epoch));
    let unfenced = (above < through).then_some(header::Unfenced { above, through });
    Header { unfenced: unfenced.or(base.unfenced), shared_epoch: through, ..base }
}

/// # Errors
/// When the volume is being removed.
pub fn refuse_removed(header: &Header, name: &VolumeName) -> Result<(), VolumeError> {
    if header.state != HeaderState::Removed {
        return Ok(());
    }
    let text = format!("volume {name} is being removed; `archvhost remove {name}` goes on with it");
    Err(VolumeError::new(VolumeErrorKind::NotFound, text))
}

fn refuse_writing_snapshot(header: &Header, name: &VolumeName, access: Access) -> Result<(), VolumeError> {
    match (header.kind, access) {
        (VolumeKind::Disk, _) | (VolumeKind::Snapshot, Access::ReadOnly) => Ok(()),
        (VolumeKind::Snapshot, Access::ReadWrite) => {
            let text = format!(
                "{name} is a snapshot, which never changes: make a volume of it with `archvhost clone {name} NEW`, or attach it \
                 with --read-only"
            );
            Err(VolumeError::new(VolumeErrorKind::ReadOnly, text))
        }
    }
}

/// An opening begins at the header's limit, reserves epochs, and closes with a header that reserves as many again.
fn refuse_used_up(header: &Header, name: &VolumeName, access: Access) -> Result<(), VolumeError> {
    let last = EPOCH_LAST.0 - EPOCHS_RESERVED;
    if access == Access::ReadOnly || header.epoch_limit.0 < last { Ok(()) } else { Err(used_up(name)) }
}

pub(super) fn used_up(name: &VolumeName) -> VolumeError {
    let text = format!(
        "volume {name} has used up its epochs and takes no more writes: attach it with --read-only and copy it to a new volume"
    );
    VolumeError::new(VolumeErrorKind::ReadOnly, text)
}

fn damaged(name: &VolumeName, what: &dyn std::fmt::Display) -> VolumeError {
    VolumeError::new(VolumeErrorKind::Damaged, format!("volume {name} cannot be opened: {what}"))
}

pub(super) fn tree_error(name: &VolumeName, error: TreeError) -> VolumeError {
    match error {
        TreeError::Store(error) if error.kind() == StoreErrorKind::NotFound => {
            let source = error.to_string();
            VolumeError::new(VolumeErrorKind::Damaged, format!("volume {name}: a part of its map is missing: {source}"))
        }
        TreeError::Store(error) => VolumeError::from_store(error, format!("volume {name}: cannot read its map")),
        damage @ TreeError::Damaged { .. } => {
            VolumeError::new(VolumeErrorKind::Damaged, format!("volume {name}: its map is damaged: {damage}"))
        }
    }
}
