//! A guest at an attached volume's socket, for tests that need something to be written.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "as for the program, beside which it lies")]

use crate::driver::{Driver, Request, Settings};
use std::path::Path;

/// Bytes of one request.
pub const PIECE: usize = 64 << 10;

pub struct Guest {
    driver: Driver,
}

impl Guest {
    pub fn at(socket: &Path) -> Self {
        let settings = Settings { slot_bytes: PIECE, ..Settings::default() };
        Self { driver: Driver::connect(socket, settings).unwrap() }
    }

    /// Writes a piece full of `byte`, and flushes.
    pub fn write(&mut self, offset: u64, byte: u8) {
        let queue = &mut self.driver.queues[0];
        queue.fill(0, &[byte; PIECE]);
        queue.execute(Request::Write { offset, len: PIECE }).unwrap();
        queue.execute(Request::Flush).unwrap();
    }

    /// The byte that a piece is full of.
    pub fn read(&mut self, offset: u64) -> u8 {
        let queue = &mut self.driver.queues[0];
        queue.execute(Request::Read { offset, len: PIECE }).unwrap();
        let mut bytes = [0; PIECE];
        queue.copy_out(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    }

    /// Gives a piece back.
    pub fn discard(&mut self, offset: u64) {
        let queue = &mut self.driver.queues[0];
        queue.execute(Request::Discard { offset, len: u64::try_from(PIECE).unwrap() }).unwrap();
        queue.execute(Request::Flush).unwrap();
    }

    /// What the device says its size is, asked anew.
    pub fn capacity(&self) -> u64 {
        self.driver.capacity().unwrap()
    }
}
