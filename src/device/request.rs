//! From a chain to what the guest asks for (virtio 1.2, section 5.2.6), whatever the layout of its descriptors.
//!
//! ```text
//!   readable: type (4), reserved (4), sector (8), data of writes …        writable: data of reads …, status (1)
//! ```
//!
//! Everything is checked here, before anything is done: types, lengths, ranges, flags, the right to write. What passes is
//! a [`Request`] that the volume cannot refuse for its form.

#![allow(unsafe_code, reason = "a request's buffer is a list of guest memory")]

use super::chain::Chain;
use super::config_space::{DISCARD_SECTORS_MAX, SEGMENT_BYTES_MAX, SEGMENTS_MAX};
use super::guest_bytes;
use super::options::{Serial, Writes};
use crate::store::{Buffer, Space};
use crate::units::{ByteRange, SECTOR_BYTES};
use crate::volume::{Request, Stability};
use libc::iovec;
use std::any::Any;
use std::sync::Arc;
use virtio_bindings::virtio_blk as blk;

/// Most data of one request: what `size_max` and `seg_max` allow together.
const DATA_BYTES_MAX: u64 = SEGMENT_BYTES_MAX as u64 * SEGMENTS_MAX as u64;

const HEADER_BYTES: usize = 16;

/// `struct virtio_blk_discard_write_zeroes`: sector, number of sectors, flags.
const DISCARD_BYTES: usize = 16;

/// What the status byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    pub(super) fn byte(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::IoError => 1,
            Status::Unsupported => 2,
        }
    }
}

/// For the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    Other,
}

/// What to do about a chain.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Hand it to the volume; on success `written` bytes of data will have gone to the guest.
    Submit { request: Request, written: u32 },
    /// Answer at once.
    Answer { status: Status, written: u32 },
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) kind: Kind,
    pub(super) verdict: Verdict,
}

/// What holds for a request.
pub(super) struct Rules<'a> {
    pub(super) capacity_bytes: u64,
    pub(super) writes: Writes,
    pub(super) stability: Stability,
    pub(super) serial: &'a Serial,
    /// Keeps the guest's memory mapped; put into every buffer.
    pub(super) keep: &'a Arc<dyn Any + Send + Sync>,
}

/// Why a request is answered at once.
type Refused = Status;

/// Says what the chain asks for. The chain's lists are used up.
pub(super) fn parse(chain: &mut Chain, rules: &Rules<'_>) -> Parsed {
    let Some(header) = guest_bytes::take_front::<HEADER_BYTES>(&mut chain.readable) else {
        return Parsed { kind: Kind::Other, verdict: refused(Status::IoError) };
    };
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    let (kind, verdict) = match u32::from_le_bytes([t0, t1, t2, t3]) {
        blk::VIRTIO_BLK_T_IN => (Kind::Read, read(chain, sector, rules)),
        blk::VIRTIO_BLK_T_OUT => (Kind::Write, write(chain, sector, rules)),
        blk::VIRTIO_BLK_T_FLUSH => (Kind::Flush, Ok(submit(Request::Flush, 0))),
        blk::VIRTIO_BLK_T_DISCARD => (Kind::Discard, discard(chain, rules)),
        blk::VIRTIO_BLK_T_WRITE_ZEROES => (Kind::Discard, write_zeroes(chain, rules)),
        blk::VIRTIO_BLK_T_GET_ID if chain.broken.is_some() => (Kind::Other, Err(Status::IoError)),
        blk::VIRTIO_BLK_T_GET_ID => (Kind::Other, Ok(serial(chain, rules.serial))),
        _ => (Kind::Other, Err(Status::Unsupported)),
    };
    let broken = chain.broken.is_some();
    let verdict = if broken { refused(Status::IoError) } else { verdict.unwrap_or_else(refused) };
    Parsed { kind, verdict }
}

fn refused(status: Refused) -> Verdict {
    Verdict::Answer { status, written: 0 }
}

fn submit(request: Request, written: u32) -> Verdict {
    Verdict::Submit { request, written }
}

const NOTHING_TO_DO: Verdict = Verdict::Answer { status: Status::Ok, written: 0 };

fn read(chain: &Chain, sector: u64, rules: &Rules<'_>) -> Result<Verdict, Refused> {
    let (range, len) = data_range(&chain.writable, sector, rules)?;
    if len == 0 {
        return Ok(NOTHING_TO_DO);
    }
    Ok(submit(Request::Read { range, buffer: buffer(&chain.writable, rules) }, len))
}

