//! Device flushes as ring entries: a flush round of overwrites then costs no helper thread and two wake-ups less.
//!
//! Only for a sync that lists no objects (sync.rs, the first case); its entry is an `fdatasync` of the store's clean file.

#![allow(unsafe_code, reason = "flush entries go to the ring")]

use super::home::Home;
use super::ring::{Event, Ring};
use super::sync;
use crate::store::{Completion, Outcome, Token};
use io_uring::{opcode, types};
use rustix::io::Errno;
use slab::Slab;
use std::os::fd::AsRawFd;

/// The user data's two highest bits here; operations have neither, watches the other.
const MARK: u64 = 1 << 62;

/// Flushes under way.
#[derive(Default)]
pub(super) struct Flushes {
    tokens: Slab<Token>,
}

impl Flushes {
    pub(super) fn owns(user_data: u64) -> bool {
        user_data >> 62 == 1
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn start(&mut self, home: &Home, token: Token, ring: &mut Ring) {
        let key = u64::try_from(self.tokens.insert(token)).expect("few flushes are under way");
        let flags = types::FsyncFlags::DATASYNC;
        let entry = opcode::Fsync::new(types::Fd(home.clean.as_raw_fd())).flags(flags).build().user_data(MARK | key);
        // SAFETY: the entry points to no memory, and its descriptor lives as long as the store, which outlives its channels.
        unsafe { ring.push(entry) }
    }

    pub(super) fn event(&mut self, event: Event) -> Completion {
        let key = usize::try_from(event.user_data & !MARK).expect("a slab key");
        let result = match event.result {
            0.. => Ok(Outcome::Done),
            error => Err(sync::failed_for_all(Errno::from_raw_os_error(-error))),
        };
        Completion { token: self.tokens.remove(key), result, buffer: None }
    }
}
