//! A thread's access to an open volume: its channel to the store, its tasks, its cached view of the map.
//!
//! ```text
//!   submit ─┬─ one block, entry at hand, object in place ─► one store operation ─┐
//!           └─ anything else ─► a task (read, write, discard) ───────────────────┴─► done
//! ```
//! The upper path allocates nothing. A request is in exactly one of the two and ends in exactly one [`Done`]. Under limits
//! (`limits`) it may be held back before; a flush never is: it waits for nothing that has not completed.

use super::compose::{Extent, extents};
use super::dirty::DeviceFlush;
use super::gate::{Counter, Pass};
use super::held_back::HeldBack;
use super::loading::Loads;
use super::rounds::{Alone, Flush};
use super::write::holder;
use super::{Access, Done, Request, Stability, Volume, VolumeError, VolumeErrorKind};
use crate::map::leaf::leaf_of;
use crate::map::{Entry, WorkerLeaves};
use crate::store::io::{Io, RawCompletion};
use crate::store::{
    Buffer, Durability, ObjectName, Op, Outcome, Persistence, StoreError, StoreErrorKind, Wake, WatchId,
};
use crate::task::Executor;
use crate::units::{BlockIndex, ByteRange};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Belongs to the thread that opened it. Cheap to clone; all clones are one port.
#[derive(Clone)]
pub struct Port {
    inner: Rc<Inner>,
}

struct Inner {
    volume: Arc<Volume>,
    io: Io,
    executor: Executor,
    leaves: RefCell<WorkerLeaves>,
    loads: Loads,
    passes: Arc<Counter>,
    changes: Arc<Counter>,
    held_back: RefCell<HeldBack>,
    fast: RefCell<Slab<Fast>>,
    raw: RefCell<Vec<RawCompletion>>,
    done: RefCell<Vec<Done>>,
    in_flight: Cell<usize>,
    /// In this turn the lease was seen to be in force; and the tick at which a clock was last asked about it.
    confirmed: Cell<bool>,
    confirmed_at: Cell<u64>,
}

/// A request that is one store operation.
struct Fast {
    tag: u32,
    range: ByteRange,
    object: ObjectName,
    kind: FastKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FastKind {
    Read,
    Write,
}

impl Port {
    /// A port for the calling thread.
    ///
    /// # Errors
    /// When the store gives no channel.
    pub fn open(volume: &Arc<Volume>) -> Result<Self, VolumeError> {
        let channel = volume.channel();
        let channel = channel.map_err(|source| {
            VolumeError::from_store(source, format!("cannot open a port of volume {}", volume.name))
        })?;
        Ok(Self::with_io(volume, Io::new(channel)))
    }

