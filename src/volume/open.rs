//! Opening a volume: from its name to a live map, in the order of rules C2 and C3.
//!
//! ```text
//!   lock ─► header g+1 "taking over", exclusively ─► only then: header g, its journals, the soft journal
//!        ─► sync what a dead predecessor wrote ─► checkpoint what was replayed ─► header g+1 "live" ─► remove generations ≤ g
//! ```
//! The highest generation's header is the volume; one that says *taking over* points back to the one that holds the truth.
//! Every step can be the last before a crash: docs/map-format.md says what each leaves.

use super::absorb::FullBlocks;
use super::keeper::KeeperSeed;
use super::lease::watch::Watch;
use super::lease::{self, Doubt, Taken, dirs_of, is_closed};
use super::limits::Throttle;
use super::naming::refuse_outdated;
use super::unfenced::Unfenced;
use super::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use crate::map::Map;
use crate::map::format::header::{self, Header, HeaderState, Unfinished, VolumeKind};
use crate::map::format::journal::{JournalId, Record};
use crate::map::format::name as name_record;
use crate::map::journal::{self, JournalSize, JournalWriter, ReplayError};
use crate::map::leaf::{Leaf, leaf_of};
use crate::map::overlay::Granules;
use crate::map::soft_journal::{Change, Left, ReadError, SoftJournal};
use crate::map::state::{Checkpointed, MapSeed};
use crate::map::tree::{self, Extent, Segments, TreeError};
use crate::store::io::{self, Io};
use crate::store::{Lease, ListScope, ObjectName, PublishMode, Store, StoreError, StoreErrorKind};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use std::path::Path;
use std::sync::Arc;

pub use super::lease::{Holder, lock, lock_shared};

/// Epochs that a header reserves: so many objects may leave the map before a new header is needed. An opening uses them up,
/// so 40 bits last for 16 million openings.
pub const EPOCHS_RESERVED: u64 = 1 << 16;

/// The last epoch from which a header can reserve so many.
pub(super) const EPOCH_LAST: Epoch = Epoch(Epoch::MAX.0 - EPOCHS_RESERVED);

/// An opening numbers its journals 1 and 2, its segments from here, and the keeper goes on behind those.
const FIRST_SEGMENT: u32 = 3;

/// Names asked of the store at a time.
const LIST_LIMIT: usize = 1024;

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

/// The id behind a name.
///
/// # Errors
/// When there is no such volume or its record is damaged.
pub async fn find(io: &Io, name: &VolumeName) -> Result<VolumeId, VolumeError> {
    let bytes = io.read_all(ObjectName::Name(name.clone())).await.map_err(|error| match error.kind() {
        StoreErrorKind::NotFound => {
            VolumeError::new(VolumeErrorKind::NotFound, format!("there is no volume {name} in this store"))
        }
        _ => VolumeError::from_store(error, format!("cannot look up volume {name}")),
    })?;
    name_record::decode(&bytes).map_err(|error| damaged(name, &error))
}

/// The header that holds the truth about the volume of this name, and the highest generation there is.
///
/// # Errors
/// When there is none, it is damaged, the volume was never finished, or the name is one that
/// does not count ([`super::naming`]).
pub async fn read_header(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let (header, highest) = read_header_of(io, id, name).await?;
    refuse_outdated(io, &header, name).await?;
    Ok((header, highest))
}

/// As [`read_header`], whether the name counts or not: it is for error texts only.
///
/// # Errors
/// When there is none, it is damaged, or the volume was never finished.
pub async fn read_header_of(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let (header, highest) = read_any_header(io, id, name).await?;
    let Some(Unfinished { with }) = header.unfinished else { return Ok((header, highest)) };
    let unfinished = || {
        let text =
            format!("there is no volume {name} in this store: making it was interrupted (gc takes what is left)");
        VolumeError::new(VolumeErrorKind::NotFound, text)
    };
    if with == id {
        return Err(unfinished());
    }
    // A member of a group exists as soon as the group's leader does. A leader that is gone altogether never did.
    let failed = |error| VolumeError::from_store(error, format!("cannot read the header of volume {name}"));
    if header_generations(io, with).await.map_err(failed)?.is_empty() {
        return Err(unfinished());
    }
    let (leader, _) = read_any_header(io, with, name).await?;
    if leader.unfinished.is_some() {
        return Err(unfinished());
    }
    Ok((Header { unfinished: None, ..header }, highest))
}

