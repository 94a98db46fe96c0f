//! `snapshot` and `clone`: a new volume that begins as another is at one moment.
//!
//! The order of what is made durable, for one new volume or a group (rule C8, docs/map-format.md "Branch"):
//! ```text
//!   1  each new header, unfinished, under the new volume's own lock: gc sees that it is being made
//!   2  each name record: from here on nobody else can take the name; looking it up finds an unfinished volume
//!   3  all sources captured at one instant, their headers durable: what they name is written no more
//!   4  the headers of all but the first, with their roots, still unfinished "with" the first
//!   5  the first header, with its root, finished: at this instant all of them exist
//!   6  the other headers once more, plain; then the sources may go on to other roots
//! ```
//! A crash before 5 leaves unfinished volumes, which collection takes; one after 5 leaves all of the group.

use super::info::{VolumeInfo, info};
use super::remove::drop_name;
use crate::clock;
use crate::map::format::header::{Header, HeaderState, Limits, Parent, Unfinished, VolumeKind};
use crate::map::format::name as name_record;
use crate::store::io::{self, Io};
use crate::store::{Lease, ObjectName, PublishMode, Store, StoreErrorKind};
use crate::units::{ByteSize, Epoch, Generation, VolumeId, VolumeName, VolumeSize};
use crate::volume::capture::Captured;
use crate::volume::lease::lock_new;
use crate::volume::open::{Holder, find, lock_shared, read_header};
use crate::volume::{Access, OpenOptions, Volume, VolumeError, VolumeErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// One snapshot of a group.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    pub volume: VolumeName,
    pub name: VolumeName,
}

#[derive(Debug, Clone)]
pub struct CloneRequest {
    pub source: VolumeName,
    pub name: VolumeName,
    /// The source's size when not given; never less.
    pub size: Option<VolumeSize>,
}

#[derive(Debug, Clone)]
pub struct BranchReport {
    /// In the order of the requests.
    pub volumes: Vec<VolumeInfo>,
    /// How long writes waited.
    pub pause: Duration,
}

/// Where a verb finds a volume that it works on: open in this process, or to be opened for the occasion.
pub trait Opened {
    /// The volume, if this process has it open for writing.
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>>;
}

/// All snapshots are of the same instant, and either all of them exist afterwards or none.
///
/// # Errors
/// When a name is taken, a volume is not there or held elsewhere, or the store fails.
pub fn snapshot(
    store: &Arc<dyn Store>,
    requests: &[SnapshotRequest],
    opened: &dyn Opened,
    options: &OpenOptions,
) -> Result<BranchReport, VolumeError> {
    refuse_twice(requests)?;
    for request in requests {
        // Before anything is opened: opening costs more than looking.
        io::block_on(store, None, |io| async move { refuse_taken(&io, &request.name).await })?;
    }
    let sources = Source::open_all(store, requests.iter().map(|request| &request.volume), opened, options)?;
    let branches: Vec<Branch> = requests
        .iter()
        .zip(&sources)
        .map(|(request, source)| Branch {
            source: Arc::clone(&source.volume),
            name: request.name.clone(),
            kind: VolumeKind::Snapshot,
            size: None,
        })
        .collect();
    finish(store, branches, sources)
}

/// # Errors
/// As [`snapshot`], and when the size is less than the source's.
pub fn clone(
    store: &Arc<dyn Store>,
    request: &CloneRequest,
    opened: &dyn Opened,
    options: &OpenOptions,
) -> Result<BranchReport, VolumeError> {
    let CloneRequest { source, name, size } = request.clone();
    let live = opened.open_volume(&source);
    if live.is_none() {
        let copy = request.clone();
        let header = io::block_on(store, None, |io| async move {
            refuse_taken(&io, &copy.name).await?;
            let id = find(&io, &copy.source).await?;
            Ok::<_, VolumeError>(read_header(&io, id, &copy.source).await?.0)
        })?;
        if header.kind == VolumeKind::Snapshot {
            let request = request.clone();
            let id = header.id;
            io::block_on(store, None, |io| async move { clone_snapshot(&io, store, id, &request).await })?;
            return Ok(BranchReport { volumes: vec![info(store, &name)?], pause: Duration::ZERO });
        }
    }
    let source = Source::open(store, &source, opened, options)?;
    let branch = Branch { source: Arc::clone(&source.volume), name, kind: VolumeKind::Disk, size };
    finish(store, vec![branch], vec![source])
}

