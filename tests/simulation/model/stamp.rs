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
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words(request, sector)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words(request: u64, sector: u64) -> impl Iterator<Item = u64> {
    let (step, mut last) = (mix(request) | 1, mix(request ^ sector.rotate_left(32)));
    let rest = std::iter::from_fn(move || {
        last = last.wrapping_add(step).rotate_left(7);
        Some(last)
    });
    [request, sector].into_iter().chain(rest)
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
    if !bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .eq(words(request, home).take(SECTOR_BYTES / 8))
    {
        return Err("garbage, or a sector that is torn".to_owned());
    }
    if home == sector { Ok(Value::Written(request)) } else { Err(format!("what request {request} wrote to {home}")) }
}
