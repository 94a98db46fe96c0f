//! What a test writes into a sector, so that a reader can tell which request wrote it, and where.

use crate::rng::mix;

pub const SECTOR_BYTES: usize = 512;

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Zero,
    /// The bytes that this request wrote into this sector.
    Written(u64),
}

/// The content that request `request` writes into `sector`.
pub fn content(request: u64, sector: u64) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    bytes[..8].copy_from_slice(&request.to_le_bytes());
    bytes[8..16].copy_from_slice(&sector.to_le_bytes());
    for (word, position) in bytes[16..].chunks_exact_mut(8).zip(0u64..) {
        word.copy_from_slice(&mix(request ^ sector.rotate_left(32) ^ (position << 56)).to_le_bytes());
    }
    bytes
}

/// What the bytes found in `sector` are.
///
/// # Errors
/// When they are nothing that was ever written there whole: the text says what they look like.
pub fn recognize(sector: u64, bytes: &[u8]) -> Result<Value, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Value::Zero);
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (request, home) = (word(0), word(8));
    if bytes != content(request, home) {
        return Err("garbage, or a sector that is torn".to_owned());
    }
    if home == sector { Ok(Value::Written(request)) } else { Err(format!("what request {request} wrote to {home}")) }
}
