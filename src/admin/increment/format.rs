//! A stream's bytes; docs/stream-format.md is the specification. Nothing here does I/O: the encoder returns bytes, the decoder is
//! given a way to get some.
//!
//! Both keep one running hash. Every part ends with the digest of all bytes before it, so the decoder hands out only what is proven to
//! be this stream's, in its place. The decoder believes no number: it never allocates more than [`DATA_BYTES_MAX`] and what
//! surrounds it, and every range it hands out lies within the volume, behind the one before.

use super::super::transfer::TransferError;
use crate::map::format::FormatError;
use crate::map::format::bytes::{Reader, Writer};
use crate::units::{ByteRange, NAME_BYTES_MAX, ObjectSize, SECTOR_BYTES, VolumeId, VolumeName, VolumeSize};

pub const MAGIC: &[u8; 8] = b"AVHSTRM1";
const VERSION: u32 = 1;

/// Data in one record at most: large enough that its surroundings cost nothing, small enough to keep several in memory.
pub const DATA_BYTES_MAX: usize = 1 << 20;

const HEAD_BYTES: usize = 512;
const DIGEST_BYTES: usize = blake3::OUT_LEN;
const RECORD_HEAD_BYTES: usize = 24;
const NO_ID: VolumeId = VolumeId([0; 16]);
const KIND_DATA: u32 = 1;
const KIND_ZERO: u32 = 2;
const KIND_END: u32 = 3;

/// What a stream is, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub object_size: ObjectSize,
    /// The content that the receiver has afterwards.
    pub to: VolumeId,
    /// The name of the snapshot, for people.
    pub name: VolumeName,
    /// What it must have before; a full stream needs nothing.
    pub from: Option<Base>,
    pub size: VolumeSize,
    /// Below it the receiver has what `to` has already.
    pub position: u64,
    /// Seconds since 1970.
    pub created: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub id: VolumeId,
    pub name: VolumeName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Data {
        offset: u64,
        bytes: Vec<u8>,
    },
    Zero(ByteRange),
    /// Bytes in all records of each kind.
    End {
        data: u64,
        zero: u64,
    },
}

/// A stream that is not one, or ends too early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct StreamError {
    /// `record 7 of the stream, at byte 1234`.
    pub place: String,
    pub problem: String,
}

impl Record {
    fn head(&self) -> (u32, u64, u64) {
        match self {
            Self::Data { offset, bytes } => (KIND_DATA, *offset, bytes.len() as u64),
            Self::Zero(range) => (KIND_ZERO, range.offset, range.len),
            Self::End { data, zero } => (KIND_END, *data, *zero),
        }
    }
}

/// Turns a head, and then records, into bytes.
#[derive(Debug)]
pub struct Encoder {
    hasher: blake3::Hasher,
}

impl Encoder {
    /// The encoder of a stream, and its first bytes.
    pub fn new(head: &Head) -> (Self, Vec<u8>) {
        let mut writer = Writer::with_capacity(HEAD_BYTES);
        writer.put(MAGIC).u32(VERSION).u32(head.object_size.shift()).id(head.to);
        writer.id(head.from.as_ref().map_or(NO_ID, |base| base.id)).u64(head.size.bytes());
        writer.u64(head.position).u64(head.created);
        for name in [Some(&head.name), head.from.as_ref().map(|base| &base.name)] {
            let text = name.map_or("", VolumeName::as_str).as_bytes();
            writer.u16(u16::try_from(text.len()).expect("a name is at most 128 bytes")).put(text);
            writer.put(&[0; NAME_BYTES_MAX][text.len()..]);
        }
        writer.zeros_to(HEAD_BYTES - DIGEST_BYTES);
        let mut encoder = Self { hasher: blake3::Hasher::new() };
        let bytes = encoder.sealed(writer.into_bytes());
        (encoder, bytes)
    }

    pub fn record(&mut self, record: &Record) -> Vec<u8> {
        let (kind, offset, len) = record.head();
        let data: &[u8] = if let Record::Data { bytes, .. } = record { bytes } else { &[] };
        let mut writer = Writer::with_capacity(RECORD_HEAD_BYTES + data.len() + DIGEST_BYTES);
        writer.u32(kind).u32(0).u64(offset).u64(len).put(data);
        self.sealed(writer.into_bytes())
    }

