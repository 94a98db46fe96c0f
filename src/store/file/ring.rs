//! One thread's io_uring, reduced to what a channel needs: push, submit, collect, wait.
//!
//! DEFER_TASKRUN keeps completions out of the way until the thread asks; so every look at the completion queue must first
//! enter the kernel when it says that there is deferred work (`IORING_SETUP_TASKRUN_FLAG`), or polling never ends.

#![allow(unsafe_code, reason = "submission entries hold raw pointers; the caller of `push` vouches for them")]

use io_uring::{IoUring, cqueue, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Entries handed over in one system call at most. More wait in the backlog.
const SUBMISSIONS: u32 = 256;

/// Room for completions: everything a channel may have in flight, and signals.
const COMPLETIONS: u32 = 4096;

pub(super) struct Ring {
    ring: IoUring,
    /// Entries that found the submission queue full and the kernel unwilling.
    backlog: VecDeque<squeue::Entry>,
}

/// A completion queue entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) user_data: u64,
    pub(super) result: i32,
    /// Whether a multishot request goes on.
    pub(super) more: bool,
}

impl Ring {
    /// With the best flags that this kernel knows; a ring belongs to the thread that makes it.
    pub(super) fn new() -> io::Result<Self> {
        let ring = build(|builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        })
        .or_else(|_| {
            build(|builder| {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            })
        })
        .or_else(|_| build(|_| ()))?;
        Ok(Self { ring, backlog: VecDeque::new() })
    }

    /// Takes an entry; it starts at the next [`Ring::submit`] or before.
    ///
    /// # Safety
    /// What the entry points to must stay valid, and in place, until its last completion was collected. An iovec array is
    /// read for the last time in the `submit` that starts the entry, which may come after this call.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise is the very one that is asked for.
        if self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.submit();
        // SAFETY: as above.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Starts what was pushed. Returns whether nothing is left waiting to start.
    pub(super) fn submit(&mut self) -> bool {
        loop {
            if self.ring.submission().is_empty() && self.backlog.is_empty() {
                return true;
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                // The kernel wants completions collected, or is short of memory: later.
                Err(_) => return false,
            }
            if !self.refill() {
                return self.ring.submission().is_empty();
            }
        }
    }

    /// Moves backlog into the submission queue; whether any moved.
    fn refill(&mut self) -> bool {
        let mut moved = false;
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the entry was pushed under the promise of `push`, which still holds: it has not completed.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
            moved = true;
        }
        moved
    }

    /// Appends what has completed. Enters the kernel only when it has deferred work for us.
    pub(super) fn collect(&mut self, events: &mut Vec<Event>) {
        let queue = self.ring.submission();
        let (deferred, overflow) = (queue.taskrun(), queue.cq_overflow());
        drop(queue);
        if deferred || overflow {
            // What it would report, the next call meets again.
            let _retried_later = self.ring.submit();
        }
        events.extend(self.ring.completion().map(|entry| Event {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        }));
    }

    /// Starts what was pushed and sleeps until something completes or the time is over. May return early.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        if !self.backlog.is_empty() {
            self.submit();
        }
        // An error is a signal, the end of the time, or completions to be collected first: all reasons to return.
        let _woken = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(time) => {
                let time = types::Timespec::from(time);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
            }
        };
    }

    /// A table of `len` empty slots for registered files.
    pub(super) fn reserve_files(&self, len: u32) -> io::Result<()> {
        self.ring.submitter().register_files_sparse(len)
    }

    /// Puts a file into a slot, or with -1 empties it. Entries that name a slot mean what is in it when they *start*, so
    /// everything pushed is started first; false when that cannot be done now.
    pub(super) fn set_file(&mut self, slot: u32, fd: RawFd) -> bool {
        self.submit() && self.ring.submitter().register_files_update(slot, &[fd]).is_ok()
    }

    /// Lets go of all registered files now, not when the kernel gets round to tearing down the ring.
    pub(super) fn release_files(&self) {
        // There may be none.
        let _released = self.ring.submitter().unregister_files();
    }
}

fn build(flags: impl FnOnce(&mut io_uring::Builder)) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(COMPLETIONS);
    flags(&mut builder);
    builder.build(SUBMISSIONS)
}
