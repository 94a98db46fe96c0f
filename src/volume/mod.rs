//! A volume: a range of bytes composed of objects through a map.
//!
//! This layer knows ranges and buffers. Above it, `device` turns virtio requests into [`Request`]s; below it, `map` says
//! which object holds a block, and `store` keeps the objects.
//!
//! ```text
//!   worker thread: Port ── read, write, discard ──► store
//!        │ changes entries (soft journal)   │ marks what it wrote dirty
//!        ▼                                  ▼
//!       Map ◄──────────── Volume ───────► DirtySet, Claims, Rounds
//!        ▲                                  ▲
//!   keeper thread: flush rounds, commits, checkpoints, removal of dropped objects
//! ```
//!
//! One keeper thread per volume, so that a stuck flush of one delays no other, and so that the lease's descriptor sits in the
//! ring of every thread that writes for it (rule C5). The order of every write is in docs/map-format.md.
//!
//! Reading order: [`request`], [`port`], `compose`, `loading`, `read`, `write`, `copy_up`, `absorb`, `discard`, `limits`, `gate`,
//! [`capture`], `rounds`, `keeper`, `checkpoint`, [`open`].

mod absorb;
pub mod capture;
mod checkpoint;
mod claims;
mod compare;
pub mod compose;
mod copy_up;
mod dirty;
mod discard;
pub mod error;
mod gate;
mod held_back;
pub mod keeper;
pub mod lease;
mod limits;
mod loading;
pub mod naming;
pub mod open;
pub mod port;
mod read;
pub mod request;
mod rounds;
pub mod shrink;
mod unfenced;
mod write;

pub use error::{VolumeError, VolumeErrorKind};
pub use port::Port;
pub use request::{Done, Request, Stability};

use crate::map::Map;
use crate::store::io::{self, Io};
use crate::store::{Channel, Lease, ObjectName, Store, StoreError, StoreErrorKind};
use crate::units::{Generation, ObjectSize, VolumeId, VolumeName, VolumeSize};
use absorb::FullBlocks;
use claims::Claims;
use dirty::DirtySet;
use gate::Gate;
use lease::LeaseOptions;
use lease::watch::Watch;
use limits::Throttle;
use rounds::Rounds;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use unfenced::Unfenced;

/// How a volume is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    pub access: Access,
    /// Where soft journals live: a directory on a memory file system of this host, common to every process that may open
    /// the volume here.
    pub soft_journal_dir: PathBuf,
    /// Memory for map pages, in bytes.
    pub cache_bytes: u64,
    /// What copy-up works in, in bytes: a power of two from 512 on, and no more than the smallest object; [`GRANULE_BYTES`] unless
    /// something is to be measured.
    pub granule_bytes: u64,
    pub lease: LeaseOptions,
}

/// A guest's page, so that an aligned write of one copies nothing (docs/decisions/0004).
pub const GRANULE_BYTES: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Takes the lease, and a new generation.
    ReadWrite,
    /// Shares the volume's lock with other readers, so that nobody writes meanwhile, and writes nothing itself.
    ReadOnly,
}