fn finish(store: &Arc<dyn Store>, branches: Vec<Branch>, sources: Vec<Source>) -> Result<BranchReport, VolumeError> {
    let names: Vec<VolumeName> = branches.iter().map(|branch| branch.name.clone()).collect();
    let branched = io::block_on(store, None, |io| async move { branch(&io, store, &branches).await });
    let closed = Source::close_all(sources);
    let pause = branched?;
    closed?;
    let volumes = names.iter().map(|name| info(store, name)).collect::<Result<_, _>>()?;
    Ok(BranchReport { volumes, pause })
}

/// A volume to work on, and whether it was opened for that only.
pub(super) struct Source {
    pub(super) volume: Arc<Volume>,
    ours: bool,
}

impl Source {
    pub(super) fn open(
        store: &Arc<dyn Store>,
        name: &VolumeName,
        opened: &dyn Opened,
        options: &OpenOptions,
    ) -> Result<Self, VolumeError> {
        if let Some(volume) = opened.open_volume(name) {
            return Ok(Self { volume, ours: false });
        }
        let options = OpenOptions { access: Access::ReadWrite, ..options.clone() };
        Ok(Self { volume: Volume::open(store, name, &options)?, ours: true })
    }

    /// All of them, or none stays open.
    fn open_all<'a>(
        store: &Arc<dyn Store>,
        names: impl Iterator<Item = &'a VolumeName>,
        opened: &dyn Opened,
        options: &OpenOptions,
    ) -> Result<Vec<Self>, VolumeError> {
        let mut sources = Vec::new();
        for name in names {
            match Self::open(store, name, opened, options) {
                Ok(source) => sources.push(source),
                Err(error) => {
                    if let Err(error) = Self::close_all(sources) {
                        tracing::warn!(%error, "cannot close a volume in order");
                    }
                    return Err(error);
                }
            }
        }
        Ok(sources)
    }

    /// Closes all, and then tells the first failure.
    fn close_all(sources: Vec<Self>) -> Result<(), VolumeError> {
        let results: Vec<_> = sources.into_iter().map(Self::close).collect();
        results.into_iter().collect()
    }

    pub(super) fn close(self) -> Result<(), VolumeError> {
        if self.ours { self.volume.close() } else { Ok(()) }
    }
}

/// A volume to be made of an open one.
#[derive(Clone)]
pub struct Branch {
    pub source: Arc<Volume>,
    pub name: VolumeName,
    pub kind: VolumeKind,
    /// The source's size when not given; never less.
    pub size: Option<VolumeSize>,
}

/// Makes all of them of the same instant, or none. Returns how long writes waited.
///
/// # Errors
/// When a name is taken, a size is too small, a source cannot be captured, or the store fails.
///
/// # Panics
/// When two have the same source.
pub async fn branch(io: &Io, store: &Arc<dyn Store>, branches: &[Branch]) -> Result<Duration, VolumeError> {
    for branch in branches {
        refuse_taken(io, &branch.name).await?;
        refuse_smaller(branch.size, branch.source.size(), branch.source.name())?;
    }
    let mut making = Vec::with_capacity(branches.len());
    let result = make(io, store, branches, &mut making).await;
    if result.is_err() {
        unmake_all(io, store, &mut making).await;
    }
    result
}

/// The leader's header may be finished and visible although publishing it failed: it is made unfinished first, so that no part
/// of a group outlives the rest.
async fn unmake_all(io: &Io, store: &Arc<dyn Store>, making: &mut [Making]) {
    let Some(first) = making.first_mut() else { return };
    first.header.state = HeaderState::Building;
    first.header.unfinished = Some(Unfinished { with: first.header.id });
    if let Err(error) = first.publish(io, PublishMode::Replace).await {
        return tracing::warn!(volume = %first.header.name, %error, "a volume that could not be made stays for collection");
    }
    for volume in making.iter().rev() {
        volume.unmake(io, store).await;
    }
}