    /// A port over a channel that the caller made (with the volume's lease).
    pub fn with_io(volume: &Arc<Volume>, io: Io) -> Self {
        let executor = Executor::new(io.waker());
        let held_back = HeldBack::new(&volume.throttle, io.waker());
        let inner = Inner {
            volume: Arc::clone(volume),
            io,
            executor,
            leaves: RefCell::new(volume.map.worker_leaves()),
            loads: Loads::default(),
            passes: volume.gate.counter(),
            changes: volume.changes.counter(),
            held_back: RefCell::new(held_back),
            fast: RefCell::default(),
            raw: RefCell::default(),
            done: RefCell::default(),
            in_flight: Cell::new(0),
            confirmed: Cell::new(false),
            confirmed_at: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    pub fn volume(&self) -> &Arc<Volume> {
        &self.inner.volume
    }

    pub(super) fn io(&self) -> &Io {
        &self.inner.io
    }

    /// Takes a request; exactly one [`Done`] with this tag will follow from [`Port::turn`]. It starts at once, or when the
    /// volume's limits allow it.
    pub fn submit(&self, tag: u32, request: Request) {
        self.inner.in_flight.set(self.inner.in_flight.get() + 1);
        if self.inner.volume.throttle.is_limiting() || !self.inner.held_back.borrow().is_empty() {
            self.submit_limited(tag, request);
        } else {
            self.start(tag, request);
        }
    }

    /// From now on no request is held back: for a queue that is to stop, and whose guest waits for that. They are paid for
    /// all the same, by those of the next start.
    pub fn let_through(&self) {
        self.inner.held_back.borrow_mut().let_through();
    }

    /// Whether any request is held back by limits.
    pub fn is_holding_back(&self) -> bool {
        !self.inner.held_back.borrow().is_empty()
    }

    /// The tags of the requests that are: they have not been started.
    pub fn held_back(&self) -> Vec<u32> {
        self.inner.held_back.borrow().tags().collect()
    }

    /// Hands new operations to the kernel, collects completions, runs tasks, appends what is finished. Never blocks.
    /// Returns whether anything moved.
    pub fn turn(&self, done: &mut Vec<Done>) -> bool {
        let inner = &self.inner;
        let mut moved = self.start_held_back();
        inner.io.kick();
        let mut raw = inner.raw.take();
        moved |= inner.io.reap(&mut raw);
        for completion in raw.drain(..) {
            self.end_fast(completion);
        }
        inner.raw.replace(raw);
        if inner.executor.has_ready() {
            moved |= inner.executor.run_ready();
            inner.io.kick();
        }
        let mut finished = inner.done.borrow_mut();
        moved |= !finished.is_empty();
        done.append(&mut finished);
        // What comes next is looked at anew: the thread may sleep before it, or be stopped.
        inner.confirmed.set(false);
        moved
    }

    /// Requests submitted and not yet reported as done.
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.get() + self.inner.done.borrow().len()
    }

    /// Drops all requests where they stand, unanswered; see [`Executor::abandon`].
    pub fn abandon(&self) {
        self.inner.held_back.borrow_mut().abandon();
        self.inner.executor.abandon();
    }

    /// See [`crate::store::Channel::watch`].
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    pub fn watch(&self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.inner.io.watch(fd)
    }

    pub fn unwatch(&self, watch: WatchId) {
        self.inner.io.unwatch(watch);
    }

    /// Sleeps until there is something for [`Port::turn`] (also the turn of a request that is held back), a watched descriptor
    /// is signalled, the waker is called, or the time is over.
    pub fn wait(&self, timeout: Option<Duration>) {
        let ready = self.inner.executor.has_ready() || !self.inner.done.borrow().is_empty();
        let turn = self.inner.held_back.borrow().time_left(&self.inner.volume.throttle);
        let timeout = [timeout, turn].into_iter().flatten().min();
        self.inner.io.wait(if ready { Some(Duration::ZERO) } else { timeout });
    }

    pub fn waker(&self) -> Arc<dyn Wake> {
        self.inner.io.waker()
    }

    /// One request, as a future; for control-side code, so limits do not hold it back. Returns the request's buffer.
    ///
    /// # Errors
    /// The request's.
    pub async fn request(&self, request: Request) -> Result<Option<Buffer>, VolumeError> {
        let (result, buffer) = self.run(request).await;
        result.map(|()| buffer)
    }

    /// The first part of `range` that may hold data, one block or less of it; the rest before it reads as zeros. For
    /// control-side code that goes through a whole volume, which may be huge and nearly empty.
    ///
    /// # Errors
    /// When the map cannot be read, or the range leaves the volume.
    pub async fn allocated(&self, range: ByteRange) -> Result<Option<ByteRange>, VolumeError> {
        let volume = &self.inner.volume;
        check_range(volume, range, None)?;
        let Some(first) = extents(range, volume.object_size).next() else { return Ok(None) };
        let found = volume.map.next_allocated(&self.inner.io, first.block).await;
        let found = found.map_err(|error| super::open::tree_error(&volume.name, error))?;
        let (block_bytes, range_end) = (volume.object_size.bytes(), range.offset + range.len);
        let start = found.and_then(|block| block.0.checked_mul(block_bytes)).filter(|start| *start < range_end);
        Ok(start.map(|start| {
            let end = range_end.min(start + block_bytes);
            let start = start.max(range.offset);
            ByteRange::new(start, end - start)
        }))
    }

    /// Runs this thread's tasks until the future is ready.
    ///
    /// # Panics
    /// When requests of [`Port::submit`] are in flight: their ends would be lost.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T>) -> T {
        assert_eq!(self.in_flight(), 0, "a port is used in one way at a time");
        let mut future = std::pin::pin!(future);
        let waker = futures_util::task::noop_waker();
        let mut done = Vec::new();
        loop {
            // Polled again after every turn: completions and tasks only move in turns, and other threads' wake-ups reach this
            // one as the end of its sleep.
            let mut context = std::task::Context::from_waker(&waker);
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            if !self.turn(&mut done) {
                self.inner.io.wait(Some(BLOCK_ON_LOOK));
            }
        }
    }