/// An open volume, shared by all its ports and its keeper's thread, which holds it and its lease until [`Volume::close`]: a
/// process that ends without closing leaves the volume complete, but not orderly closed.
pub struct Volume {
    id: VolumeId,
    name: VolumeName,
    size: AtomicU64,
    object_size: ObjectSize,
    access: Access,
    /// Of the lease; a read-only volume has none of its own, and this is what a writer's would be.
    generation: Generation,
    store: Arc<dyn Store>,
    lease: Lease,
    watch: Watch,
    unfenced: Unfenced,
    full_blocks: FullBlocks,
    map: Map,
    dirty: DirtySet,
    claims: Claims,
    /// Writes in place pass through it; a snapshot closes it for a moment.
    gate: Gate,
    /// All other changes pass through this one, for as long as they take: shrinking waits for them.
    changes: Gate,
    /// One change of the size at a time.
    resizing: tokio::sync::Mutex<()>,
    rounds: Rounds,
    /// Holds guests' requests back.
    throttle: Throttle,
    /// Set once, when what is durable is not known any more.
    failure: OnceLock<VolumeError>,
    /// Closed in order: whoever still has it can change nothing any more.
    closed: AtomicBool,
    /// The last checkpoint found no space: nothing new is created until one succeeds.
    out_of_space: AtomicBool,
    /// Checkpoints that have ended, either way.
    checkpoints: AtomicU64,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Volume {
    /// Opens the volume: takes the lease, replays journals, starts the keeper thread. Blocks.
    ///
    /// # Errors
    /// When there is no such volume, another holder has it, or its map is damaged.
    pub fn open(store: &Arc<dyn Store>, name: &VolumeName, options: &OpenOptions) -> Result<Arc<Self>, VolumeError> {
        let opened = open::open_blocking(store, name, options)?;
        let volume = Arc::clone(&opened.volume);
        if let Some(seed) = opened.keeper {
            let thread = keeper::start_thread(Arc::clone(&volume), seed)?;
            *volume.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(volume)
    }

    /// Flushes, writes the map down, marks the volume orderly closed. Blocks. All ports must be gone; the lease goes back
    /// when the last reference does. A second call does nothing.
    ///
    /// # Errors
    /// When something could not be made durable; the volume is closed all the same.
    pub fn close(&self) -> Result<(), VolumeError> {
        let thread = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let answer = self.rounds.close().blocking_recv();
        let joined = thread.join();
        match (answer, joined) {
            (Ok(answer), Ok(())) => answer,
            _ => Err(VolumeError::new(VolumeErrorKind::Failed, format!("the keeper of volume {} died", self.name))),
        }
    }

    /// As [`Volume::close`], when the keeper's task runs on an executor of the caller's.
    ///
    /// # Errors
    /// As [`Volume::close`].
    pub async fn close_keeper(&self) -> Result<(), VolumeError> {
        let answer = self.rounds.close().await;
        answer.unwrap_or_else(|_| {
            Err(VolumeError::new(VolumeErrorKind::Failed, format!("the keeper of volume {} is gone", self.name)))
        })
    }

    /// A channel under the volume's lease.
    ///
    /// # Errors
    /// When the store gives none.
    pub fn channel(&self) -> Result<Box<dyn Channel>, StoreError> {
        self.store.channel(Some(&self.lease))
    }

    pub fn id(&self) -> VolumeId {
        self.id
    }

    pub fn name(&self) -> VolumeName {
        self.name.clone()
    }

    /// May change while the volume is open.
    ///
    /// # Panics
    /// Never: only valid sizes are stored.
    pub fn size(&self) -> VolumeSize {
        VolumeSize::new(self.size.load(Ordering::Acquire)).expect("only valid sizes are stored")
    }

    pub fn object_size(&self) -> ObjectSize {
        self.object_size
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// What reads and writes should be aligned to, in bytes (512 or more).
    pub fn io_align(&self) -> u32 {
        self.store.info().io_align.max(512)
    }

    /// Why the volume takes no writes any more, if so.
    pub fn failure(&self) -> Option<&VolumeError> {
        self.failure.get()
    }

    /// What is durable is not known any more: no write or flush succeeds until the volume is opened again.
    fn fail(&self, error: VolumeError) {
        // First of all: from here on no flush succeeds.
        let first = self.failure.set(error.clone()).is_ok();
        self.map.wake_waiting();
        self.dirty.tell();
        if first {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(volume = %self.name, %error, source, "the volume takes no more writes until it is opened again");
        }
    }

    /// Waits for device flushes that began earlier than a sync that has succeeded: had one of them failed, what it should have
    /// made durable was not made so by the later one (the store's sixth promise).
    async fn after_flushes_before(&self, number: u64) -> Result<(), VolumeError> {
        loop {
            let mut news = std::pin::pin!(self.dirty.news());
            news.as_mut().enable();
            if !self.dirty.is_flushing_before(number) {
                // One that failed has ended too, and has failed the volume first.
                return self.check_writable();
            }
            news.await;
        }
    }

    /// Fails the volume because the store did.
    fn fail_store(&self, error: StoreError, what: &str) -> VolumeError {
        let text = format!("volume {} {what}; writes since its last flush are in doubt", self.name);
        let error = VolumeError::failed(error, text);
        self.fail(error.clone());
        error
    }

    /// The last step of a flush (rule C3): whoever takes over makes the next generation's header first, and only then reads
    /// what we wrote.
    async fn check_not_superseded(&self, io: &Io) -> Result<(), VolumeError> {
        match io.stat(self.header(self.generation.next())).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.fail_store(error, "could not see whether it was taken over")),
            Ok(_) => Err(self.superseded()),
        }
    }

    /// Whether nobody has taken the volume over until now.
    ///
    /// # Errors
    /// [`VolumeErrorKind::Superseded`]; or what the store reports, and then it is not known.
    pub async fn still_ours(&self, io: &Io) -> Result<(), VolumeError> {
        self.check_not_superseded(io).await
    }

    fn header(&self, generation: Generation) -> ObjectName {
        ObjectName::Header { volume: self.id, generation }
    }

    /// For whoever has read much of the volume and is about to say that it belongs together: nobody was let in by force meanwhile.
    /// Blocks.
    ///
    /// # Errors
    /// [`VolumeErrorKind::Superseded`]; or what the store reports, and then it is not known.
    pub fn confirm_reads(&self) -> Result<(), VolumeError> {
        io::block_on(&self.store, Some(&self.lease), |io| async move { self.look(&io).await })
    }

    /// Whether the lease is still in force, so that whoever was cut off stops soon. Blocks for a moment: not for queues' threads.
    async fn look(&self, io: &Io) -> Result<(), VolumeError> {
        if let Err(error) = self.store.confirm(&self.lease) {
            return Err(self.doubtful(error));
        }
        self.look_at_headers(io).await
    }

    /// As [`Volume::look`], by the headers alone, and without blocking.
    async fn look_at_headers(&self, io: &Io) -> Result<(), VolumeError> {
        match self.access {
            Access::ReadWrite => self.look_for(io, self.generation.next()).await,
            Access::ReadOnly => {
                let began = self.watch.now();
                // Whoever changes the volume makes this header first, and removes the one below only then, and itself later still.
                self.look_for(io, self.generation).await?;
                match io.stat(self.header(Generation(self.generation.0 - 1))).await {
                    Err(error) if error.kind() == StoreErrorKind::NotFound => return Err(self.superseded()),
                    seen => seen.map_err(|error| self.doubtful(error))?,
                };
                self.watch.looked(began, Ok(()));
                Ok(())
            }
        }
    }

    async fn look_for(&self, io: &Io, successor: Generation) -> Result<(), VolumeError> {
        match io.stat(self.header(successor)).await {
            Ok(_) => Err(self.superseded()),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.doubtful(error)),
        }
    }