/// As [`read_header_of`], but also of a volume that was never finished.
///
/// # Errors
/// When there is none, or it is damaged.
pub async fn read_any_header(io: &Io, id: VolumeId, name: &VolumeName) -> Result<(Header, Generation), VolumeError> {
    let failed = |error| VolumeError::from_store(error, format!("cannot read the header of volume {name}"));
    let generations = header_generations(io, id).await.map_err(failed)?;
    let Some(highest) = generations.last().copied() else {
        let text = format!("volume {name} ({id}) has a name but no header: it is lost, or being removed");
        return Err(VolumeError::new(VolumeErrorKind::Damaged, text));
    };
    Ok((read_truth(io, id, highest, name).await?, highest))
}

/// The header that holds the truth as of a generation.
async fn read_truth(io: &Io, id: VolumeId, generation: Generation, name: &VolumeName) -> Result<Header, VolumeError> {
    let mut header = read_generation(io, id, generation, name).await?;
    // More than one step when a power cut took back a header that its dying writer had not made durable.
    while let HeaderState::TakingOver { previous } = header.state {
        if previous >= header.generation {
            return Err(damaged(name, &format!("header {id}.{} points forward", header.generation.0)));
        }
        header = read_generation(io, id, previous, name).await?;
    }
    Ok(header)
}

/// Listings that must find no header before there is none: one that runs while a holder replaces header *g* by *g* + 1 may
/// miss both.
const EMPTY_LISTINGS: usize = 4;

/// The generations of which the volume has a header, ascending.
///
/// # Errors
/// What the store reports.
pub async fn header_generations(io: &Io, id: VolumeId) -> Result<Vec<Generation>, StoreError> {
    let generation = |name| match name {
        ObjectName::Header { generation, .. } => Some(generation),
        _ => None,
    };
    for _ in 0..EMPTY_LISTINGS {
        let names = list_all(io, ListScope::Metadata(id)).await?;
        let generations: Vec<_> = names.into_iter().filter_map(generation).collect();
        if !generations.is_empty() {
            return Ok(generations);
        }
    }
    Ok(Vec::new())
}

/// All names of a scope that is known to be small (a volume's metadata).
pub async fn list_all(io: &Io, scope: ListScope) -> Result<Vec<ObjectName>, StoreError> {
    let mut names: Vec<ObjectName> = Vec::new();
    loop {
        let page = io.list(scope, names.last().cloned(), LIST_LIMIT).await?;
        let last = page.len() < LIST_LIMIT;
        names.extend(page);
        if last {
            return Ok(names);
        }
    }
}