    fn start(&self, tag: u32, request: Request) {
        match self.start_fast(tag, request) {
            Ok(()) => {}
            Err(request) => self.start_task(tag, request),
        }
    }

    // ---- under limits

    fn submit_limited(&self, tag: u32, request: Request) {
        if let Request::Flush = request {
            return self.start(tag, request);
        }
        self.inner.held_back.borrow_mut().push(tag, request);
        self.start_held_back();
    }

    /// Starts those whose turn has come. Whether there were any.
    fn start_held_back(&self) -> bool {
        let mut any = false;
        loop {
            // Not borrowed while the request starts.
            let next = self.inner.held_back.borrow_mut().pop(&self.inner.volume.throttle);
            let Some((tag, request)) = next else { return any };
            self.start(tag, request);
            any = true;
        }
    }

    // ---- the fast path

    /// Starts the request if it is one store operation; gives it back otherwise.
    fn start_fast(&self, tag: u32, request: Request) -> Result<(), Request> {
        match request {
            Request::Read { range, buffer } => match self.fast_read(range, buffer.len()) {
                Some((offset, object)) => {
                    let op = Op::Read { object: object.clone(), offset, buffer };
                    self.submit_fast(Fast { tag, range, object, kind: FastKind::Read }, op);
                    Ok(())
                }
                None => Err(Request::Read { range, buffer }),
            },
            Request::Write { range, buffer, stability: Stability::Cached } => {
                match self.fast_write(range, buffer.len()) {
                    Some((offset, object)) => {
                        let durability = Durability::Cached;
                        let op = Op::Write { object: object.clone(), offset, buffer, durability };
                        self.submit_fast(Fast { tag, range, object, kind: FastKind::Write }, op);
                        Ok(())
                    }
                    None => Err(Request::Write { range, buffer, stability: Stability::Cached }),
                }
            }
            other => Err(other),
        }
    }

    /// The only object that a read touches, if there is only one and its entry is at hand.
    fn fast_read(&self, range: ByteRange, buffer_len: usize) -> Option<(u64, ObjectName)> {
        if self.inner.volume.unfenced.is_set() || !self.is_confirmed() {
            return None;
        }
        let (extent, entry) = self.single_block(range, buffer_len)?;
        let (volume, epoch) = holder(&entry, extent)?;
        Some((extent.offset, self.inner.volume.map.object(volume, epoch, extent.block)))
    }

    /// The object that a write goes to in place. Then it is inside the gate, and leaves it at its end.
    fn fast_write(&self, range: ByteRange, buffer_len: usize) -> Option<(u64, ObjectName)> {
        let volume = &self.inner.volume;
        if volume.check_writable().is_err() || !self.is_confirmed() || !volume.gate.try_enter(&self.inner.passes) {
            return None;
        }
        // Looked up inside the gate: what is ours now stays ours until the write has ended.
        let target = self.single_block(range, buffer_len).and_then(|(extent, entry)| {
            let object = self.owned_object(&entry, extent)?;
            Some((extent.offset, object))
        });
        if target.is_none() {
            volume.gate.leave(&self.inner.passes);
        }
        target
    }

    /// The only block that the range touches, if there is only one and its entry is at hand.
    fn single_block(&self, range: ByteRange, buffer_len: usize) -> Option<(Extent, Entry)> {
        if check_range(&self.inner.volume, range, Some(buffer_len)).is_err() {
            return None;
        }
        let extent = extents(range, self.inner.volume.object_size).next()?;
        if extent.len != range.len {
            return None;
        }
        Some((extent, self.entry_at_hand(extent.block)?))
    }

    fn submit_fast(&self, fast: Fast, op: Op) {
        let key = self.inner.fast.borrow_mut().insert(fast);
        self.inner.io.submit_raw(u32::try_from(key).expect("fewer than 2^32 requests in flight"), op);
    }

