//! One virtqueue as an interrupt-driven guest driver uses it. Belongs to one thread.
//!
//! Invariant: a slot's buffer is in the device's hands from `submit` until `reap` reports the slot; the caller does not
//! submit it again or look at its bytes in between.
#![allow(unsafe_code, reason = "virtio-driver takes request buffers as raw pointers")]

use super::memory::GuestMemory;
use super::{Connection, Settings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;
use virtio_driver::{EventFd, QueueNotifier, VirtioBlkQueue};

/// One request. Offsets and lengths are in bytes, multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Read { offset: u64, len: usize },
    Write { offset: u64, len: usize },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, unmap: bool },
}

pub struct Queue {
    ring: VirtioBlkQueue<'static, u16>,
    kick: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
    memory: Arc<GuestMemory>,
    first_byte: usize,
    slot_bytes: usize,
    slots: u16,
    /// Last, so that it is dropped last: the rings live in its memory.
    _connection: Connection,
}

impl Queue {
    pub(super) fn new(
        ring: VirtioBlkQueue<'static, u16>,
        index: usize,
        settings: Settings,
        connection: &Connection,
        memory: Arc<GuestMemory>,
    ) -> Self {
        Queue {
            ring,
            kick: connection.get_submission_notifier(index),
            call: connection.get_completion_fd(index),
            memory,
            first_byte: index * usize::from(settings.slots) * settings.slot_bytes,
            slot_bytes: settings.slot_bytes,
            slots: settings.slots,
            _connection: connection.clone(),
        }
    }

    pub fn slots(&self) -> u16 {
        self.slots
    }

    /// Puts a request into the ring. The device may see it at once, but need not before `kick`.
    pub fn submit(&mut self, slot: u16, request: Request) -> io::Result<()> {
        match request {
            Request::Read { offset, len } => {
                let buffer = self.buffer(slot, len);
                // SAFETY: the buffer lies in guest memory, which lives as long as the queue, and is the slot's own.
                unsafe { self.ring.read_raw(offset, buffer, len, slot) }
            }
            Request::Write { offset, len } => {
                let buffer = self.buffer(slot, len);
                // SAFETY: as for a read.
                unsafe { self.ring.write_raw(offset, buffer, len, slot) }
            }
            Request::Flush => self.ring.flush(slot),
            Request::Discard { offset, len } => self.ring.discard(offset, len, slot),
            Request::WriteZeroes { offset, len, unmap } => self.ring.write_zeroes(offset, len, unmap, slot),
        }
    }

    /// Notifies the device of what was submitted, if it wants to be.
    pub fn kick(&mut self) -> io::Result<()> {
        // The crate has this barrier only with EVENT_IDX: the ring's index must be visible before the flags are read.
        fence(Ordering::SeqCst);
        if self.ring.avail_notif_needed() { self.kick.notify() } else { Ok(()) }
    }

    /// Reports every request that the device has finished: its slot, and EIO or ENOTSUP where it failed.
    pub fn reap(&mut self, mut finished: impl FnMut(u16, io::Result<()>)) -> usize {
        let mut count = 0;
        for completion in self.ring.completions() {
            let result = if completion.ret == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-completion.ret)) };
            finished(completion.context, result);
            count += 1;
        }
        count
    }

    /// Whether `reap` would find something.
    pub fn has_finished(&mut self) -> bool {
        self.ring.completions().has_next()
    }

    /// Sleeps until the device signals a completion; false after `timeout` without one.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        self.ring.set_used_notif_enabled(true);
        fence(Ordering::SeqCst);
        let woken = self.has_finished() || self.sleep(timeout)?;
        self.ring.set_used_notif_enabled(false);
        Ok(woken)
    }

    fn sleep(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(self.call.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match self.call.read() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(true),
        }
    }

    /// Runs one request from start to end, in slot 0 of an otherwise idle queue.
    pub fn execute(&mut self, request: Request) -> io::Result<()> {
        self.submit(0, request)?;
        self.kick()?;
        let mut outcome = None;
        while outcome.is_none() {
            if !self.wait(Duration::from_secs(10))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.reap(|_, result| outcome = Some(result));
        }
        outcome.expect("the loop ends with an outcome")
    }

    /// Fills the start of a slot's buffer.
    pub fn fill(&self, slot: u16, bytes: &[u8]) {
        assert!(bytes.len() <= self.slot_bytes);
        self.memory.write(self.offset(slot), bytes);
    }

    /// Copies the start of a slot's buffer out.
    pub fn copy_out(&self, slot: u16, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.slot_bytes);
        self.memory.read(self.offset(slot), bytes);
    }

    fn buffer(&self, slot: u16, len: usize) -> *mut u8 {
        assert!(len <= self.slot_bytes, "a request of {len} bytes exceeds its slot");
        self.memory.pointer(self.offset(slot), len)
    }

    fn offset(&self, slot: u16) -> usize {
        assert!(slot < self.slots);
        self.first_byte + usize::from(slot) * self.slot_bytes
    }
}
