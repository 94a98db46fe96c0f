//! The header: the root of a volume's map as of one lease generation, and everything else that is true of the volume.

use super::FormatError;
use super::bytes::{CHECKSUM_BYTES, Reader, Writer, unseal};
use super::page::PageAddress;
use crate::units::{Epoch, Generation, NAME_BYTES_MAX, ObjectSize, VolumeId, VolumeName, VolumeSize};

pub const HEADER_BYTES: usize = 4096;
const STRUCTURE: &str = "the volume's header";
const MAGIC: &[u8; 8] = b"AVHHEAD1";
/// Version 1 has no flags and nothing behind the name.
const VERSION_PLAIN: u32 = 1;
const VERSION: u32 = 2;
const FLAG_SNAPSHOT: u32 = 1;
const FLAG_UNFINISHED: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub state: HeaderState,
    pub id: VolumeId,
    pub generation: Generation,
    pub size: VolumeSize,
    pub object_size: ObjectSize,
    /// The lowest epoch of any object that is not yet in the persisted map.
    pub epoch: Epoch,
    /// No name at or above it has been used.
    pub epoch_limit: Epoch,
    /// Objects of this and lower epochs are not written in place.
    pub shared_epoch: Epoch,
    /// Number of the last change that the pages contain.
    pub change_through: u64,
    /// Bytes in this volume's segments, and of them in pages that the tree still names.
    pub segment_bytes: u64,
    pub live_bytes: u64,
    pub current_journal: u32,
    pub next_journal: u32,
    /// Seconds since 1970.
    pub created: u64,
    pub parent: Option<Parent>,
    pub root: Option<PageAddress>,
    /// Which of its names counts, should two records lead to it.
    pub name: VolumeName,
    pub kind: VolumeKind,
    /// Its root is not there yet, or does not count yet.
    pub unfinished: Option<Unfinished>,
    /// Objects that a holder who was cut off may still write.
    pub unfenced: Option<Unfenced>,
    /// The snapshot whose bytes this volume's are, if it was not written since.
    pub content: Option<VolumeId>,
    /// A transfer into this volume that is not complete.
    pub receiving: Option<Receiving>,
    pub limits: Limits,
}

/// Whether a volume may ever be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeKind {
    Disk,
    /// Never written, and shared by any number of readers.
    Snapshot,
}

/// A volume in the making: it exists as soon as the volume `with` is not unfinished; that may be itself, or the leader of the
/// group that it is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    pub with: VolumeId,
}

/// This volume's own objects of epochs in (above, through] (rule C4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfenced {
    pub above: Epoch,
    pub through: Epoch,
}

/// Below `position` the volume has the bytes of `to`; from there on, those of its `content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiving {
    pub to: VolumeId,
    pub position: u64,
}

/// What a volume may be used at, per second; zero means without limit. Bursts are what may be used at once after a rest, in
/// requests and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub iops: u64,
    pub iops_burst: u64,
    pub bytes: u64,
    pub bytes_burst: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderState {
    /// Never opened, or, with [`Header::unfinished`], being made.
    Building,
    /// Open, or its holder died.
    Live,
    Closed,
    /// A new holder is at work; the truth is in this lower generation.
    TakingOver {
        previous: Generation,
    },
    Removed,
}

/// What a volume was cloned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    pub id: VolumeId,
    pub epoch: Epoch,
}

impl HeaderState {
    fn code(self) -> (u32, Generation) {
        match self {
            Self::Building => (1, Generation(0)),
            Self::Live => (2, Generation(0)),
            Self::Closed => (3, Generation(0)),
            Self::TakingOver { previous } => (4, previous),
            Self::Removed => (5, Generation(0)),
        }
    }

