//! The way of an asynchronous operation through librados and back to the channel that started it.
//!
//! ```text
//!   channel ── start(cargo) ──► librados ── its thread: arrived() ──► queue ── collect() ──► channel
//! ```
//! Invariants: a flight is in one place at a time: with librados, or in the queue. librados' thread does nothing but move
//! it and wake the channel: it would hold up every other completion, and deadlock if it waited for one. The cargo owns
//! the memory that librados reads and fills, and comes back only after librados has let go of it. Nothing is ever
//! cancelled: a cancelled operation may still happen.

#![allow(unsafe_code, reason = "memory that librados has for a while; every block below says why it holds")]

use super::cluster::Pool;
use super::compound::WriteOp;
use super::error::{Failure, check};
use super::library::{CompletionHandle, FULL_TRY, Library};
use crate::store::Wake;
use crate::store::sleep::EventWaker;
use crossbeam_channel::{Receiver, Sender};
use libc::{c_char, c_int, c_void, time_t};
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;

/// Where a channel's operations come back to.
pub(super) struct Arrivals<T> {
    sender: Sender<Box<Flight<T>>>,
    queue: Receiver<Box<Flight<T>>>,
    waker: Arc<EventWaker>,
}

/// An operation under way, or back.
struct Flight<T> {
    cargo: T,
    library: &'static Library,
    to: Arc<Arrivals<T>>,
    answer: c_int,
    /// Where librados puts an object's length and time.
    size: u64,
    time: time_t,
}

/// What came back.
pub(super) struct Arrival<T> {
    pub(super) cargo: T,
    /// A count of bytes for reads.
    pub(super) answer: Result<c_int, Failure>,
    /// An object's length, if that was asked for.
    pub(super) size: u64,
}

/// A place in memory that an operation fills.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) base: *mut u8,
    pub(super) len: usize,
}

impl<T: Send + 'static> Arrivals<T> {
    pub(super) fn new(waker: Arc<EventWaker>) -> Arc<Self> {
        let (sender, queue) = crossbeam_channel::unbounded();
        Arc::new(Self { sender, queue, waker })
    }

    pub(super) fn any(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What has come back next.
    pub(super) fn next(&self) -> Option<Arrival<T>> {
        let Flight { cargo, answer, size, .. } = *self.queue.try_recv().ok()?;
        Some(Arrival { cargo, answer: check(answer), size })
    }

    /// Starts a change. An operation that librados does not take comes back like any other.
    pub(super) fn write(self: &Arc<Self>, pool: &Pool, object: &CStr, op: &WriteOp, cargo: T) {
        self.start(pool, cargo, |completion, _| {
            let (library, now) = (pool.library(), ptr::null_mut());
            // SAFETY: handles of this pool, this operation and this completion; the text is copied; null is the present.
            unsafe {
                let op = op.handle();
                (library.aio_write_op_operate)(op, pool.handle(), completion, object.as_ptr(), now, FULL_TRY)
            }
        });
    }

    /// Starts a read into `target`.
    ///
    /// # Safety
    /// The target must be valid for writes for as long as `cargo` lives.
    pub(super) unsafe fn read(self: &Arc<Self>, pool: &Pool, object: &CStr, offset: u64, target: Target, cargo: T) {
        self.start(pool, cargo, |completion, _| {
            let (base, len) = (target.base.cast::<c_char>(), target.len);
            // SAFETY: handles of this pool and this completion; the text is copied; the target is good for as long as the
            // flight has the cargo, which is until after the completion.
            unsafe { (pool.library().aio_read)(pool.handle(), object.as_ptr(), completion, base, len, offset) }
        });
    }

    /// Asks for the object's length.
    pub(super) fn stat(self: &Arc<Self>, pool: &Pool, object: &CStr, cargo: T) {
        self.start(pool, cargo, |completion, flight| {
            // SAFETY: handles of this pool and this completion; the text is copied; the two places are in the flight, which
            // stays where it is until after the completion.
            unsafe {
                let (size, time) = (&raw mut (*flight).size, &raw mut (*flight).time);
                (pool.library().aio_stat)(pool.handle(), object.as_ptr(), completion, size, time)
            }
        });
    }

    fn start(self: &Arc<Self>, pool: &Pool, cargo: T, submit: impl FnOnce(CompletionHandle, *mut Flight<T>) -> c_int) {
        let library = pool.library();
        let flight = Box::new(Flight { cargo, library, to: Arc::clone(self), answer: 0, size: 0, time: 0 });
        let flight = Box::into_raw(flight);
        let mut completion = ptr::null_mut();
        // SAFETY: the argument is what the callback takes it for, and it is called at most once for a completion.
        let made =
            unsafe { (library.aio_create_completion2)(flight.cast::<c_void>(), arrived::<T>, &raw mut completion) };
        let started = if made < 0 { made } else { submit(completion, flight) };
        if started < 0 {
            // SAFETY: librados has not taken the operation, so the callback will not be called and the flight is ours again.
            let mut flight = unsafe { Box::from_raw(flight) };
            flight.answer = started;
            flight.land();
            if made >= 0 {
                // SAFETY: a completion that was made and is not used any more.
                unsafe { (library.aio_release)(completion) };
            }
        }
    }
}

impl<T> Flight<T> {
    /// Puts the flight where its channel finds it.
    fn land(self: Box<Self>) {
        let to = Arc::clone(&self.to);
        // The receiver lives as long as the sender: both are in there.
        let sent = to.sender.send(self);
        debug_assert!(sent.is_ok(), "an arrival's receiver lives in its own struct");
        to.waker.wake();
    }
}

/// Called once by a thread of librados when it has let go of the operation's memory and its answer is there.
unsafe extern "C" fn arrived<T>(completion: CompletionHandle, argument: *mut c_void) {
    // SAFETY: the argument is the flight that `start` gave away for this completion, and nobody else has it.
    let mut flight = unsafe { Box::from_raw(argument.cast::<Flight<T>>()) };
    let library = flight.library;
    // SAFETY: the completion is complete, and we are the only ones to release it.
    unsafe {
        flight.answer = (library.aio_get_return_value)(completion);
        (library.aio_release)(completion);
    }
    flight.land();
}
