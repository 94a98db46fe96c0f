//! Freezing a guest's file systems around a snapshot, through the QEMU guest agent (qga protocol: guest-sync-delimited,
//! guest-fsfreeze-freeze, guest-fsfreeze-thaw).

use std::path::{Path, PathBuf};

/// What a snapshot can be relied on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// As after a power cut: every write that was flushed, and no write without those before it.
    Crash,
    /// The guest's file systems were frozen: as after an orderly unmount.
    Frozen,
}

#[derive(Debug, thiserror::Error)]
#[error("the guest agent at {}: {problem}", .socket.display())]
pub struct FreezeError {
    pub socket: PathBuf,
    pub problem: String,
}

/// File systems that are frozen until this is thawed or dropped.
#[derive(Debug)]
pub struct Frozen {}

impl Frozen {
    /// Freezes all file systems of the guest.
    ///
    /// # Errors
    /// When the agent does not answer in time or refuses; the guest is thawed then.
    pub fn freeze(_socket: &Path) -> Result<Self, FreezeError> {
        todo!()
    }

    /// # Errors
    /// When the agent does not say that it thawed, or had thawed already: the snapshot is only crash-consistent then.
    pub fn thaw(self) -> Result<(), FreezeError> {
        todo!()
    }
}