    /// What a look that failed tells.
    fn doubtful(&self, error: StoreError) -> VolumeError {
        if error.kind() == StoreErrorKind::Lost {
            return self.superseded();
        }
        // Nothing hangs on it yet: the next look may tell.
        let text = format!("volume {}: cannot see whether its lease is still in force", self.name);
        VolumeError::from_store(error, text)
    }

    fn superseded(&self) -> VolumeError {
        let text = format!("volume {} was taken over by another holder", self.name);
        let error = VolumeError::new(VolumeErrorKind::Superseded, text);
        self.fail(error.clone());
        error
    }

    /// A volume that was taken over is somebody else's now: what we read of it may be old, or gone.
    fn check_readable(&self) -> Result<(), VolumeError> {
        match self.failure.get() {
            Some(failure) if failure.kind() == VolumeErrorKind::Superseded => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    fn check_writable(&self) -> Result<(), VolumeError> {
        match (self.access, self.failure.get()) {
            (Access::ReadOnly, _) => {
                Err(VolumeError::new(VolumeErrorKind::ReadOnly, format!("volume {} is open read-only", self.name)))
            }
            (Access::ReadWrite, Some(failure)) => Err(failure.clone()),
            (Access::ReadWrite, None) if self.closed.load(Ordering::Acquire) => Err(self.closing()),
            (Access::ReadWrite, None) => Ok(()),
        }
    }

    /// The keeper has ended: whoever waits for it is told.
    fn end(&self) {
        self.closed.store(true, Ordering::Release);
        self.rounds.closed();
        self.map.wake_waiting();
    }

    fn no_space(&self) -> VolumeError {
        let text = format!("the store is full: volume {} cannot grow until space is freed", self.name);
        VolumeError::new(VolumeErrorKind::NoSpace, text)
    }
}
