//! Reading and writing little-endian fields, and the checksum that ends every structure.

use super::FormatError;
use crate::units::VolumeId;

/// Bytes of a checksum: BLAKE3, truncated. Against accidents, not against forgers.
pub const CHECKSUM_BYTES: usize = 16;

pub type Checksum = [u8; CHECKSUM_BYTES];

pub fn checksum(bytes: &[u8]) -> Checksum {
    let mut truncated = [0; CHECKSUM_BYTES];
    truncated.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    truncated
}

/// Fills the last bytes with the checksum of those before them.
///
/// # Panics
/// When there is no room for it.
pub fn seal(bytes: &mut [u8]) {
    let (body, end) = bytes.split_at_mut(bytes.len() - CHECKSUM_BYTES);
    end.copy_from_slice(&checksum(body));
}

/// The bytes before a valid checksum at the end.
///
/// # Errors
/// When it does not match.
pub fn unseal<'a>(bytes: &'a [u8], structure: &'static str) -> Result<&'a [u8], FormatError> {
    let body_len = bytes.len().checked_sub(CHECKSUM_BYTES);
    let body_len = body_len.ok_or_else(|| FormatError::new(structure, "it is too short"))?;
    let (body, end) = bytes.split_at(body_len);
    if checksum(body) == *end { Ok(body) } else { Err(FormatError::new(structure, "its checksum does not match")) }
}

/// Takes fields from the front of a byte string.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    structure: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], structure: &'static str) -> Self {
        Self { rest: bytes, structure }
    }

    pub fn error(&self, problem: impl Into<String>) -> FormatError {
        FormatError::new(self.structure, problem)
    }

    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FormatError> {
        let taken = self.rest.split_at_checked(len);
        let (taken, rest) = taken.ok_or_else(|| self.error(format!("it ends before {field}")))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub fn id(&mut self, field: &'static str) -> Result<VolumeId, FormatError> {
        self.array(field).map(VolumeId)
    }

    pub fn checksum(&mut self, field: &'static str) -> Result<Checksum, FormatError> {
        self.array(field)
    }

    /// The structure's first bytes must be these.
    pub fn magic(&mut self, magic: &[u8]) -> Result<(), FormatError> {
        let found = self.take(magic.len(), "magic")?;
        if found == magic { Ok(()) } else { Err(self.error("its magic is wrong")) }
    }

    /// The version must be one that this program knows: 1 to `newest`.
    pub fn version(&mut self, found: u32, newest: u32) -> Result<(), FormatError> {
        if (1..=newest).contains(&found) {
            Ok(())
        } else {
            Err(self.error(format!("version {found} is unknown to this program, which knows up to {newest}")))
        }
    }

    /// The next `len` bytes must be zero.
    pub fn zeros(&mut self, len: usize, field: &'static str) -> Result<(), FormatError> {
        let clean = self.take(len, field)?.iter().all(|byte| *byte == 0);
        if clean { Ok(()) } else { Err(self.error(format!("{field} is not zero"))) }
    }
}

/// Appends fields to a byte string.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn id(&mut self, id: VolumeId) -> &mut Self {
        self.put(&id.0)
    }

    /// Zeros up to byte `end` of the structure.
    ///
    /// # Panics
    /// When the structure is longer already.
    pub fn zeros_to(&mut self, end: usize) -> &mut Self {
        assert!(self.0.len() <= end, "fields must fit into their structure");
        self.0.resize(end, 0);
        self
    }

    /// What was written so far, without a checksum: a part of another structure.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Zeros up to a length that, with the checksum, is a multiple of `align`; then the checksum. The whole structure.
    pub fn sealed(mut self, align: usize) -> Vec<u8> {
        let len = (self.0.len() + CHECKSUM_BYTES).next_multiple_of(align);
        self.zeros_to(len);
        seal(&mut self.0);
        self.0
    }
}
