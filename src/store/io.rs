//! [`Io`]: one thread's [`Channel`] as futures, and, beside them, the fast path that needs none.
//!
//! ```text
//!   task ──run(op)──► Io ──token: slot──► Channel        a future that is dropped leaves its slot abandoned: the
//!   port ──submit_raw─┘ └─token: raw bit─►               buffer lives on in the driver until the completion comes
//! ```
//! The owner of the thread's loop calls [`Io::reap`], which wakes futures and hands out raw completions. Invariants: a
//! slot is freed only by its completion, so a token never means two operations; no channel or slot is borrowed while a
//! waker runs, so wakers may do what they like.

mod block_on;
mod slots;

pub use block_on::block_on;

use super::{
    Buffer, Channel, Completion, Durability, ListScope, ObjectName, Op, Outcome, Persistence, PublishMode, Room, Space,
    StoreError, Token, Wake, WatchId,
};
use slots::Slots;
use std::cell::RefCell;
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Marks the tokens of [`Io::submit_raw`]; slot keys have it clear.
const RAW: u64 = 1 << 63;

/// Belongs to the thread that made it. Cheap to clone; all clones are one channel.
#[derive(Clone)]
pub struct Io {
    inner: Rc<Inner>,
}

struct Inner {
    channel: RefCell<Box<dyn Channel>>,
    slots: RefCell<Slots>,
    /// Kept between calls of [`Io::reap`] so that it does not allocate.
    done: RefCell<Vec<Completion>>,
}

/// What an operation brought, and its buffer if it had one.
#[derive(Debug)]
pub struct Finished {
    pub result: Result<Outcome, StoreError>,
    pub buffer: Option<Buffer>,
}

/// The end of an operation that was submitted with [`Io::submit_raw`].
#[derive(Debug)]
pub struct RawCompletion {
    pub token: u32,
    pub result: Result<Outcome, StoreError>,
    pub buffer: Option<Buffer>,
}

/// An operation under way. Dropping it forgets the result; the operation goes on.
pub struct Running {
    inner: Rc<Inner>,
    key: u64,
}

impl Future for Running {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finished> {
        self.inner.slots.borrow_mut().poll(self.key, context.waker())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.slots.borrow_mut().abandon(self.key);
    }
}

impl Io {
    pub fn new(channel: Box<dyn Channel>) -> Self {
        let inner = Inner { channel: RefCell::new(channel), slots: RefCell::default(), done: RefCell::default() };
        Self { inner: Rc::new(inner) }
    }

    /// Submits the operation now; the future ends with it.
    pub fn run(&self, op: Op) -> Running {
        let key = self.inner.slots.borrow_mut().occupy();
        self.inner.channel.borrow_mut().submit(Token(key), op);
        Running { inner: Rc::clone(&self.inner), key }
    }

    /// Submits an operation whose completion comes out of [`Io::reap`] with this token. Nothing is allocated.
    pub fn submit_raw(&self, token: u32, op: Op) {
        self.inner.channel.borrow_mut().submit(Token(RAW | u64::from(token)), op);
    }