    fn sealed(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.hasher.update(&bytes);
        let digest = self.hasher.finalize();
        self.hasher.update(digest.as_bytes());
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }
}

/// Where a decoder gets its bytes: up to so many are appended, and fewer only at the end.
pub trait Source {
    /// # Errors
    /// When nothing can be read any more.
    fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<(), TransferError>;
}

/// Takes bytes apart.
pub struct Decoder<S> {
    source: S,
    hasher: blake3::Hasher,
    /// Records before this one, and bytes before it.
    records: u64,
    read: u64,
    /// The next range begins here or behind, and ends at `size` or before.
    next: u64,
    size: u64,
    data: u64,
    zero: u64,
}

impl<S: Source> Decoder<S> {
    /// Reads the head.
    ///
    /// # Errors
    /// When it is none, or of a version that this program does not know.
    pub fn new(source: S) -> Result<(Self, Head), TransferError> {
        let mut decoder =
            Self { source, hasher: blake3::Hasher::new(), records: 0, read: 0, next: 0, size: 0, data: 0, zero: 0 };
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        decoder.source.read(HEAD_BYTES, &mut bytes)?;
        let head = decoder.head(&bytes)?;
        decoder.read = HEAD_BYTES as u64;
        (decoder.next, decoder.size) = (head.position, head.size.bytes());
        Ok((decoder, head))
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Head, StreamError> {
        let damaged = |problem: String| StreamError { place: "the head of the stream".into(), problem };
        let parse = |error: FormatError| damaged(error.problem);
        let mut reader = Reader::new(bytes, "the head of the stream");
        reader.magic(MAGIC).map_err(parse)?;
        let version = reader.u32("the version").map_err(parse)?;
        reader.version(version, VERSION).map_err(parse)?;
        if bytes.len() < HEAD_BYTES {
            return Err(damaged(ENDS_EARLY.into()));
        }
        let (fields, digest) = bytes.split_at(HEAD_BYTES - DIGEST_BYTES);
        if !self.proves(fields, digest) {
            return Err(damaged(WRONG_DIGEST.into()));
        }
        decode_head(Reader::new(&fields[12..], "the head of the stream")).map_err(parse)
    }

    /// The next record; [`Record::End`] is the last.
    ///
    /// # Errors
    /// When the stream ends before its end, is damaged, or cannot be read.
    pub fn record(&mut self) -> Result<Record, TransferError> {
        let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES);
        self.fill(RECORD_HEAD_BYTES, &mut bytes)?;
        let mut reader = Reader::new(&bytes, "a record");
        let parse = |error: FormatError| self.damaged(error.problem);
        let (kind, padding) = (reader.u32("kind").map_err(parse)?, reader.u32("padding").map_err(parse)?);
        let (offset, len) = (reader.u64("offset").map_err(parse)?, reader.u64("length").map_err(parse)?);
        // The length decides how much is read, so it is looked at before the digest can be.
        let data_len = match kind {
            KIND_DATA => usize::try_from(len).ok().filter(|len| *len <= DATA_BYTES_MAX),
            _ => Some(0),
        };
        let Some(data_len) = data_len else {
            return Err(self.damaged(format!("{len} bytes of data are more than a record may have")).into());
        };
        self.fill(data_len + DIGEST_BYTES, &mut bytes)?;
        let (fields, digest) = bytes.split_at(bytes.len() - DIGEST_BYTES);
        if !self.proves(fields, digest) {
            return Err(self.damaged(WRONG_DIGEST.into()).into());
        }
        let record = self.checked((kind, padding), ByteRange::new(offset, len), &fields[RECORD_HEAD_BYTES..])?;
        self.records += 1;
        self.read += bytes.len() as u64;
        Ok(record)
    }