    fn end_fast(&self, completion: RawCompletion) {
        let key = usize::try_from(completion.token).expect("a slab key");
        let Fast { tag, range, object, kind } = self.inner.fast.borrow_mut().remove(key);
        let buffer = completion.buffer.expect("reads and writes return their buffer");
        let result = completion.result;
        if kind == FastKind::Write {
            // Marked before it leaves: a snapshot's sync must not miss it.
            self.mark_fast(&result, &object);
            self.inner.volume.gate.leave(&self.inner.passes);
        }
        match result {
            Ok(_) => self.finish(tag, Ok(()), Some(buffer)),
            // The entry may have changed since (a discard beside it): the slow path looks again.
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                let stability = Stability::Cached;
                let request = match kind {
                    FastKind::Read => Request::Read { range, buffer },
                    FastKind::Write => Request::Write { range, buffer, stability },
                };
                self.start_task(tag, request);
            }
            Err(error) => {
                let error = self.store_error(error);
                self.finish(tag, Err(error), Some(buffer));
            }
        }
    }

    fn mark_fast(&self, result: &Result<Outcome, StoreError>, object: &ObjectName) {
        let persistence = match result {
            Ok(Outcome::Changed(persistence)) => *persistence,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return,
            Ok(_) | Err(_) => Persistence::Object,
        };
        self.inner.volume.dirty.mark(persistence, object);
    }

    // ---- tasks

    fn start_task(&self, tag: u32, request: Request) {
        let port = self.clone();
        self.inner.executor.spawn(async move {
            let (result, buffer) = port.run(request).await;
            port.finish(tag, result, buffer);
        });
    }

    fn finish(&self, tag: u32, result: Result<(), VolumeError>, buffer: Option<Buffer>) {
        self.inner.in_flight.set(self.inner.in_flight.get() - 1);
        self.inner.done.borrow_mut().push(Done { tag, result, buffer });
    }

    async fn run(&self, request: Request) -> (Result<(), VolumeError>, Option<Buffer>) {
        if let Err(error) = self.confirmed().await {
            return (Err(error), request.into_buffer());
        }
        match request {
            Request::Read { range, buffer } => {
                let result = match check_range(&self.inner.volume, range, Some(buffer.len())) {
                    Ok(()) => self.read(range, &buffer).await,
                    Err(error) => Err(error),
                };
                (result, Some(buffer))
            }
            Request::Write { range, buffer, stability } => {
                let result = match self.begin_change(range, Some(buffer.len())).await {
                    Ok(_change) => self.write(range, &buffer).await,
                    Err(error) => Err(error),
                };
                (self.stable(result, stability).await, Some(buffer))
            }
            Request::Flush => (self.flush().await, None),
            Request::Discard { range } => {
                let result = match self.begin_change(range, None).await {
                    Ok(_change) => self.discard(range).await,
                    Err(error) => Err(error),
                };
                (result, None)
            }
            Request::WriteZeroes { range, space, stability } => {
                let result = match self.begin_change(range, None).await {
                    Ok(_change) => self.write_zeroes(range, space).await,
                    Err(error) => Err(error),
                };
                (self.stable(result, stability).await, None)
            }
        }
    }

    /// Whether a look has shown not long ago that the lease is in force, and none since that it is not. A turn asks a cheap clock
    /// at most, and a dear one once in the few milliseconds of a tick.
    fn is_confirmed(&self) -> bool {
        let (inner, watch) = (&self.inner, &self.inner.volume.watch);
        if !inner.confirmed.get() {
            let now = watch.tick();
            let same_tick = now == inner.confirmed_at.get();
            inner.confirmed.set(same_tick || watch.is_fresh());
            inner.confirmed_at.set(if inner.confirmed.get() { now } else { 0 });
        }
        inner.confirmed.get() && inner.volume.check_readable().is_ok()
    }

    /// Waits until that is so.
    pub(super) async fn confirmed(&self) -> Result<(), VolumeError> {
        if !self.is_confirmed() {
            let volume = &self.inner.volume;
            volume.check_readable()?;
            match volume.access {
                Access::ReadWrite => volume.watch.fresh().await?,
                Access::ReadOnly => volume.look_at_headers(&self.inner.io).await?,
            }
        }
        self.inner.volume.check_readable()
    }

