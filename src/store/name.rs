//! What a stored object is called.
//!
//! A name says everything about what the object is for, so a listing alone tells which volume owns what. Two rules make
//! names safe (docs/map-format.md): a data name is created at most once, ever; headers, journals and segments carry the
//! generation of the lease under which they were written, so a holder that was superseded cannot overwrite anything that
//! its successor reads. How a name becomes a path or a key is the driver's business.

use crate::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// A directory record: its content is the id of the volume that bears the name.
    Name(VolumeName),
    /// The root of a volume's map as of one lease generation.
    Header { volume: VolumeId, generation: Generation },
    /// A hard journal; `number` counts up within a generation.
    Journal { volume: VolumeId, generation: Generation, number: u32 },
    /// The map pages that one checkpoint wrote; never changes.
    Segment { volume: VolumeId, generation: Generation, number: u32 },
    /// The content of one block since `epoch`.
    Data { volume: VolumeId, epoch: Epoch, block: BlockIndex },
}

impl ObjectName {
    /// The volume that the object belongs to; a name record belongs to none.
    pub fn volume(&self) -> Option<VolumeId> {
        match self {
            Self::Name(_) => None,
            Self::Header { volume, .. }
            | Self::Journal { volume, .. }
            | Self::Segment { volume, .. }
            | Self::Data { volume, .. } => Some(*volume),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name record {name}"),
            Self::Header { volume, generation } => write!(f, "header {volume}.{}", generation.0),
            Self::Journal { volume, generation, number } => write!(f, "journal {volume}.{}.{number}", generation.0),
            Self::Segment { volume, generation, number } => write!(f, "segment {volume}.{}.{number}", generation.0),
            Self::Data { volume, epoch, block } => write!(f, "object {volume}.{:x}.{:x}", epoch.0, block.0),
        }
    }
}

/// One kind of listing. Each lists names in ascending [`ObjectName`] order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListScope {
    /// Every name record.
    Names,
    /// One header of every volume that has any (which one is not said): the ids of the store. A volume that has a header all
    /// the time is never missing, also while one header takes another's place.
    Volumes,
    /// All headers, journals and segments of one volume.
    Metadata(VolumeId),
    /// All data objects that carry one volume's id.
    Data(VolumeId),
}