async fn make(
    io: &Io,
    store: &Arc<dyn Store>,
    branches: &[Branch],
    making: &mut Vec<Making>,
) -> Result<Duration, VolumeError> {
    let mut leader = None;
    for branch in branches {
        let id = VolumeId::random();
        let with = *leader.get_or_insert(id);
        let header = unfinished_header(id, with, branch);
        making.push(Making::begin(io, store, header).await?);
    }
    for volume in making.iter_mut() {
        volume.publish_name(io).await?;
    }
    let sources: Vec<Arc<Volume>> = branches.iter().map(|branch| Arc::clone(&branch.source)).collect();
    let captured = Volume::capture(&sources).await?;
    for ((volume, branch), captured) in making.iter_mut().zip(branches).zip(&captured) {
        refuse_smaller(branch.size, captured.header.size, branch.source.name())?;
        volume.header = with_root(&volume.header, captured, branch.size);
    }
    let (first, others) = making.split_first_mut().expect("a branch of nothing was not asked for");
    for volume in others.iter() {
        volume.publish(io, PublishMode::Replace).await?;
    }
    first.finish();
    first.publish(io, PublishMode::Replace).await?;
    // Whoever cut one of us off meanwhile knows nothing of what the headers name.
    for source in &sources {
        source.still_ours(io).await?;
    }
    for volume in std::iter::once(&*first).chain(others.iter()) {
        store.confirm(&volume.lease).map_err(|error| failed(error, &volume.header.name))?;
    }
    for volume in others {
        volume.finish();
        if let Err(error) = volume.publish(io, PublishMode::Replace).await {
            // It exists by its leader already; collection finishes it.
            tracing::warn!(volume = %volume.header.name, %error, "a snapshot of a group stays tied to its group");
        }
    }
    Ok(captured.iter().map(|captured| captured.pause).max().unwrap_or_default())
}

/// A volume in the making.
struct Making {
    header: Header,
    named: bool,
    /// Held until it is made, so that collection sees that somebody is at it.
    lease: Lease,
}

impl Making {
    async fn begin(io: &Io, store: &Arc<dyn Store>, header: Header) -> Result<Self, VolumeError> {
        let lease = lock_new(store, header.id, &header.name, &Holder::successor(None, None))?;
        let making = Self { header, named: false, lease };
        making.publish(io, PublishMode::Exclusive).await?;
        Ok(making)
    }

    async fn publish(&self, io: &Io, mode: PublishMode) -> Result<(), VolumeError> {
        let object = ObjectName::Header { volume: self.header.id, generation: self.header.generation };
        let published = io.publish(object, &self.header.encode(), mode).await;
        published.map_err(|error| failed(error, &self.header.name))
    }