    /// Checks a change; the volume does not shrink while it is under way.
    async fn begin_change(&self, range: ByteRange, buffer_len: Option<usize>) -> Result<Pass<'_>, VolumeError> {
        let pass = self.inner.volume.changes.enter(&self.inner.changes).await;
        self.inner.volume.check_writable()?;
        check_range(&self.inner.volume, range, buffer_len)?;
        Ok(pass)
    }

    async fn stable(&self, result: Result<(), VolumeError>, stability: Stability) -> Result<(), VolumeError> {
        match (result, stability) {
            (Ok(()), Stability::Stable) => self.flush().await,
            (result, _) => result,
        }
    }

    /// Ends when every write that completed before the call is durable.
    async fn flush(&self) -> Result<(), VolumeError> {
        let volume = &self.inner.volume;
        match volume.access {
            Access::ReadOnly => return Ok(()),
            Access::ReadWrite => volume.check_writable()?,
        }
        let mut device = None;
        let alone = || match (volume.map.has_pending(), volume.dirty.is_clean()) {
            // The failure is looked at last: whoever fails takes marks and changes away before.
            _ if volume.failure().is_some() => Alone::Round,
            (true, _) => Alone::Round,
            (false, true) => Alone::Nothing,
            (false, false) => {
                device = volume.dirty.begin_flush();
                if device.is_some() { Alone::Device } else { Alone::Round }
            }
        };
        match volume.rounds.flush(alone) {
            Flush::Done => Ok(()),
            Flush::Device => self.flush_device(device.expect("it was taken on")).await,
            Flush::Round(answer) => answer.await.unwrap_or_else(|_| Err(keeper_gone(volume))),
        }
    }

    async fn flush_device(&self, flush: DeviceFlush<'_>) -> Result<(), VolumeError> {
        let volume = &self.inner.volume;
        self.inner.io.sync(Vec::new()).await.map_err(|error| volume.fail_store(error, "could not be made durable"))?;
        volume.after_flushes_before(flush.number()).await?;
        volume.check_not_superseded(&self.inner.io).await?;
        flush.succeed();
        Ok(())
    }

    // ---- entries, for read, write and discard

    /// Into the gate, as soon as it is open. Nothing that needs the keeper may be waited for inside.
    pub(super) async fn pass(&self) -> Pass<'_> {
        self.inner.volume.gate.enter(&self.inner.passes).await
    }

    /// The entry, if its leaf is in memory.
    pub(super) fn entry_at_hand(&self, block: BlockIndex) -> Option<Entry> {
        if let Some(entry) = self.inner.leaves.borrow().get(block) {
            return Some(entry);
        }
        let index = leaf_of(block);
        let leaf = self.inner.volume.map.leaf(index)?;
        let mut leaves = self.inner.leaves.borrow_mut();
        leaves.put(index, leaf);
        leaves.get(block)
    }

    pub(super) async fn entry(&self, block: BlockIndex) -> Result<Entry, VolumeError> {
        loop {
            if let Some(entry) = self.entry_at_hand(block) {
                return Ok(entry);
            }
            self.load(block).await?;
        }
    }

    /// Loads the block's leaf, or waits until another task of this port has: a page may be a megabyte.
    pub(super) async fn load(&self, block: BlockIndex) -> Result<(), VolumeError> {
        let index = leaf_of(block);
        let Some(load) = self.inner.loads.begin(index) else {
            return self.inner.loads.ended(index).await;
        };
        let Err(error) = self.inner.volume.map.load(&self.inner.io, index).await else { return Ok(()) };
        let error = super::open::tree_error(&self.inner.volume.name, error);
        load.fail(&error);
        Err(error)
    }

    pub(super) fn store_error(&self, error: StoreError) -> VolumeError {
        VolumeError::from_store(error, format!("volume {}: the store failed", self.inner.volume.name))
    }
}

/// How long a [`Port::block_on`] sleeps before it looks again at a future that only another thread can make ready.
const BLOCK_ON_LOOK: Duration = Duration::from_millis(1);

fn keeper_gone(volume: &Volume) -> VolumeError {
    VolumeError::new(VolumeErrorKind::Failed, format!("the keeper of volume {} is gone", volume.name))
}

fn check_range(volume: &Volume, range: ByteRange, buffer_len: Option<usize>) -> Result<(), VolumeError> {
    let size = volume.size().bytes();
    let sectors = range.offset.is_multiple_of(512) && range.len.is_multiple_of(512);
    let same_len = buffer_len.is_none_or(|len| len as u64 == range.len);
    if sectors && same_len && range.fits(size) {
        return Ok(());
    }
    let (offset, len) = (range.offset, range.len);
    let text = format!("volume {}: {len} bytes at {offset} are not whole sectors within {size} bytes", volume.name);
    Err(VolumeError::new(VolumeErrorKind::OutOfRange, text))
}
