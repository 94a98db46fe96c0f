//! Opening a volume: from its name to a live map, in the order of rules C2 and C3.
//!
//! ```text
//!   lock ─► header g+1 "taking over", exclusively ─► only then: header g, its journals, the soft journal
//!        ─► sync what a dead predecessor wrote ─► checkpoint what was replayed ─► header g+1 "live" ─► remove generations ≤ g
//! ```
//! The highest generation's header is the volume; one that says *taking over* points back to the one that holds the truth.
//! Every step can be the last before a crash: docs/map-format.md says what each leaves.

use super::keeper::KeeperSeed;
use super::limits::Throttle;
use super::naming::refuse_outdated;
use super::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use crate::clock;
use crate::map::Map;
use crate::map::format::header::{Header, HeaderState, Unfinished, VolumeKind};
use crate::map::format::journal::{JournalId, Record};
use crate::map::format::name as name_record;
use crate::map::journal::{self, JournalSize, JournalWriter, ReplayError};
use crate::map::leaf::{Leaf, leaf_of};
use crate::map::overlay::Granules;
use crate::map::soft_journal::{Change, ReadError, SoftJournal};
use crate::map::state::{Checkpointed, MapSeed};
use crate::map::tree::{self, Extent, Segments, TreeError};
use crate::store::io::{self, Io};
use crate::store::{Lease, ListScope, LockMode, ObjectName, PublishMode, Store, StoreError, StoreErrorKind};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Epochs that a header reserves: so many objects may leave the map before a new header is needed. An opening uses them up,
/// so 40 bits last for 16 million openings.
pub const EPOCHS_RESERVED: u64 = 1 << 16;

/// An opening numbers its journals 1 and 2, its segments from here, and the keeper goes on behind those.
const FIRST_SEGMENT: u32 = 3;

/// Directories of soft journals that a holder's record names at most.
const SOFT_JOURNAL_DIRS_MAX: usize = 8;

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
    // Before the lock replaces it.
    let predecessor = store.holder(id).ok().flatten().and_then(|record| Holder::decode(&record));
    let lease = match options.access {
        Access::ReadWrite => {
            lock(store, id, name, &Holder::successor(predecessor.as_ref(), Some(&options.soft_journal_dir)))?
        }
        Access::ReadOnly => lock_shared(store, id, name)?,
    };
    let lease_of_channel = lease.clone();
    let opening = |io: Io| async move { open(&io, store, lease, name, predecessor.as_ref(), options).await };
    io::block_on(store, Some(&lease_of_channel), opening)
}

/// Takes the volume's lock for this process, and records it as the holder.
///
/// # Errors
/// [`VolumeErrorKind::Held`], with the holder's host and process where they are known.
pub fn lock(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, holder: &Holder) -> Result<Lease, VolumeError> {
    store.lock(id, LockMode::Exclusive, &holder.encode()).map_err(|error| lock_error(store, id, name, error))
}

/// Takes the volume's lock together with other readers: nobody changes or removes it meanwhile.
///
/// # Errors
/// [`VolumeErrorKind::Held`] when somebody has it for itself.
pub fn lock_shared(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> Result<Lease, VolumeError> {
    store.lock(id, LockMode::Shared, &[]).map_err(|error| lock_error(store, id, name, error))
}

fn lock_error(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, error: StoreError) -> VolumeError {
    let text = match error.kind() {
        StoreErrorKind::Held => held_by(store, id, name),
        StoreErrorKind::BeingRead => format!("volume {name} is being read; try again when its readers have ended"),
        _ => format!("cannot lock volume {name}"),
    };
    VolumeError::from_store(error, text)
}

fn held_by(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> String {
    match store.holder(id).ok().flatten().and_then(|record| Holder::decode(&record)) {
        Some(holder) => format!("volume {name} is in use by process {} on host {}", holder.pid, holder.host),
        None => format!("volume {name} is in use by another process"),
    }
}

/// Who holds a lease, as the lock's record says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
    /// When the process started, in clock ticks after boot: a later process of the same number is another one.
    pub started: u64,
    pub boot: String,
    /// Where its soft journal is, and perhaps those of its predecessors of this boot, if it could not open the volume.
    #[serde(default)]
    pub soft_journal_dirs: Vec<PathBuf>,
}

impl Holder {
    /// This process, taking a volume over from `predecessor`; with its soft journals in `dir`, if it makes any.
    pub fn successor(predecessor: Option<&Holder>, dir: Option<&Path>) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let absolute = |dir: &Path| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let mut soft_journal_dirs: Vec<_> = dir.map(absolute).into_iter().collect();
        let older = dirs_of(predecessor).iter().filter(|older| !soft_journal_dirs.contains(older)).cloned();
        let older: Vec<_> = older.take(SOFT_JOURNAL_DIRS_MAX - 1).collect();
        soft_journal_dirs.extend(older);
        let (pid, started, boot) = (std::process::id(), clock::process_start_ticks(), clock::boot_id());
        Self { host, pid, started, boot, soft_journal_dirs }
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields become JSON")
    }

    pub fn decode(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }
}

/// Where the soft journal of a holder of this boot may be.
fn dirs_of(holder: Option<&Holder>) -> &[PathBuf] {
    holder.filter(|holder| holder.boot == clock::boot_id()).map_or(&[], |holder| &holder.soft_journal_dirs)
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
    let mut header = read_generation(io, id, highest, name).await?;
    // More than one step when a power cut took back a header that its dying writer had not made durable.
    while let HeaderState::TakingOver { previous } = header.state {
        if previous >= header.generation {
            return Err(damaged(name, &format!("header {id}.{} points forward", header.generation.0)));
        }
        header = read_generation(io, id, previous, name).await?;
    }
    Ok((header, highest))
}

