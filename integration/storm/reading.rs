//! Reads a whole volume through its socket.

use super::content::SECTOR_BYTES;
use super::driver::{Driver, Request, Settings};
use super::load::{SLOT_BYTES, values_of};
use std::io;
use std::path::Path;
use std::time::Duration;

const SLOTS: u16 = 8;
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The write that each sector came from.
pub(crate) fn read_all(socket: &Path) -> io::Result<Vec<u64>> {
    let settings = Settings { slots: SLOTS, slot_bytes: SLOT_BYTES, ..Settings::default() };
    let mut driver = Driver::connect(socket, settings)?;
    let bytes = usize::try_from(driver.capacity()?).map_err(io::Error::other)?;
    let queue = &mut driver.queues[0];
    let mut values = vec![0; bytes / SECTOR_BYTES];
    let mut pieces = (0..bytes).step_by(SLOT_BYTES);
    let mut free: Vec<u16> = (0..SLOTS).collect();
    let mut in_flight = vec![0..0; usize::from(SLOTS)];
    loop {
        while let Some(slot) = free.pop() {
            let Some(start) = pieces.next() else {
                free.push(slot);
                break;
            };
            let len = SLOT_BYTES.min(bytes - start);
            in_flight[usize::from(slot)] = start..start + len;
            queue.submit(slot, Request::Read { offset: start as u64, len })?;
        }
        if free.len() == usize::from(SLOTS) {
            return Ok(values);
        }
        queue.kick()?;
        if !queue.wait(ANSWER_MAX)? {
            return Err(io::Error::other("no read finished for 60 s"));
        }
        let mut finished = Vec::new();
        queue.reap(|slot, result| finished.push((slot, result)));
        for (slot, result) in finished {
            result?;
            let range = in_flight[usize::from(slot)].clone();
            let mut data = vec![0; range.len()];
            queue.copy_out(slot, &mut data);
            let first = range.start / SECTOR_BYTES;
            let found = values_of(first, &data);
            values[first..first + found.len()].copy_from_slice(&found);
            free.push(slot);
        }
    }
}
