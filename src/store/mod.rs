//! Stores keep named objects. This file is the contract that every driver keeps and every layer above relies on.
//!
//! ```text
//!   volume, map ──Op──► Channel (one per thread) ──► driver ──► files, RADOS, memory
//!               ◄─Completion──
//! ```
//!
//! A [`Store`] is shared by the whole process. Each thread that does I/O asks it for a [`Channel`] of its own and is then
//! the only one to touch it: submit operations, collect completions, wait. Nothing on a channel blocks but
//! [`Channel::wait`].
//!
//! What a driver promises (tests/conformance runs this list against each):
//! 1. Every submitted operation completes exactly once, in any order, and returns its buffer. No operation is ordered
//!    after another unless it was submitted after the other's completion was reaped.
//! 2. A completed write is seen by every later read on every channel, and survives the death of the process.
//! 3. What survives a power cut: what [`Op::Publish`] or a [`Durability::Durable`] write completed, and every other
//!    completed change that a later successful [`Op::Sync`] of that object covered. Until then it may be there, be
//!    absent, or be partly there.
//! 4. Reading past an object's end gives zeros; reading an object that does not exist is [`StoreErrorKind::NotFound`],
//!    never zeros.
//! 5. After a failed operation on an object, what a write touched is unknown, and nothing else is. A publication that fails
//!    for lack of space has changed nothing that is visible.
//!    Where that happens, [`Room::Reserve`] and [`LockMode::ExclusiveToFree`] may still succeed.
//! 6. A failed [`Op::Sync`] is reported once and never repaired by a later success: callers give the volume up.
//!
//! A new driver is a folder here and an arm in [`open`](crate::store::open::open); docs/store-drivers.md tells how.

pub mod buffer;
pub mod error;
pub mod faulty;
pub mod file;
pub(crate) mod helpers;
mod immediate;
pub mod io;
mod kind;
pub mod memory;
pub mod metered;
pub mod name;
pub mod null;
pub mod open;
pub mod rados;
pub(crate) mod reply;
pub(crate) mod sleep;

pub use buffer::Buffer;
pub use error::{StoreError, StoreErrorKind};
pub use kind::OpKind;
pub use name::{ListScope, ObjectName};

use crate::units::VolumeId;
use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The lock of this id is for work on the store as a whole: no volume has it, the version bits of random ids are others. A driver
/// with a reserve makes sure that it can be had on a full store. Whoever has it confirms it before each step, and loses it to the next
/// without being cut off: its process may serve volumes.
pub const WHOLE_STORE: VolumeId = VolumeId([0xff; 16]);

/// A place that keeps objects.
pub trait Store: Send + Sync {
    fn info(&self) -> &StoreInfo;

    /// A channel for the calling thread. With a lease, the driver makes sure that the lease's lock outlives every
    /// operation of this channel, even when the process is killed (rule C5).
    ///
    /// # Errors
    /// When the kernel or the server refuses the resources it takes.
    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError>;

    /// Takes the volume's lock for this process. Blocks for a short time, or for half a minute where it has to be seen whether a holder
    /// still lives; not for worker threads. `holder` is recorded when
    /// the lock is had in [`LockMode::Exclusive`]; a reader leaves no record.
    ///
    /// # Errors
    /// [`StoreErrorKind::Held`] when another living holder has it for itself, [`StoreErrorKind::BeingRead`] when readers have
    /// it and it was wanted exclusively. [`StoreErrorKind::Unavailable`] when the store does not answer in a minute: then the lock may be
    /// had for a moment later, and nothing is done with it.
    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError>;

    /// As [`Store::lock`], for who passes by and can do without the volume: what another process has is refused at once, unless
    /// that one is of this host and boot and is seen to be gone. Nobody else is cut off, and who may be gone is not waited for.
    ///
    /// # Errors
    /// As [`Store::lock`], also when the holder is gone, and that cannot be seen from here.
    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError>;

    /// Takes the lock away from the holder who left the record `from` (`None`: from whoever left none), and from all readers: their
    /// leases count for nothing any more, and this one is exclusive. They are not stopped by it, unless [`Seized::fenced`] says so:
    /// what they had submitted, and what they submit before they [`Store::confirm`], still happens.
    ///
    /// # Errors
    /// [`StoreErrorKind::Held`] when another holder has come since: look who it is and decide anew.
    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError>;

    /// Whether the lease still counts. Cheap, but blocks for as long as the store takes to answer.
    ///
    /// # Errors
    /// [`StoreErrorKind::Lost`] when somebody seized its lock, or the store knows nothing of it any more; anything else leaves it open.
    fn confirm(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Replaces the record of an exclusive lease's holder.
    ///
    /// # Errors
    /// When it cannot be written; the old one may be lost then.
    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError>;

    /// The record that the last successful exclusive [`Store::lock`] or [`Store::seize`] left, whether its holder still lives or not.
    ///
    /// # Errors
    /// When the record cannot be read; `Ok(None)` when nobody ever held the volume.
    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError>;

    /// Removes what processes that died left and that is no object: locks of volumes that have no header and that nobody holds. Blocks.
    ///
    /// # Errors
    /// When the store cannot be looked through; what cannot be removed stays.
    fn tidy(&self) -> Result<(), StoreError>;
}

/// What a driver says about the opened store.
#[derive(Debug, Clone)]
pub struct StoreInfo {
    /// As a person would type it: `file:/srv/volumes`.
    pub url: String,
    /// Offsets and lengths of reads and writes should be multiples of this (a power of two); others are slower, not wrong.
    pub io_align: u32,
    /// Whether anything outlives the process.
    pub persistent: bool,
    pub free_lock: FreeLock,
    /// How the driver does its I/O, for people: `io_uring, O_DIRECT`.
    pub method: String,
}

/// What it proves that nobody has a volume's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeLock {
    /// That whoever had it is gone, and all its operations have ended: the processes of one host share the store, or it cuts off whoever
    /// loses a volume's lock.
    ProvesTheEnd,
    /// Nothing: several hosts share the store, and a lock becomes free when its holder's host, alive or not, was not heard of for a while.
    ProvesNothing,
}