    fn from_code(code: u32, previous: Generation) -> Result<Self, FormatError> {
        match (code, previous.0) {
            (1, 0) => Ok(Self::Building),
            (2, 0) => Ok(Self::Live),
            (3, 0) => Ok(Self::Closed),
            (4, 1..) => Ok(Self::TakingOver { previous }),
            (5, 0) => Ok(Self::Removed),
            _ => Err(FormatError::new(
                STRUCTURE,
                format!("state {code} with previous generation {} is unknown", previous.0),
            )),
        }
    }
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let (state, previous) = self.state.code();
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        writer.put(MAGIC).u32(VERSION).u32(state).id(self.id).u64(self.generation.0).u64(previous.0);
        writer.u64(self.size.bytes()).u32(self.object_size.shift()).u32(self.flags());
        writer.u64(self.epoch.0).u64(self.epoch_limit.0).u64(self.shared_epoch.0).u64(self.change_through);
        writer.u64(self.segment_bytes).u64(self.live_bytes).u32(self.current_journal).u32(self.next_journal);
        writer.u64(self.created);
        let parent = self.parent.unwrap_or(Parent { id: VolumeId([0; 16]), epoch: Epoch(0) });
        writer.id(parent.id).u64(parent.epoch.0);
        PageAddress::encode(self.root.as_ref(), &mut writer);
        let name = self.name.as_str().as_bytes();
        writer.u16(u16::try_from(name.len()).expect("a name is at most 128 bytes")).put(name);
        writer.put(&[0; NAME_BYTES_MAX + 6][name.len()..]);
        let id = |id: Option<VolumeId>| id.unwrap_or(NO_ID);
        writer.id(id(self.unfinished.map(|unfinished| unfinished.with)));
        let unfenced = self.unfenced.unwrap_or(Unfenced { above: Epoch(0), through: Epoch(0) });
        writer.u64(unfenced.above.0).u64(unfenced.through.0);
        let receiving = self.receiving.unwrap_or(Receiving { to: NO_ID, position: 0 });
        writer.id(id(self.content)).id(receiving.to).u64(receiving.position);
        let Limits { iops, iops_burst, bytes, bytes_burst } = self.limits;
        writer.u64(iops).u64(iops_burst).u64(bytes).u64(bytes_burst);
        writer.sealed(HEADER_BYTES)
    }

    fn flags(&self) -> u32 {
        let snapshot = if self.kind == VolumeKind::Snapshot { FLAG_SNAPSHOT } else { 0 };
        snapshot | if self.unfinished.is_some() { FLAG_UNFINISHED } else { 0 }
    }

    /// # Errors
    /// When any field does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != HEADER_BYTES {
            return Err(FormatError::new(STRUCTURE, format!("it has {} bytes instead of {HEADER_BYTES}", bytes.len())));
        }
        let mut reader = Reader::new(unseal(bytes, STRUCTURE)?, STRUCTURE);
        reader.magic(MAGIC)?;
        let version = reader.u32("version")?;
        reader.version(version, VERSION)?;
        let state = reader.u32("state")?;
        let id = reader.id("volume id")?;
        let generation = Generation(reader.u64("generation")?);
        let state = HeaderState::from_code(state, Generation(reader.u64("previous generation")?))?;
        let size = VolumeSize::new(reader.u64("size")?).map_err(|error| reader.error(error.to_string()))?;
        let object_size = decode_object_size(&mut reader)?;
        let flags = reader.u32("flags")?;
        let known = if version == VERSION_PLAIN { 0 } else { FLAG_SNAPSHOT | FLAG_UNFINISHED };
        if flags & !known != 0 {
            return Err(reader.error(format!("flags {flags:#x} are unknown")));
        }
        let [epoch, epoch_limit, shared_epoch] =
            ["epoch", "epoch limit", "shared epoch"].map(|field| reader.u64(field));
        let (epoch, epoch_limit, shared_epoch) = (Epoch(epoch?), Epoch(epoch_limit?), Epoch(shared_epoch?));
        if !(shared_epoch < epoch_limit && epoch < epoch_limit && epoch_limit <= Epoch::MAX) {
            return Err(reader.error("shared epoch and epoch are not both below the epoch limit"));
        }
        let change_through = reader.u64("change through")?;
        let (segment_bytes, live_bytes) = (reader.u64("segment bytes")?, reader.u64("live bytes")?);
        let (current_journal, next_journal) = (reader.u32("current journal")?, reader.u32("next journal")?);
        let created = reader.u64("created")?;
        let parent = Parent { id: reader.id("parent")?, epoch: Epoch(reader.u64("parent epoch")?) };
        let parent = present(parent.id).map(|_| parent);
        let root = PageAddress::decode(&mut reader)?;
        let name = decode_name(&mut reader)?;
        reader.zeros(6, "the end of the name")?;
        let with = present(reader.id("leader")?);
        let unfinished = match (flags & FLAG_UNFINISHED != 0, with) {
            (false, None) => None,
            (true, Some(with)) => Some(Unfinished { with }),
            _ => return Err(reader.error("the flag and the leader of what is unfinished do not match")),
        };
        let unfenced =
            Unfenced { above: Epoch(reader.u64("unfenced above")?), through: Epoch(reader.u64("unfenced through")?) };
        let unfenced = (unfenced.through != Epoch(0)).then_some(unfenced);
        if unfenced.is_some_and(|range| range.above >= range.through || range.through > shared_epoch) {
            return Err(reader.error("the unfenced range is not one, or not shared"));
        }
        let content = present(reader.id("content")?);
        let receiving = Receiving { to: reader.id("receiving")?, position: reader.u64("received bytes")? };
        let receiving = present(receiving.to).map(|_| receiving);
        let [iops, iops_burst, bytes, bytes_burst] =
            ["limit of requests", "burst of requests", "limit of bytes", "burst of bytes"].map(|f| reader.u64(f));
        let limits = Limits { iops: iops?, iops_burst: iops_burst?, bytes: bytes?, bytes_burst: bytes_burst? };
        let kind = if flags & FLAG_SNAPSHOT == 0 { VolumeKind::Disk } else { VolumeKind::Snapshot };
        Ok(Self {
            kind,
            unfinished,
            unfenced,
            content,
            receiving,
            limits,
            state,
            id,
            generation,
            size,
            object_size,
            epoch,
            epoch_limit,
            shared_epoch,
            change_through,
            segment_bytes,
            live_bytes,
            current_journal,
            next_journal,
            created,
            parent,
            root,
            name,
        })
    }
}