fn write(chain: &Chain, sector: u64, rules: &Rules<'_>) -> Result<Verdict, Refused> {
    check_writable(rules)?;
    let (range, len) = data_range(&chain.readable, sector, rules)?;
    if len == 0 {
        return Ok(NOTHING_TO_DO);
    }
    let buffer = buffer(&chain.readable, rules);
    Ok(submit(Request::Write { range, buffer, stability: rules.stability }, 0))
}

fn discard(chain: &mut Chain, rules: &Rules<'_>) -> Result<Verdict, Refused> {
    let segment = DiscardSegment::take(chain, rules)?;
    if segment.flags != 0 {
        return Err(Status::Unsupported);
    }
    Ok(segment.range.map_or(NOTHING_TO_DO, |range| submit(Request::Discard { range }, 0)))
}

fn write_zeroes(chain: &mut Chain, rules: &Rules<'_>) -> Result<Verdict, Refused> {
    let segment = DiscardSegment::take(chain, rules)?;
    let space = match segment.flags {
        0 => Space::Keep,
        blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP => Space::Free,
        _ => return Err(Status::Unsupported),
    };
    let stability = rules.stability;
    Ok(segment.range.map_or(NOTHING_TO_DO, |range| submit(Request::WriteZeroes { range, space, stability }, 0)))
}

fn serial(chain: &Chain, serial: &Serial) -> Verdict {
    let filled = guest_bytes::fill_front(&chain.writable, serial.bytes());
    Verdict::Answer { status: Status::Ok, written: u32::try_from(filled).unwrap_or(0) }
}

/// A segment of a discard or write-zeroes, checked except for its flags. `range` is `None` when it is empty.
struct DiscardSegment {
    range: Option<ByteRange>,
    flags: u32,
}

impl DiscardSegment {
    fn take(chain: &mut Chain, rules: &Rules<'_>) -> Result<Self, Refused> {
        check_writable(rules)?;
        let bytes = guest_bytes::take_front::<DISCARD_BYTES>(&mut chain.readable).ok_or(Status::IoError)?;
        if total(&chain.readable) != 0 {
            // max_discard_seg and max_write_zeroes_seg are one.
            return Err(Status::Unsupported);
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        if sectors > DISCARD_SECTORS_MAX {
            return Err(Status::IoError);
        }
        let range = checked_range(sector, u64::from(sectors) * SECTOR_BYTES, rules)?;
        Ok(Self { range: (sectors != 0).then_some(range), flags: u32::from_le_bytes(flags) })
    }
}

fn check_writable(rules: &Rules<'_>) -> Result<(), Refused> {
    match rules.writes {
        Writes::Allowed => Ok(()),
        Writes::Refused => Err(Status::IoError),
    }
}

/// The range of a read or a write whose data are these segments, and its length again, as a 32-bit number.
fn data_range(segments: &[iovec], sector: u64, rules: &Rules<'_>) -> Result<(ByteRange, u32), Refused> {
    let len = total(segments);
    if len > DATA_BYTES_MAX || !len.is_multiple_of(SECTOR_BYTES) {
        return Err(Status::IoError);
    }
    let range = checked_range(sector, len, rules)?;
    u32::try_from(len).map(|len| (range, len)).map_err(|_| Status::IoError)
}

fn checked_range(sector: u64, len: u64, rules: &Rules<'_>) -> Result<ByteRange, Refused> {
    let offset = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoError)?;
    let range = ByteRange::new(offset, len);
    if range.fits(rules.capacity_bytes) { Ok(range) } else { Err(Status::IoError) }
}

/// Cannot overflow: at most a thousand pieces (see `chain`) of at most 4 GiB.
fn total(segments: &[iovec]) -> u64 {
    segments.iter().map(|segment| segment.iov_len as u64).sum()
}

fn buffer(segments: &[iovec], rules: &Rules<'_>) -> Buffer {
    // SAFETY: the segments were translated through the memory table that `keep` holds, which keeps them mapped, readable
    // and writable.
    unsafe { Buffer::from_segments(segments.iter().copied(), Arc::clone(rules.keep)) }
}

#[cfg(test)]
mod tests;
