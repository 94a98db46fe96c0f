//! What `import` and `export` share: their error, the number of threads, and which parts of a piece are worth moving.

use super::increment::format::StreamError;
use super::increment::token::{Token, TokenError};
use crate::units::ByteSize;
use crate::volume::{VolumeError, VolumeErrorKind};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Pieces moved at once, each by a thread of its own: enough to keep a disk busy on both sides, and at most 64 MiB.
pub const THREADS: usize = 4;

/// Zeros are recognised in units of this: small enough to keep a file system's image thin, large enough for few requests.
pub const ZERO_GRANULE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("cannot read the image")]
    ReadImage(#[source] io::Error),
    #[error("cannot write the image")]
    WriteImage(#[source] io::Error),
    #[error("the image is larger than the volume, which has {0}")]
    ImageTooLarge(ByteSize),
    #[error("the size of the image cannot be known beforehand: say how large the volume is to be with --size")]
    SizeUnknown,
    #[error("the image has no bytes: there is nothing to make a volume of (or say its size with --size)")]
    ImageEmpty,
    #[error("the target has {has}, and the volume needs {needs}")]
    TargetTooSmall { has: ByteSize, needs: ByteSize },
    #[error("the target's file system holds no file of {0}: export to another (XFS, tmpfs), to a device or to a pipe")]
    NoFileSoLarge(ByteSize),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token goes on at byte {} of a stream to {}, which is not a stream of these snapshots", .0.position, .0.to)]
    OtherToken(Token),
    #[error("cancelled")]
    Cancelled,
    /// The transfer failed, and can go on later from where it was.
    #[error("{failure}; {way_on}")]
    Interrupted { failure: Box<TransferError>, way_on: String },
    /// The transfer failed, and so did tidying up after it.
    #[error("{failure}; and the half-filled volume {name} could not be removed: run `archvhost remove {name}`")]
    LeftBehind { name: String, failure: Box<TransferError>, source: VolumeError },
}

impl TransferError {
    /// What the volume layer says, if it is to blame.
    pub fn volume_kind(&self) -> Option<VolumeErrorKind> {
        match self {
            Self::Volume(error) => Some(error.kind()),
            Self::LeftBehind { failure, .. } | Self::Interrupted { failure, .. } => failure.volume_kind(),
            Self::ReadImage(_)
            | Self::WriteImage(_)
            | Self::ImageTooLarge(_)
            | Self::SizeUnknown
            | Self::ImageEmpty
            | Self::TargetTooSmall { .. }
            | Self::NoFileSoLarge(_)
            | Self::Stream(_)
            | Self::Token(_)
            | Self::OtherToken(_)
            | Self::Cancelled => None,
        }
    }
}

/// Runs `work` in `threads` threads; when one fails the others are told to stop, and the first failure is returned.
pub fn in_parallel<F>(threads: usize, work: F) -> Result<(), TransferError>
where
    F: Fn(&AtomicBool) -> Result<(), TransferError> + Sync,
{
    let stop = AtomicBool::new(false);
    let guarded = || {
        let result = work(&stop);
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        result
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(guarded)).collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

/// The parts of `bytes` that are not zero, in granules, neighbours joined.
pub fn nonzero_runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, granule) in bytes.chunks(ZERO_GRANULE).enumerate() {
        let start = index * ZERO_GRANULE;
        let end = start + granule.len();
        if is_zero(granule) {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Compares the bytes with themselves shifted by a few, which the C library's memcmp does at memory speed.
fn is_zero(bytes: &[u8]) -> bool {
    const HEAD: usize = 16;
    let head = bytes.len().min(HEAD);
    bytes[..head].iter().all(|byte| *byte == 0) && bytes[head..] == bytes[..bytes.len() - head]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_and_neighbours_joined() {
        let mut bytes = vec![0; 4 * ZERO_GRANULE + 512];
        assert!(nonzero_runs(&bytes).is_empty());
        bytes[ZERO_GRANULE] = 1;
        bytes[3 * ZERO_GRANULE - 1] = 1;
        bytes[4 * ZERO_GRANULE + 511] = 1;
        let expected = [ZERO_GRANULE..3 * ZERO_GRANULE, 4 * ZERO_GRANULE..4 * ZERO_GRANULE + 512];
        assert_eq!(nonzero_runs(&bytes), expected);
    }

    #[test]
    fn one_set_byte_anywhere_is_not_zero() {
        for len in [1, 15, 16, 17, 512] {
            assert!(is_zero(&vec![0; len]));
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{len} {at}");
            }
        }
    }

    #[test]
    fn a_failing_thread_stops_the_others() {
        let first = AtomicBool::new(true);
        let result = in_parallel(3, |stop| {
            if first.swap(false, Ordering::Relaxed) {
                return Err(TransferError::SizeUnknown);
            }
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Ok(())
        });
        assert!(matches!(result, Err(TransferError::SizeUnknown)));
    }
}