    async fn publish_name(&mut self, io: &Io) -> Result<(), VolumeError> {
        let name = &self.header.name;
        let record = name_record::encode(self.header.id);
        match io.publish(ObjectName::Name(name.clone()), &record, PublishMode::Exclusive).await {
            Ok(()) => self.named = true,
            Err(error) if error.kind() == StoreErrorKind::Exists => return Err(taken(name)),
            Err(error) => {
                // It may be there all the same, and must not lead to nothing.
                self.named = true;
                return Err(failed(error, name));
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.header.state = HeaderState::Closed;
        self.header.unfinished = None;
    }

    /// After a failure. What cannot be removed stays unfinished, and is collected.
    async fn unmake(&self, io: &Io, store: &Arc<dyn Store>) {
        if self.named
            && let Err(error) = drop_name(io, store, &self.lease, &self.header.name).await
        {
            return tracing::warn!(volume = %self.header.name, %error, "an unfinished volume stays for collection");
        }
        let header = ObjectName::Header { volume: self.header.id, generation: self.header.generation };
        if let Err(error) = io.remove(header).await {
            tracing::warn!(volume = %self.header.name, %error, "an unfinished volume stays for collection");
        }
    }
}

/// Makes a clone of a snapshot. The snapshot cannot be removed meanwhile.
///
/// # Errors
/// As [`branch`].
pub async fn clone_snapshot(
    io: &Io,
    store: &Arc<dyn Store>,
    snapshot: VolumeId,
    request: &CloneRequest,
) -> Result<(), VolumeError> {
    let kept = lock_shared(store, snapshot, &request.source)?;
    let (source, _) = read_header(io, snapshot, &request.source).await?;
    refuse_removed(&source, &request.source)?;
    refuse_smaller(request.size, source.size, request.source.clone())?;
    let id = VolumeId::random();
    let header = Header {
        id,
        generation: Generation(1),
        // Without a name it is nothing yet, and collected.
        state: HeaderState::Building,
        size: request.size.unwrap_or(source.size),
        parent: Some(Parent { id: snapshot, epoch: source.shared_epoch }),
        name: request.name.clone(),
        kind: VolumeKind::Disk,
        content: source.content.filter(|_| request.size.is_none()),
        ..first_header(&source)
    };
    let mut making = Making::begin(io, store, header).await?;
    let mut made = making.publish_name(io).await;
    if made.is_ok() {
        // A lock that was broken does not keep the snapshot's objects.
        made = store.confirm(&kept).map_err(|error| failed(error, &request.name));
    }
    if made.is_err() {
        making.unmake(io, store).await;
    }
    made
}

/// What every branch of a volume begins with; the root is the source's.
fn first_header(source: &Header) -> Header {
    Header {
        epoch: Epoch(1),
        epoch_limit: Epoch(2),
        shared_epoch: Epoch(0),
        change_through: 0,
        segment_bytes: 0,
        current_journal: 0,
        next_journal: 0,
        created: clock::unix_seconds(),
        unfinished: None,
        unfenced: None,
        receiving: None,
        limits: Limits::default(),
        ..source.clone()
    }
}

fn unfinished_header(id: VolumeId, with: VolumeId, branch: &Branch) -> Header {
    Header {
        state: HeaderState::Building,
        id,
        generation: Generation(1),
        size: branch.size.unwrap_or(branch.source.size()),
        object_size: branch.source.object_size(),
        epoch: Epoch(1),
        epoch_limit: Epoch(2),
        shared_epoch: Epoch(0),
        change_through: 0,
        segment_bytes: 0,
        live_bytes: 0,
        current_journal: 0,
        next_journal: 0,
        created: clock::unix_seconds(),
        parent: Some(Parent { id: branch.source.id(), epoch: Epoch(0) }),
        root: None,
        name: branch.name.clone(),
        kind: branch.kind,
        unfinished: Some(Unfinished { with }),
        unfenced: None,
        content: None,
        receiving: None,
        limits: Limits::default(),
    }
}

fn with_root(unfinished: &Header, captured: &Captured, size: Option<VolumeSize>) -> Header {
    let source = &captured.header;
    Header {
        state: unfinished.state,
        id: unfinished.id,
        generation: unfinished.generation,
        size: size.unwrap_or(source.size),
        created: unfinished.created,
        parent: Some(Parent { id: source.id, epoch: source.shared_epoch }),
        name: unfinished.name.clone(),
        kind: unfinished.kind,
        unfinished: unfinished.unfinished,
        content: source.content.filter(|_| size.is_none() && source.receiving.is_none()),
        ..first_header(source)
    }
}

fn refuse_twice(requests: &[SnapshotRequest]) -> Result<(), VolumeError> {
    for (index, request) in requests.iter().enumerate() {
        let SnapshotRequest { volume, name } = request;
        let before = &requests[..index];
        let text = if let Some(other) = before.iter().find(|other| other.volume == *volume) {
            format!(
                "volume {volume} is named twice: a group has one snapshot of each volume, so leave out {} or {name}",
                other.name
            )
        } else if let Some(other) = before.iter().find(|other| other.name == *name) {
            format!(
                "the snapshots of {} and {volume} would both be called {name}: give each its own name",
                other.volume
            )
        } else {
            continue;
        };
        return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text));
    }
    Ok(())
}

fn refuse_smaller(size: Option<VolumeSize>, source: VolumeSize, name: VolumeName) -> Result<(), VolumeError> {
    match size.filter(|size| size.bytes() < source.bytes()) {
        None => Ok(()),
        Some(size) => {
            let (size, source) = (ByteSize(size.bytes()), ByteSize(source.bytes()));
            let text =
                format!("a clone of {size} would lose data of {name}, which has {source}: shrink the clone afterwards");
            Err(VolumeError::new(VolumeErrorKind::OutOfRange, text))
        }
    }
}

fn refuse_removed(header: &Header, name: &VolumeName) -> Result<(), VolumeError> {
    if header.state == HeaderState::Removed {
        return Err(VolumeError::new(VolumeErrorKind::NotFound, format!("{name} is being removed")));
    }
    Ok(())
}

async fn refuse_taken(io: &Io, name: &VolumeName) -> Result<(), VolumeError> {
    match io.stat(ObjectName::Name(name.clone())).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error, name)),
        Ok(_) => Err(taken(name)),
    }
}

fn failed(error: crate::store::StoreError, name: &VolumeName) -> VolumeError {
    VolumeError::from_store(error, format!("cannot make volume {name}"))
}

fn taken(name: &VolumeName) -> VolumeError {
    VolumeError::new(
        VolumeErrorKind::Exists,
        format!("there is a volume {name} already: choose another name, or remove that one"),
    )
}
