//! Writes a volume once before it is measured, so that no run meets unwritten space.

use crate::driver::{Driver, Request, Settings};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Which parts of the volume to write: `len` bytes at each multiple of `step` below `span`.
#[derive(Clone, Copy)]
pub(crate) struct Stripes {
    pub(crate) span: u64,
    pub(crate) step: u64,
    pub(crate) len: usize,
}

const SLOTS: u16 = 32;

/// Writes the stripes through the socket, then flushes.
pub(crate) fn fill(socket: &Path, stripes: Stripes) -> io::Result<()> {
    let settings = Settings { slots: SLOTS, slot_bytes: stripes.len, ..Settings::default() };
    let mut driver = Driver::connect(socket, settings)?;
    let queue = &mut driver.queues[0];
    let content: Vec<u8> = (0..=u8::MAX).cycle().take(stripes.len).collect();
    (0..SLOTS).for_each(|slot| queue.fill(slot, &content));

    let mut offsets = (0..stripes.span).step_by(usize::try_from(stripes.step).map_err(io::Error::other)?).peekable();
    let mut free: Vec<u16> = (0..SLOTS).collect();
    while offsets.peek().is_some() || free.len() < usize::from(SLOTS) {
        while let Some(slot) = free.pop() {
            let Some(offset) = offsets.next() else {
                free.push(slot);
                break;
            };
            queue.submit(slot, Request::Write { offset, len: stripes.len })?;
        }
        queue.kick()?;
        if !queue.wait(Duration::from_secs(30))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut failure = None;
        queue.reap(|slot, result| {
            failure = failure.take().or(result.err());
            free.push(slot);
        });
        failure.map_or(Ok(()), Err)?;
    }
    queue.execute(Request::Flush)
}
