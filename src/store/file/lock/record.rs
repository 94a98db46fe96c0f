//! The holder's record in a lock file: its bytes, followed by a line with their checksum, so that a reader never takes half a record
//! for one.

use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

/// How long a record that is just being written is read again.
const PATIENCE: Duration = Duration::from_millis(300);

const PAUSE: Duration = Duration::from_millis(5);

/// Longest record that is read back.
const RECORD_MAX: usize = 64 << 10;

/// A checksum's digits, with the line ends around them.
const TRAILER_LEN: usize = 18;

/// Puts the record into the file, in place of what it held; durable when it returns.
pub(super) fn write(file: &OwnedFd, holder: &[u8]) -> Result<(), Errno> {
    let mut record = holder.to_vec();
    record.extend_from_slice(trailer(holder).as_bytes());
    let mut written = 0;
    while written < record.len() {
        let offset = u64::try_from(written).expect("a length in memory fits in 64 bits");
        written += rustix::io::pwrite(file, &record[written..], offset)?;
    }
    rustix::fs::ftruncate(file, u64::try_from(record.len()).expect("as above"))?;
    rustix::fs::fdatasync(file)
}

/// The checksum's line.
fn trailer(holder: &[u8]) -> String {
    let digits = blake3::hash(holder).to_hex();
    format!("\n{}\n", &digits[..TRAILER_LEN - 2])
}

/// `None` when there is none, or it never became whole.
pub(super) fn read(file: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut record = vec![0; RECORD_MAX];
        let len = rustix::io::pread(file, record.as_mut_slice(), 0)?;
        record.truncate(len);
        let split = record.len().saturating_sub(TRAILER_LEN);
        if record[split..] == *trailer(&record[..split]).as_bytes() {
            record.truncate(split);
            return Ok(Some(record));
        }
        if record.is_empty() || Instant::now() >= give_up {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}
