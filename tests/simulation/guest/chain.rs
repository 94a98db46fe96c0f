//! A request as a chain of descriptors: any layout that virtio 1.2 (section 5.2.6, `VIRTIO_F_ANY_LAYOUT`) allows.

use crate::model::Effect;
use crate::rng::Rng;
use crate::workload::Asked;
use archvhost::store::Space;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;
const FLAG_UNMAP: u32 = 1;

pub const HEADER_BYTES: u64 = 16;

/// Descriptors of one chain at most: two for the header, the data's pieces, the status.
pub const DESCRIPTORS_MAX: usize = 2 + PIECES_MAX + 1;
const PIECES_MAX: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The device reads it.
    Out,
    /// The device writes it.
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub address: u64,
    pub len: u64,
    pub direction: Direction,
}

/// Where a request's parts lie in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    pub header: u64,
    pub data: u64,
    pub status: u64,
}

/// What the device reads as the header and, for changes without data of their own, the payload.
pub fn header_and_payload(asked: &Asked, content: &[u8]) -> ([u8; 16], Vec<u8>) {
    let (kind, sector, payload) = match asked {
        Asked::Read { sectors } => (TYPE_IN, sectors.start, Vec::new()),
        Asked::Flush => (TYPE_FLUSH, 0, Vec::new()),
        Asked::Change { effect: Effect::Write, sectors, .. } => (TYPE_OUT, sectors.start, content.to_vec()),
        Asked::Change { effect: effect @ (Effect::Discard | Effect::Zero), sectors, space, .. } => {
            let unmap = *effect == Effect::Zero && *space == Space::Free;
            let count = u32::try_from(sectors.end - sectors.start).expect("a small request");
            let mut segment = sectors.start.to_le_bytes().to_vec();
            segment.extend(count.to_le_bytes());
            segment.extend((if unmap { FLAG_UNMAP } else { 0 }).to_le_bytes());
            (if *effect == Effect::Discard { TYPE_DISCARD } else { TYPE_WRITE_ZEROES }, 0, segment)
        }
    };
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    (header, payload)
}

/// Bytes that the device is to write for the request, its status apart.
pub fn bytes_in(asked: &Asked) -> u64 {
    match asked {
        Asked::Read { sectors } => (sectors.end - sectors.start) * 512,
        Asked::Flush | Asked::Change { .. } => 0,
    }
}

/// Cuts the request into descriptors as a driver might; now and then at places where no driver would.
pub fn layout(rng: &mut Rng, places: Places, payload: u64, bytes_in: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let odd = rng.one_in(4);
    let header_cut = if odd { rng.between(1, HEADER_BYTES - 1) } else { HEADER_BYTES };
    push(&mut parts, places.header, header_cut, Direction::Out);
    push(&mut parts, places.header + header_cut, HEADER_BYTES - header_cut, Direction::Out);
    let (len, direction) = if bytes_in == 0 { (payload, Direction::Out) } else { (bytes_in, Direction::In) };
    let mut done = 0;
    for left in (0..PIECES_MAX).rev() {
        let rest = len - done;
        let grain = if odd { 1 } else { 512 };
        let now = if left == 0 || rest <= grain || rng.one_in(2) { rest } else { grain * rng.between(1, rest / grain) };
        push(&mut parts, places.data + done, now, direction);
        done += now;
    }
    push(&mut parts, places.status, 1, Direction::In);
    parts
}

fn push(parts: &mut Vec<Part>, address: u64, len: u64, direction: Direction) {
    if len != 0 {
        parts.push(Part { address, len, direction });
    }
}