async fn read_generation(
    io: &Io,
    id: VolumeId,
    generation: Generation,
    name: &VolumeName,
) -> Result<Header, VolumeError> {
    let object = ObjectName::Header { volume: id, generation };
    let bytes = io.read_all(object.clone()).await;
    let bytes = bytes.map_err(|error| VolumeError::from_store(error, format!("cannot read volume {name}")))?;
    let header = Header::decode(&bytes).map_err(|error| damaged(name, &format!("{object}: {error}")))?;
    if (header.id, header.generation) != (id, generation) {
        return Err(damaged(name, &format!("{object} is another volume's header")));
    }
    Ok(header)
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

    /// Brings the map up to the last change that its last holder completed. Returns whether that holder had not closed.
    async fn replay(&self, map: &Map, base: &Header) -> Result<bool, VolumeError> {
        if let HeaderState::Closed | HeaderState::Building = base.state {
            return Ok(false);
        }
        let mut through = base.change_through;
        for number in [base.current_journal, base.next_journal] {
            let id = JournalId { volume: self.id, generation: base.generation, number };
            let records = journal::read(self.io, id).await.map_err(|error| self.replay_error(error))?;
            for record in records.into_iter().filter(|record| record.through > base.change_through) {
                self.replay_record(map, &record).await?;
                through = through.max(record.through);
            }
        }
        let Left { granules, changes } = self.soft_changes(base.generation, through)?;
        let granules = granules.unwrap_or(map.granules());
        if !granules.make_up_as_much_as(map.granules()) {
            return Err(damaged(self.name, &"its soft journal is of another object size"));
        }
        for Change { number, block, step } in changes {
            let leaf = self.loaded(map, block).await?;
            let taken = map.replay_step(block, step, granules).expect("the leaf was just loaded, and is held");
            drop(leaf);
            if !taken {
                let text = format!("change {number} of its soft journal does not go with block {}", block.0);
                return Err(damaged(self.name, &text));
            }
            through = number;
        }
        map.replayed(through);
        Ok(true)
    }

    /// What the last holder's soft journal has behind the last record. It is where that holder said, if it was of this boot; and
    /// then it must be there: without it, writes that completed would be lost in silence.
    fn soft_changes(&self, generation: Generation, through: u64) -> Result<Left, VolumeError> {
        let expected = dirs_of(self.predecessor);
        for dir in [&self.options.soft_journal_dir].into_iter().chain(expected) {
            match SoftJournal::read(dir, self.id, generation, through) {
                Ok(left) => return Ok(left),
                Err(ReadError::Missing) => {}
                Err(ReadError::Io(error)) => return Err(self.soft_error(dir, &error)),
                Err(ReadError::Format(error)) => return Err(damaged(self.name, &error)),
            }
        }
        if expected.is_empty() {
            return Ok(Left::default());
        }
        let (name, dirs) = (self.name, expected);
        let text = format!(
            "volume {name} was not closed, and the soft journal that its last holder kept on this host, in one of {dirs:?}, is \
             missing: writes that completed without a flush may be lost (docs/operations.md says how to go on)"
        );
        Err(VolumeError::new(VolumeErrorKind::Damaged, text))
    }

    async fn replay_record(&self, map: &Map, record: &Record) -> Result<(), VolumeError> {
        for (block, entry) in &record.changes {
            if !map.cuts_right(entry) {
                let text = format!("a journal's entry of block {} is not cut as its objects are", block.0);
                return Err(damaged(self.name, &text));
            }
            let leaf = self.loaded(map, *block).await?;
            map.replay(*block, entry, &record.ids).expect("the leaf was just loaded, and is held");
            drop(leaf);
        }
        Ok(())
    }

    /// The block's leaf, in memory for as long as it is held.
    async fn loaded(&self, map: &Map, block: BlockIndex) -> Result<Arc<Leaf>, VolumeError> {
        map.load(self.io, leaf_of(block)).await.map_err(|error| tree_error(self.name, error))
    }

    fn replay_error(&self, error: ReplayError) -> VolumeError {
        match error {
            ReplayError::Store(error) if error.kind() == StoreErrorKind::NotFound => {
                damaged(self.name, &"a journal that its header names does not exist")
            }
            ReplayError::Store(error) => self.store_error(error, "reading the journal"),
            damage @ ReplayError::Damaged { .. } => damaged(self.name, &damage),
        }
    }

    /// Makes durable what was replayed, and this generation the truth.
    async fn publish(
        &self,
        map: &Map,
        base: &Header,
        mine: Generation,
        unclean: bool,
    ) -> Result<KeeperSeed, VolumeError> {
        if unclean {
            // What the dead holder completed and had not synced is ours to make durable, its overwrites included.
            self.io.sync_all().await.map_err(|error| self.store_error(error, "making its last writes durable"))?;
        }
        match self.publish_parts(map, base, mine).await {
            Ok(seed) => {
                self.check_not_superseded(mine).await?;
                self.remove_older(mine).await;
                Ok(seed)
            }
            Err(error) => {
                // No header names them, unless the last step failed in doubt.
                if error.kind() == VolumeErrorKind::NoSpace {
                    self.remove_parts(mine).await;
                }
                Err(error)
            }
        }
    }

    async fn publish_parts(&self, map: &Map, base: &Header, mine: Generation) -> Result<KeeperSeed, VolumeError> {
        let journal = |number| JournalId { volume: self.id, generation: mine, number };
        let create = |number| JournalWriter::create(self.io, journal(number), JournalSize::Small);
        let current = create(1).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let next = create(2).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let (header, number) = self.checkpoint(map, base, mine).await?;
        let object = ObjectName::Header { volume: self.id, generation: mine };
        let published = self.io.publish(object, &header.encode(), PublishMode::Replace).await;
        published.map_err(|error| self.store_error(error, "writing the new header"))?;
        let soft_journal_dir = self.options.soft_journal_dir.clone();
        Ok(KeeperSeed { header, current, next, number, soft_journal_dir })
    }

    /// Removes the journals and segments of an opening that found no space for all of them.
    async fn remove_parts(&self, mine: Generation) {
        let names = list_all(self.io, ListScope::Metadata(self.id)).await.unwrap_or_default();
        let parts = names.into_iter().filter(|name| match name {
            ObjectName::Journal { generation, .. } | ObjectName::Segment { generation, .. } => *generation == mine,
            ObjectName::Header { .. } | ObjectName::Data { .. } | ObjectName::Name(_) => false,
        });
        for part in parts {
            let _left_for_collection = self.io.remove(part).await;
        }
    }

    /// Whoever took over meanwhile may have read the header that ours points to, and needs what it names.
    async fn check_not_superseded(&self, mine: Generation) -> Result<(), VolumeError> {
        let successor = ObjectName::Header { volume: self.id, generation: mine.next() };
        match self.io.stat(successor).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.store_error(error, "seeing whether it was taken over")),
            Ok(_) => {
                let text = format!("volume {} was taken over by another holder while it was being opened", self.name);
                Err(VolumeError::new(VolumeErrorKind::Superseded, text))
            }
        }
    }

    /// Pages for what was replayed, the header that names them, not yet published, and the highest number used.
    async fn checkpoint(&self, map: &Map, base: &Header, mine: Generation) -> Result<(Header, u32), VolumeError> {
        let frozen = map.freeze();
        let mut numbers = FIRST_SEGMENT..;
        let mut number = || numbers.next().expect("an opening writes few segments");
        let segments = Segments::new(self.io, self.id, mine, &mut number);
        let written = tree::write(map, &frozen, Extent::Changed, segments).await;
        let written = written.map_err(|error| tree_error(self.name, error))?;
        let header = Header {
            state: HeaderState::Live,
            generation: mine,
            epoch: frozen.epoch,
            epoch_limit: Epoch(frozen.epoch_next.0 + EPOCHS_RESERVED),
            change_through: frozen.through,
            segment_bytes: base.segment_bytes + written.segment_bytes,
            live_bytes: (base.live_bytes + written.bytes_added).saturating_sub(written.bytes_replaced),
            current_journal: 1,
            next_journal: 2,
            root: written.root,
            ..base.clone()
        };
        let (through, epoch_limit) = (frozen.through, header.epoch_limit);
        map.checkpointed(Checkpointed { root: written.root, inner: written.inner, through, epoch_limit });
        Ok((header, numbers.next().expect("an opening writes few segments")))
    }

    /// What lower generations left, segments apart: the map may name those. Failing is no harm; the next opening tries again.
    async fn remove_older(&self, mine: Generation) {
        let names = match list_all(self.io, ListScope::Metadata(self.id)).await {
            Ok(names) => names,
            Err(error) => return tracing::warn!(volume = %self.name, %error, "cannot look for leftovers"),
        };
        let outdated = names.into_iter().filter(|name| match name {
            ObjectName::Header { generation, .. } | ObjectName::Journal { generation, .. } => *generation < mine,
            ObjectName::Segment { .. } | ObjectName::Data { .. } | ObjectName::Name(_) => false,
        });
        for name in outdated {
            if let Err(error) = self.io.remove(name).await {
                tracing::warn!(volume = %self.name, %error, "a leftover stays until the next opening");
            }
        }
        let previous = Generation(mine.0 - 1);
        for dir in [&self.options.soft_journal_dir].into_iter().chain(dirs_of(self.predecessor)) {
            if let Err(error) = SoftJournal::remove_through(dir, self.id, previous)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(volume = %self.name, %error, "an old soft journal stays until the next opening");
            }
        }
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