    fn checked(&mut self, (kind, padding): (u32, u32), range: ByteRange, data: &[u8]) -> Result<Record, StreamError> {
        let ByteRange { offset, len } = range;
        match (kind, padding) {
            (KIND_DATA, 0) => {
                self.check_range(range)?;
                self.data += len;
                Ok(Record::Data { offset, bytes: data.to_vec() })
            }
            (KIND_ZERO, 0) => {
                self.check_range(range)?;
                self.zero += len;
                Ok(Record::Zero(range))
            }
            (KIND_END, 0) if (offset, len) == (self.data, self.zero) => Ok(Record::End { data: offset, zero: len }),
            (KIND_END, 0) => {
                let (data, zero) = (self.data, self.zero);
                Err(self.damaged(format!("it counts {offset} and {len} bytes where {data} and {zero} came")))
            }
            _ => Err(self.damaged(format!("kind {kind} with {padding} is unknown"))),
        }
    }

    fn check_range(&mut self, range: ByteRange) -> Result<(), StreamError> {
        let ByteRange { offset, len } = range;
        let sectors = len != 0 && offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        if !sectors || !range.fits(self.size) {
            return Err(self.damaged(format!("{len} bytes at {offset} are not sectors of a volume of {}", self.size)));
        }
        if offset < self.next {
            return Err(self.damaged(format!("byte {offset} comes after byte {}", self.next)));
        }
        self.next = offset + len;
        Ok(())
    }

    /// Whether the digest is that of all bytes up to and with these.
    fn proves(&mut self, bytes: &[u8], digest: &[u8]) -> bool {
        self.hasher.update(bytes);
        let right = self.hasher.finalize().as_bytes() == digest;
        self.hasher.update(digest);
        right
    }

    fn fill(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<(), TransferError> {
        let wanted = bytes.len() + len;
        self.source.read(len, bytes)?;
        if bytes.len() < wanted { Err(self.damaged(ENDS_EARLY.into()).into()) } else { Ok(()) }
    }

    fn damaged(&self, problem: String) -> StreamError {
        let place = format!("record {} of the stream, at byte {}", self.records + 1, self.read);
        StreamError { place, problem }
    }
}

const ENDS_EARLY: &str = "the stream ends before its end";
const WRONG_DIGEST: &str = "its digest does not match";

/// The fields behind the version.
fn decode_head(mut reader: Reader<'_>) -> Result<Head, FormatError> {
    let shift = reader.u32("object size")?;
    let object_size = ObjectSize::new(1u64.checked_shl(shift).unwrap_or(0));
    let object_size = object_size.map_err(|error| reader.error(error.to_string()))?;
    let (to, from) = (reader.id("to")?, reader.id("from")?);
    let size = VolumeSize::new(reader.u64("size")?).map_err(|error| reader.error(error.to_string()))?;
    let (position, created) = (reader.u64("position")?, reader.u64("time")?);
    let name = decode_name(&mut reader)?.ok_or_else(|| reader.error("it has no name"))?;
    let from_name = decode_name(&mut reader)?;
    reader.zeros(HEAD_BYTES - DIGEST_BYTES - 332, "its end")?;
    if to == NO_ID || to == from {
        return Err(reader.error("it leads from nothing to nothing"));
    }
    if position > size.bytes() || !position.is_multiple_of(SECTOR_BYTES) {
        return Err(reader.error(format!("position {position} is no sector of the volume")));
    }
    let from = match (from, from_name) {
        (NO_ID, None) => None,
        (id, Some(name)) if id != NO_ID => Some(Base { id, name }),
        _ => return Err(reader.error("it has an id without a name, or the reverse")),
    };
    Ok(Head { object_size, to, name, from, size, position, created })
}

fn decode_name(reader: &mut Reader<'_>) -> Result<Option<VolumeName>, FormatError> {
    let len = usize::from(reader.u16("the length of a name")?);
    let field = reader.take(NAME_BYTES_MAX, "a name")?;
    let (name, rest) = field.split_at_checked(len).ok_or_else(|| reader.error("a name is too long"))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(reader.error("there is something behind a name"));
    }
    if name.is_empty() {
        return Ok(None);
    }
    let name = std::str::from_utf8(name).ok().and_then(|name| VolumeName::new(name).ok());
    name.map(Some).ok_or_else(|| reader.error("a name is not a volume's"))
}

#[cfg(test)]
mod tests;
