//! Which file an object is: names to paths and back. The one place that knows the tree.
//!
//! ```text
//! DIR/archvhost-store                        what this directory is, and the layout's version
//! DIR/names/NAME                             name records
//! DIR/volumes/ID/header.G journal.G.N segment.G.N      G and N in decimal
//! DIR/volumes/ID/lease.N                     a lock file, with its holder's record; the highest N is the volume's lock
//! DIR/data/ID/B/BLOCK.EPOCH                  data objects, in hexadecimal; B = BLOCK >> 10
//! DIR/reserve/N                              blocks kept back for operations that free space
//! ```
//! A directory of data holds neighbouring blocks and at most 1024 of them (each in as many epochs as are alive), so it
//! stays small and their inodes lie together. What does not parse is no object: temporary files begin with a dot.

use crate::store::ObjectName;
use crate::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use std::ffi::CString;
use std::fmt;

/// Blocks of one directory of data: `1 << SHARD_SHIFT`.
const SHARD_SHIFT: u32 = 10;

/// A directory of the store. Displayed as its path below the store's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Directory {
    Root,
    Names,
    Volumes,
    Volume(VolumeId),
    Data,
    VolumeData(VolumeId),
    Shard(VolumeId, u64),
    Reserve,
}

impl Directory {
    /// The directory that an object's file lies in.
    pub(super) fn of(name: &ObjectName) -> Self {
        match name {
            ObjectName::Name(_) => Self::Names,
            ObjectName::Header { volume, .. }
            | ObjectName::Journal { volume, .. }
            | ObjectName::Segment { volume, .. } => Self::Volume(*volume),
            ObjectName::Data { volume, block, .. } => Self::Shard(*volume, block.0 >> SHARD_SHIFT),
        }
    }

    pub(super) fn parent(self) -> Option<Self> {
        match self {
            Self::Root => None,
            Self::Names | Self::Volumes | Self::Data | Self::Reserve => Some(Self::Root),
            Self::Volume(_) => Some(Self::Volumes),
            Self::VolumeData(_) => Some(Self::Data),
            Self::Shard(volume, _) => Some(Self::VolumeData(volume)),
        }
    }

    /// This directory and those above it, up to the store's root.
    pub(super) fn chain(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |directory| directory.parent())
    }

    pub(super) fn path(self) -> CString {
        c_string(self.to_string())
    }

    /// The path of an entry of this directory.
    pub(super) fn entry(self, name: impl fmt::Display) -> CString {
        c_string(format!("{self}/{name}"))
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("."),
            Self::Names => f.write_str("names"),
            Self::Volumes => f.write_str("volumes"),
            Self::Volume(volume) => write!(f, "volumes/{volume}"),
            Self::Data => f.write_str("data"),
            Self::Reserve => f.write_str("reserve"),
            Self::VolumeData(volume) => write!(f, "data/{volume}"),
            Self::Shard(volume, shard) => write!(f, "data/{volume}/{shard:x}"),
        }
    }
}

/// The path of an object's file, from the store's root.
pub(super) fn path(name: &ObjectName) -> CString {
    let directory = Directory::of(name);
    match name {
        ObjectName::Name(name) => directory.entry(name),
        ObjectName::Header { generation, .. } => directory.entry(format_args!("header.{}", generation.0)),
        ObjectName::Journal { generation, number, .. } => {
            directory.entry(format_args!("journal.{}.{number}", generation.0))
        }
        ObjectName::Segment { generation, number, .. } => {
            directory.entry(format_args!("segment.{}.{number}", generation.0))
        }
        ObjectName::Data { epoch, block, .. } => directory.entry(format_args!("{:x}.{:x}", block.0, epoch.0)),
    }
}

/// The name of a lock file in a volume's directory.
pub(super) fn lease(number: u64) -> String {
    format!("lease.{number}")
}

pub(super) fn parse_lease(entry: &str) -> Option<u64> {
    decimal(entry.strip_prefix("lease.")?)
}

pub(super) fn parse_name(entry: &str) -> Option<ObjectName> {
    entry.parse::<VolumeName>().ok().map(ObjectName::Name)
}

pub(super) fn parse_volume(entry: &str) -> Option<VolumeId> {
    entry.parse().ok()
}

pub(super) fn parse_metadata(volume: VolumeId, entry: &str) -> Option<ObjectName> {
    let mut parts = entry.split('.');
    let (kind, generation, number) = (parts.next()?, parts.next()?, parts.next());
    let generation = Generation(decimal(generation)?);
    let name = match (kind, number) {
        ("header", None) => ObjectName::Header { volume, generation },
        ("journal", Some(number)) => ObjectName::Journal { volume, generation, number: decimal(number)? },
        ("segment", Some(number)) => ObjectName::Segment { volume, generation, number: decimal(number)? },
        _ => return None,
    };
    parts.next().is_none().then_some(name)
}

pub(super) fn parse_shard(entry: &str) -> Option<u64> {
    hexadecimal(entry)
}

/// The epoch and block of a data object's file.
pub(super) fn parse_data(entry: &str) -> Option<(Epoch, BlockIndex)> {
    let (block, epoch) = entry.split_once('.')?;
    Some((Epoch(hexadecimal(epoch)?), BlockIndex(hexadecimal(block)?)))
}

/// Numbers are written in one way only, so that no two files are the same object.
fn decimal<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|number| format!("{number:x}") == text)
}

fn c_string(path: String) -> CString {
    CString::new(path).expect("paths are made of names and numbers, which hold no zero byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_a_round_trip_through_its_path() {
        let volume = VolumeId([0xab; 16]);
        let generation = Generation(10);
        let data = ObjectName::Data { volume, epoch: Epoch(0x1f), block: BlockIndex(0x12345) };
        let metadata = [
            ObjectName::Header { volume, generation },
            ObjectName::Journal { volume, generation, number: 0 },
            ObjectName::Segment { volume, generation, number: u32::MAX },
        ];
        let last = |name: &ObjectName| path(name).to_str().unwrap().rsplit('/').next().unwrap().to_owned();
        for name in metadata {
            assert_eq!(parse_metadata(volume, &last(&name)), Some(name));
        }
        assert_eq!(path(&data).to_str().unwrap(), format!("data/{volume}/48/12345.1f"));
        assert_eq!(parse_data(&last(&data)), Some((Epoch(0x1f), BlockIndex(0x12345))));
    }

    #[test]
    fn other_files_are_no_objects() {
        let volume = VolumeId([1; 16]);
        for entry in ["lease.1", "header", "header.", "header.01", "header.1.2", "journal.1", "journal.1.2.3", ".new.1"]
        {
            assert_eq!(parse_metadata(volume, entry), None, "{entry}");
        }
        for entry in ["1", "1.", "01.2", "A.1", "1.2.3", ".new.1", "+1.2"] {
            assert_eq!(parse_data(entry), None, "{entry}");
        }
        assert_eq!(parse_name(".new.1"), None);
    }

    #[test]
    fn a_shards_directories_reach_up_to_the_root() {
        let volume = VolumeId([2; 16]);
        let chain: Vec<_> = Directory::Shard(volume, 3).chain().collect();
        let expected = [Directory::Shard(volume, 3), Directory::VolumeData(volume), Directory::Data, Directory::Root];
        assert_eq!(chain, expected);
    }
}
