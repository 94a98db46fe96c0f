//! Pipes and terminals at the end of a transfer: read and written in order, and never waited for longer than a moment
//! without a look at whether the transfer is still wanted.

use super::job::Job;
use super::transfer::TransferError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};

/// How long a cancelled transfer may go unnoticed.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A pipe that is ready takes so many bytes at once without blocking (PIPE_BUF).
const WRITE_BYTES: usize = 4096;

/// Appends up to `len` bytes; fewer mean the end.
///
/// # Errors
/// When the stream fails or the job is cancelled.
pub fn read(stream: &File, len: usize, bytes: &mut Vec<u8>, job: &Job) -> Result<(), TransferError> {
    read_until(stream, len, bytes, &|| job.is_cancelled())
}

/// As [`read`], until the caller wants no more.
///
/// # Errors
/// As [`read`].
pub fn read_until(
    mut stream: &File,
    len: usize,
    bytes: &mut Vec<u8>,
    given_up: &dyn Fn() -> bool,
) -> Result<(), TransferError> {
    let start = bytes.len();
    bytes.resize(start + len, 0);
    let mut end = start;
    while end < start + len {
        wait(stream, PollFlags::IN, given_up, TransferError::ReadImage)?;
        match stream.read(&mut bytes[end..]) {
            Ok(0) => break,
            Ok(read) => end += read,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(TransferError::ReadImage(error)),
        }
    }
    bytes.truncate(end);
    Ok(())
}

/// # Errors
/// When the stream fails or the job is cancelled.
pub fn write(mut stream: &File, mut bytes: &[u8], job: &Job) -> Result<(), TransferError> {
    while !bytes.is_empty() {
        wait(stream, PollFlags::OUT, &|| job.is_cancelled(), TransferError::WriteImage)?;
        match stream.write(&bytes[..bytes.len().min(WRITE_BYTES)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(TransferError::WriteImage(error)),
        }
    }
    Ok(())
}

/// Returns when the stream is ready, or broken, which reading and writing will tell.
fn wait(
    stream: &File,
    ready: PollFlags,
    given_up: &dyn Fn() -> bool,
    failed: fn(io::Error) -> TransferError,
) -> Result<(), TransferError> {
    loop {
        if given_up() {
            return Err(TransferError::Cancelled);
        }
        match poll(&mut [PollFd::new(stream, ready)], Some(&LOOK_INTERVAL)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    fn cancelled_soon() -> Arc<Job> {
        let job = Arc::new(Job::default());
        let copy = Arc::clone(&job);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            copy.cancel();
        });
        job
    }

    #[test]
    fn a_pipe_that_brings_nothing_can_be_left() {
        let (reader, _writer) = io::pipe().unwrap();
        let reader = File::from(OwnedFd::from(reader));
        let result = read(&reader, 10, &mut Vec::new(), &cancelled_soon());
        assert!(matches!(result, Err(TransferError::Cancelled)));
    }

    #[test]
    fn a_pipe_that_takes_nothing_can_be_left() {
        let (_reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        let result = write(&writer, &vec![0; 1 << 20], &cancelled_soon());
        assert!(matches!(result, Err(TransferError::Cancelled)));
    }
}