const NO_ID: VolumeId = VolumeId([0; 16]);

fn present(id: VolumeId) -> Option<VolumeId> {
    (id != NO_ID).then_some(id)
}

fn decode_object_size(reader: &mut Reader<'_>) -> Result<ObjectSize, FormatError> {
    let shift = reader.u32("object size")?;
    let bytes = 1u64.checked_shl(shift).unwrap_or(0);
    ObjectSize::new(bytes).map_err(|error| reader.error(error.to_string()))
}

fn decode_name(reader: &mut Reader<'_>) -> Result<VolumeName, FormatError> {
    let len = usize::from(reader.u16("length of the name")?);
    let field = reader.take(NAME_BYTES_MAX, "name")?;
    let text = field.get(..len).and_then(|name| std::str::from_utf8(name).ok());
    let name = text.and_then(|text| VolumeName::new(text).ok());
    name.ok_or_else(|| reader.error("its name is not a volume name"))
}

const _: () = assert!(456 + CHECKSUM_BYTES <= HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::format::bytes::seal;

    fn header() -> Header {
        Header {
            state: HeaderState::TakingOver { previous: Generation(3) },
            id: VolumeId([7; 16]),
            generation: Generation(4),
            size: VolumeSize::new(1 << 40).unwrap(),
            object_size: ObjectSize::DEFAULT,
            epoch: Epoch(9),
            epoch_limit: Epoch(1000),
            shared_epoch: Epoch(2),
            change_through: 77,
            segment_bytes: 4096,
            live_bytes: 512,
            current_journal: 5,
            next_journal: 6,
            created: 1_700_000_000,
            parent: Some(Parent { id: VolumeId([8; 16]), epoch: Epoch(1) }),
            root: None,
            name: VolumeName::new("web1").unwrap(),
            kind: VolumeKind::Snapshot,
            unfinished: Some(Unfinished { with: VolumeId([9; 16]) }),
            unfenced: Some(Unfenced { above: Epoch(1), through: Epoch(2) }),
            content: Some(VolumeId([10; 16])),
            receiving: Some(Receiving { to: VolumeId([11; 16]), position: 1 << 30 }),
            limits: Limits { iops: 1000, iops_burst: 2000, bytes: 3000, bytes_burst: 4000 },
        }
    }

    #[test]
    fn a_header_survives_its_bytes() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn fields_that_cannot_be_are_refused_even_with_a_good_checksum() {
        for (offset, value) in
            [(8, 3u8), (12, 9), (56, 40), (60, 1), (60, 4), (81, 200), (216, 255), (218, b'/'), (350, 1), (368, 2)]
        {
            let mut damaged = header().encode();
            damaged[offset] = value;
            seal(&mut damaged);
            assert!(Header::decode(&damaged).is_err(), "byte {offset}");
        }
    }

    #[test]
    fn a_header_of_version_1_is_a_plain_disk() {
        let plain = Header {
            kind: VolumeKind::Disk,
            unfinished: None,
            unfenced: None,
            content: None,
            receiving: None,
            limits: Limits::default(),
            ..header()
        };
        let mut bytes = plain.encode();
        bytes[8] = 1;
        seal(&mut bytes);
        assert_eq!(Header::decode(&bytes), Ok(plain));
    }

    #[test]
    fn a_truncated_header_is_refused() {
        assert!(Header::decode(&header().encode()[..4000]).is_err());
        assert!(Header::decode(&[]).is_err());
    }
}