/// With whom a volume's lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// With nobody: the right to change the volume.
    Exclusive,
    /// The same, for work that frees space: its record may take [`Room::Reserve`].
    ExclusiveToFree,
    /// With any number of others of this mode: nobody changes the volume or removes it meanwhile.
    Shared,
}

/// The right to change one volume, or to read it undisturbed, held until the last clone of this value is dropped.
#[derive(Clone)]
pub struct Lease {
    pub volume: VolumeId,
    /// Whatever the driver keeps for it.
    pub keep: Arc<dyn Any + Send + Sync>,
    /// The record in whose place its holder's came: nobody had the lock between the one and the other. A reader leaves no record.
    pub replaced: Option<Vec<u8>>,
    /// The locked descriptor, which must be registered in every ring that writes for this lease (rule C5).
    pub locked: Option<Arc<OwnedFd>>,
}

/// A lease that was taken from others.
#[derive(Clone)]
pub struct Seized {
    pub lease: Lease,
    /// The store has made sure that nothing of theirs is written any more.
    pub fenced: bool,
}

/// Returned with an operation's completion; the submitter's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// One thread's connection to a store. See the module's text.
pub trait Channel {
    /// Takes the operation. It may be started at once or at the next [`Channel::kick`].
    fn submit(&mut self, token: Token, op: Op);

    /// Starts everything submitted so far.
    fn kick(&mut self);

    /// Appends all completions that have arrived. Never blocks.
    fn reap(&mut self, done: &mut Vec<Completion>);

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Makes [`Channel::wait`] return when `fd` (an eventfd) is signalled. It is never read: each signal counts once.
    /// The descriptor is kept open by the channel until unwatched.
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError>;

    fn unwatch(&mut self, watch: WatchId);

    /// Starts everything submitted, then sleeps until a completion can be reaped, a watched descriptor is signalled, the
    /// waker is called, or the time is over. May return early for no reason. Never loses a signal that came before.
    fn wait(&mut self, timeout: Option<Duration>);

    /// Ends the present or the next [`Channel::wait`], from any thread.
    fn waker(&self) -> Arc<dyn Wake>;
}

/// Names one [`Channel::watch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchId(pub u32);

/// Ends a thread's sleep.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

/// An operation on one object.
#[derive(Debug)]
pub enum Op {
    /// Fills the buffer from `offset` on.
    Read { object: ObjectName, offset: u64, buffer: Buffer },
    /// Writes the whole buffer into an object that exists.
    Write { object: ObjectName, offset: u64, buffer: Buffer, durability: Durability },
    /// Creates a data object that must not exist yet and writes the buffer at `offset`; what lies around it reads as zeros.
    /// `size` is how large the object may become. A creation that fails leaves the object existing or not.
    Create { object: ObjectName, offset: u64, buffer: Buffer, size: u64 },
    /// Makes `len` bytes from `offset` read as zeros, in an object that exists.
    Zero { object: ObjectName, offset: u64, len: u64, space: Space },
    /// Removes the object; one that does not exist is removed already.
    Remove { object: ObjectName },
    /// Makes every completed change of these objects durable, their existence included, and with them everything that
    /// earlier completions reported as [`Persistence::Device`].
    Sync { objects: Vec<ObjectName> },
    /// Makes every completed change of the whole store durable, whichever process made it: what an opening needs after a
    /// process died and nobody knows any more what it had written.
    SyncAll,
    /// Creates or replaces the object with exactly these bytes; durable, name and all, when it completes. Readers see the
    /// old or the new object, never a mixture.
    Publish { object: ObjectName, content: Buffer, mode: PublishMode, room: Room },
    /// The object's length.
    Stat { object: ObjectName },
    /// The names in `scope` that are greater than `after`, ascending, at most `limit`; fewer mean the end. Names that
    /// come or go meanwhile may be missing or present. A process that died may have left the name of an object that is not there (but
    /// never that of a header): removing it takes the name away.
    List { scope: ListScope, after: Option<ObjectName>, limit: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Durable at the next [`Op::Sync`].
    Cached,
    /// Durable when it completes (and with it nothing else).
    Durable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Give the space back to the store where that can be done.
    Free,
    /// Keep the space allocated where that can be done.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// [`StoreErrorKind::Exists`] when there is one.
    Exclusive,
    /// Atomically in place of the old one, if any.
    Replace,
}

/// Which space a publication may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Ordinary,
    /// Also what the driver keeps back, if it does: for a publication that lets space be freed, or takes the place of one as
    /// large. Without it nothing could be removed from a full store.
    Reserve,
}

/// How a completed change becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It is durable already.
    Durable,
    /// The device has it; any successful [`Op::Sync`], of whatever objects, makes it durable.
    Device,
    /// Only an [`Op::Sync`] that lists this object makes it durable.
    Object,
}

/// What an operation brought.
#[derive(Debug)]
pub enum Outcome {
    /// Read, Remove, Sync, Publish.
    Done,
    /// Write, Create, Zero.
    Changed(Persistence),
    /// Stat: bytes.
    Size(u64),
    /// List.
    Names(Vec<ObjectName>),
}

#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    pub result: Result<Outcome, StoreError>,
    /// The operation's buffer, if it had one.
    pub buffer: Option<Buffer>,
}
