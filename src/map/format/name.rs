//! The name record: which volume bears a name.

use super::FormatError;
use super::bytes::{Reader, Writer, unseal};
use crate::units::VolumeId;

const MAGIC: &[u8; 8] = b"AVHNAME1";

pub fn encode(id: VolumeId) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(MAGIC).id(id);
    writer.sealed(1)
}

/// # Errors
/// When the bytes are not a name record.
pub fn decode(bytes: &[u8]) -> Result<VolumeId, FormatError> {
    let mut reader = Reader::new(unseal(bytes, "the name record")?, "the name record");
    reader.magic(MAGIC)?;
    reader.id("volume id")
}