    /// Collects completions once: wakes their futures, appends the raw ones. Returns whether there were any.
    pub fn reap(&self, raw: &mut Vec<RawCompletion>) -> bool {
        let mut done = self.inner.done.take();
        self.inner.channel.borrow_mut().reap(&mut done);
        let moved = !done.is_empty();
        for Completion { token, result, buffer } in done.drain(..) {
            if token.0 & RAW != 0 {
                let token = u32::try_from(token.0 & !RAW).expect("submit_raw took 32 bits");
                raw.push(RawCompletion { token, result, buffer });
            } else {
                let waker = self.inner.slots.borrow_mut().finish(token.0, Finished { result, buffer });
                waker.into_iter().for_each(std::task::Waker::wake);
            }
        }
        self.inner.done.replace(done);
        moved
    }

    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`](super::StoreErrorKind::NotFound) when there is no such object, or what the driver reports.
    pub async fn read(&self, object: ObjectName, offset: u64, buffer: Buffer) -> Result<Buffer, StoreError> {
        let finished = self.run(Op::Read { object, offset, buffer }).await;
        finished.result.map(|_| finished.buffer.expect("a read gives its buffer back"))
    }

    /// The whole object; meant for small ones.
    ///
    /// # Errors
    /// As [`Io::read`].
    pub async fn read_all(&self, object: ObjectName) -> Result<Vec<u8>, StoreError> {
        let size = self.stat(object.clone()).await?;
        let len = usize::try_from(size).map_err(|_| {
            let target = format!("{object}, which is too large for one read");
            StoreError::new(super::StoreErrorKind::Unsupported, "read", target)
        })?;
        Ok(self.read(object, 0, Buffer::zeroed(len)).await?.to_vec())
    }

    /// Writes into an object that exists.
    ///
    /// # Errors
    /// As [`Io::read`].
    pub async fn write(
        &self,
        object: ObjectName,
        offset: u64,
        buffer: Buffer,
        durability: Durability,
    ) -> Result<Persistence, StoreError> {
        self.run(Op::Write { object, offset, buffer, durability }).await.changed()
    }

    /// Creates a data object that may grow to `size`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Exists`](super::StoreErrorKind::Exists) when it is there already, or what the driver reports.
    pub async fn create(
        &self,
        object: ObjectName,
        offset: u64,
        buffer: Buffer,
        size: u64,
    ) -> Result<Persistence, StoreError> {
        self.run(Op::Create { object, offset, buffer, size }).await.changed()
    }

    /// Makes a part of an object read as zeros.
    ///
    /// # Errors
    /// As [`Io::read`].
    pub async fn zero(
        &self,
        object: ObjectName,
        offset: u64,
        len: u64,
        space: Space,
    ) -> Result<Persistence, StoreError> {
        self.run(Op::Zero { object, offset, len, space }).await.changed()
    }

    /// Removes the object if it is there.
    ///
    /// # Errors
    /// What the driver reports.
    pub async fn remove(&self, object: ObjectName) -> Result<(), StoreError> {
        self.run(Op::Remove { object }).await.result.map(drop)
    }

    /// Makes all completed changes of these objects durable.
    ///
    /// # Errors
    /// What the driver reports; never to be tried again (the contract's sixth promise).
    pub async fn sync(&self, objects: Vec<ObjectName>) -> Result<(), StoreError> {
        self.run(Op::Sync { objects }).await.result.map(drop)
    }

    /// See [`Op::SyncAll`].
    ///
    /// # Errors
    /// As [`Io::sync`].
    pub async fn sync_all(&self) -> Result<(), StoreError> {
        self.run(Op::SyncAll).await.result.map(drop)
    }

    /// Creates or replaces a whole object, durably.
    ///
    /// # Errors
    /// [`StoreErrorKind::Exists`](super::StoreErrorKind::Exists) in exclusive mode when it is there already, or what the driver reports.
    pub async fn publish(&self, object: ObjectName, bytes: &[u8], mode: PublishMode) -> Result<(), StoreError> {
        self.publish_in(Room::Ordinary, object, bytes, mode).await
    }

    /// As [`Io::publish`], in that space.
    ///
    /// # Errors
    /// As [`Io::publish`].
    pub async fn publish_in(
        &self,
        room: Room,
        object: ObjectName,
        bytes: &[u8],
        mode: PublishMode,
    ) -> Result<(), StoreError> {
        let content = Buffer::copied_from(bytes);
        self.run(Op::Publish { object, content, mode, room }).await.result.map(drop)
    }

    /// The object's length in bytes.
    ///
    /// # Errors
    /// As [`Io::read`].
    pub async fn stat(&self, object: ObjectName) -> Result<u64, StoreError> {
        match self.run(Op::Stat { object }).await.result? {
            Outcome::Size(size) => Ok(size),
            other => unreachable!("a driver answered Stat with {other:?}"),
        }
    }

    /// One page of a listing: at most `limit` names after `after`; fewer mean the end.
    ///
    /// # Errors
    /// What the driver reports.
    pub async fn list(
        &self,
        scope: ListScope,
        after: Option<ObjectName>,
        limit: usize,
    ) -> Result<Vec<ObjectName>, StoreError> {
        match self.run(Op::List { scope, after, limit }).await.result? {
            Outcome::Names(names) => Ok(names),
            other => unreachable!("a driver answered List with {other:?}"),
        }
    }

    /// See [`Channel::kick`].
    pub fn kick(&self) {
        self.inner.channel.borrow_mut().kick();
    }

    /// See [`Channel::in_flight`].
    pub fn in_flight(&self) -> usize {
        self.inner.channel.borrow().in_flight()
    }

    /// See [`Channel::watch`].
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    pub fn watch(&self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.inner.channel.borrow_mut().watch(fd)
    }

    /// See [`Channel::unwatch`].
    pub fn unwatch(&self, watch: WatchId) {
        self.inner.channel.borrow_mut().unwatch(watch);
    }

    /// See [`Channel::wait`].
    pub fn wait(&self, timeout: Option<Duration>) {
        self.inner.channel.borrow_mut().wait(timeout);
    }

    /// See [`Channel::waker`].
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.inner.channel.borrow().waker()
    }
}

impl Finished {
    fn changed(self) -> Result<Persistence, StoreError> {
        match self.result? {
            Outcome::Changed(persistence) => Ok(persistence),
            other => unreachable!("a driver answered a change with {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