/// The generations of which the volume has a header, ascending.
///
/// # Errors
/// What the store reports.
pub async fn header_generations(io: &Io, id: VolumeId) -> Result<Vec<Generation>, StoreError> {
    let names = list_all(io, ListScope::Metadata(id)).await?;
    let generation = |name| match name {
        ObjectName::Header { generation, .. } => Some(generation),
        _ => None,
    };
    Ok(names.into_iter().filter_map(generation).collect())
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
    let opening = Opening { io, id, name, predecessor, options };
    let (base, highest) = read_header(io, id, name).await?;
    refuse_removed(&base, name)?;
    refuse_writing_snapshot(&base, name, options.access)?;
    let mine = highest.next();
    if options.access == Access::ReadWrite {
        opening.begin_take_over(&base, mine).await?;
    }
    // Read again: until our header was there, a predecessor could still change what it says.
    let base = Header { unfinished: None, ..read_generation(io, id, base.generation, name).await? };
    let map = opening.map(&base, mine)?;
    let unclean = opening.replay(&map, &base).await?;
    let keeper = match options.access {
        Access::ReadOnly => None,
        Access::ReadWrite => Some(opening.publish(&map, &base, mine, unclean).await?),
    };
    let volume = Volume {
        id,
        name: name.clone(),
        size: base.size.bytes().into(),
        object_size: base.object_size,
        access: options.access,
        generation: mine,
        store: Arc::clone(store),
        lease,
        map,
        dirty: Default::default(),
        claims: Default::default(),
        gate: Default::default(),
        rounds: Default::default(),
        throttle: Throttle::new(base.limits),
        failure: Default::default(),
        out_of_space: false.into(),
        checkpoints: 0.into(),
        keeper: Default::default(),
    };
    Ok(Opened { volume: Arc::new(volume), keeper })
}

struct Opening<'a> {
    io: &'a Io,
    id: VolumeId,
    name: &'a VolumeName,
    predecessor: Option<&'a Holder>,
    options: &'a OpenOptions,
}

impl Opening<'_> {
    fn store_error(&self, error: StoreError, doing: &str) -> VolumeError {
        VolumeError::from_store(error, format!("cannot open volume {}: {doing} failed", self.name))
    }

    async fn begin_take_over(&self, base: &Header, mine: Generation) -> Result<(), VolumeError> {
        let state = HeaderState::TakingOver { previous: base.generation };
        let header = Header { state, generation: mine, ..base.clone() };
        let object = ObjectName::Header { volume: self.id, generation: mine };
        let published = self.io.publish(object, &header.encode(), PublishMode::Exclusive).await;
        published.map_err(|error| match error.kind() {
            StoreErrorKind::Exists => {
                let text = format!("volume {} is being opened by somebody else at this moment", self.name);
                VolumeError::new(VolumeErrorKind::Held, text)
            }
            _ => self.store_error(error, "writing the new header"),
        })
    }

    fn map(&self, base: &Header, mine: Generation) -> Result<Map, VolumeError> {
        let soft = match self.options.access {
            Access::ReadOnly => None,
            Access::ReadWrite => {
                let dir = &self.options.soft_journal_dir;
                let made = SoftJournal::create(dir, self.id, mine);
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
            granules: Granules::new(base.object_size, self.options.granule_bytes),
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
        let changes = self.soft_changes(base.generation, through)?;
        for Change { number, block, step } in changes {
            let leaf = self.loaded(map, block).await?;
            let taken = map.replay_step(block, step).expect("the leaf was just loaded, and is held");
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
    fn soft_changes(&self, generation: Generation, through: u64) -> Result<Vec<Change>, VolumeError> {
        let expected = dirs_of(self.predecessor);
        for dir in [&self.options.soft_journal_dir].into_iter().chain(expected) {
            match SoftJournal::read(dir, self.id, generation, through) {
                Ok(changes) => return Ok(changes),
                Err(ReadError::Missing) => {}
                Err(ReadError::Io(error)) => return Err(self.soft_error(dir, &error)),
                Err(ReadError::Format(error)) => return Err(damaged(self.name, &error)),
            }
        }
        if expected.is_empty() {
            return Ok(Vec::new());
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
        let journal = |number| JournalId { volume: self.id, generation: mine, number };
        let create = |number| JournalWriter::create(self.io, journal(number), JournalSize::Small);
        let current = create(1).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let next = create(2).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let (header, number) = self.checkpoint(map, base, mine).await?;
        let object = ObjectName::Header { volume: self.id, generation: mine };
        let published = self.io.publish(object, &header.encode(), PublishMode::Replace).await;
        published.map_err(|error| self.store_error(error, "writing the new header"))?;
        self.remove_older(mine).await;
        let soft_journal_dir = self.options.soft_journal_dir.clone();
        Ok(KeeperSeed { header, current, next, number, soft_journal_dir })
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
            epoch_limit: Epoch((frozen.epoch_next.0 + EPOCHS_RESERVED).min(Epoch::MAX.0)),
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
            let text = format!("{name} is a snapshot, which is never written: open it read-only, or clone it");
            Err(VolumeError::new(VolumeErrorKind::ReadOnly, text))
        }
    }
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
