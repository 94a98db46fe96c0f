//! One connection, as its session, its workers and [`super::Device::stop`] see it, and the way to end it from any thread.
//!
//! Ending does not close the socket: a front-end that sees its connection closed takes the used indexes as they stand then
//! for what was done, and has the rest done again by whoever serves it next. So the session is told over a descriptor of its
//! own, drains its rings, and closes the socket after the last answer. All waiting on the socket is done in
//! [`Connection::wait`], so that no front-end can hold up an end, not even one that never reads its replies.

use super::error::DeviceError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub(super) struct Connection {
    stream: UnixStream,
    /// Readable as soon as the connection is to end.
    ending: OwnedFd,
    ended: AtomicBool,
    failure: Mutex<Option<DeviceError>>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Result<Self, DeviceError> {
        let ending = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let ending = ending.map_err(|errno| DeviceError::Socket { operation: "set up", source: errno.into() })?;
        Ok(Self { stream, ending, ended: AtomicBool::new(false), failure: Mutex::new(None) })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Waits until the socket is ready for this, or at an end. `false` when the connection is to end instead.
    pub(super) fn wait(&self, ready: PollFlags) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.stream, ready), PollFd::new(&self.ending, PollFlags::IN)];
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(!self.is_ended()),
            }
        }
    }

    /// Makes the session end in order.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then it is readable too.
        let _ = rustix::io::write(&self.ending, &1_u64.to_ne_bytes());
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Makes the session end with this error, unless it ends with an earlier one.
    pub(super) fn fail(&self, error: DeviceError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.end();
    }

    pub(super) fn take_failure(&self) -> Option<DeviceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lets the front-end see the end. Only when nothing more will happen to its rings.
    pub(super) fn close(&self) {
        // Fails only when the peer is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
