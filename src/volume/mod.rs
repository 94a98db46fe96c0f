//! A volume: a range of bytes composed of objects through a map.
//!
//! This layer knows ranges and buffers. Above it, `device` turns virtio requests into [`Request`]s; below it, `map` says
//! which object holds a block, and `store` keeps the objects.

pub mod error;
pub mod port;
pub mod request;

pub use error::{VolumeError, VolumeErrorKind};
pub use port::Port;
pub use request::{Done, Request, Stability};

use crate::store::Store;
use crate::units::{ObjectSize, VolumeId, VolumeName, VolumeSize};
use std::path::PathBuf;
use std::sync::Arc;

/// How a volume is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    pub access: Access,
    /// Where soft journals live: a directory on a memory file system of this host, common to every process that may open
    /// the volume here.
    pub soft_journal_dir: PathBuf,
    /// Memory for map pages, in bytes.
    pub cache_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Takes the lease.
    ReadWrite,
    /// Writes nothing; sees the volume as its last flush left it.
    ReadOnly,
}

/// An open volume, shared by all its ports. Dropping the last reference without [`Volume::close`] leaves it as a crash
/// of the process would: complete, but not orderly closed.
pub struct Volume {
    _private: (),
}

impl Volume {
    /// Opens the volume: takes the lease, replays journals, starts the keeper thread. Blocks.
    ///
    /// # Errors
    /// When there is no such volume, another holder has it, or its map is damaged.
    pub fn open(_store: &Arc<dyn Store>, _name: &VolumeName, _options: &OpenOptions) -> Result<Arc<Self>, VolumeError> {
        todo!()
    }

    /// Flushes, writes the map down, marks the volume orderly closed, gives the lease back. Blocks. All ports must be gone.
    ///
    /// # Errors
    /// When something could not be made durable; the volume is closed all the same.
    pub fn close(&self) -> Result<(), VolumeError> {
        todo!()
    }

    pub fn id(&self) -> VolumeId {
        todo!()
    }
    pub fn name(&self) -> VolumeName {
        todo!()
    }
    /// May change while the volume is open.
    pub fn size(&self) -> VolumeSize {
        todo!()
    }
    pub fn object_size(&self) -> ObjectSize {
        todo!()
    }
    pub fn access(&self) -> Access {
        todo!()
    }
    /// What reads and writes should be aligned to, in bytes (512 or more).
    pub fn io_align(&self) -> u32 {
        todo!()
    }
}
