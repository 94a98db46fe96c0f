//! What can be asked of a volume, and the answer.

use super::VolumeError;
use crate::store::{Buffer, Space};
use crate::units::ByteRange;

/// Ranges must be multiples of 512 bytes; a buffer must be exactly as long as its range.
#[derive(Debug)]
pub enum Request {
    Read {
        range: ByteRange,
        buffer: Buffer,
    },
    Write {
        range: ByteRange,
        buffer: Buffer,
        stability: Stability,
    },
    /// Makes everything durable that completed before this was submitted.
    Flush,
    /// The content of the range is of no more interest; whole blocks give their space back.
    Discard {
        range: ByteRange,
    },
    /// The range reads as zeros from now on.
    WriteZeroes {
        range: ByteRange,
        space: Space,
        stability: Stability,
    },
}

impl Request {
    /// The request's buffer, if it has one.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } => Some(buffer),
            Self::Flush | Self::Discard { .. } | Self::WriteZeroes { .. } => None,
        }
    }

    /// Bytes of data that move between the guest and the volume.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Self::Read { range, .. } | Self::Write { range, .. } => range.len,
            Self::Flush | Self::Discard { .. } | Self::WriteZeroes { .. } => 0,
        }
    }
}

/// When a write may complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// When a later read sees it: a flush makes it durable.
    Cached,
    /// When it is durable.
    Stable,
}

/// A finished request.
#[derive(Debug)]
pub struct Done {
    pub tag: u32,
    pub result: Result<(), VolumeError>,
    /// The request's buffer, if it had one.
    pub buffer: Option<Buffer>,
}
