//! The directory on a memory file system where the daemon keeps its soft journals: it outlives the daemon, not the host.

use std::io;
use std::path::Path;
use tempfile::TempDir;

/// Removed when dropped.
#[derive(Debug)]
pub struct SoftDir(TempDir);

impl SoftDir {
    pub fn make() -> io::Result<Self> {
        tempfile::Builder::new().prefix("archvhost-simulation-").tempdir_in("/dev/shm").map(Self)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What a power cut does to a memory file system.
    pub fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.0.path())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}
