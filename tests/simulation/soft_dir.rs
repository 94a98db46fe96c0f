//! The directories on a memory file system where the daemon keeps its soft journals, which outlive it, but not the host, and
//! where verbs put what does not fit into memory.

use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Removed when dropped.
#[derive(Debug)]
pub struct SoftDir {
    journals: TempDir,
    /// Of the other host.
    others: TempDir,
    spill: TempDir,
}

impl SoftDir {
    pub fn make() -> io::Result<Self> {
        let make = || tempfile::Builder::new().prefix("archvhost-simulation-").tempdir_in("/dev/shm");
        Ok(Self { journals: make()?, others: make()?, spill: make()? })
    }

    pub fn path(&self) -> &Path {
        self.journals.path()
    }

    pub fn others(&self) -> &Path {
        self.others.path()
    }

    /// From now on everything runs on the first host again, as if what the other one kept had been there.
    pub fn move_back(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.others.path())? {
            let entry = entry?;
            std::fs::rename(entry.path(), self.journals.path().join(entry.file_name()))?;
        }
        Ok(())
    }

    pub fn spill(&self) -> PathBuf {
        self.spill.path().to_owned()
    }

    /// What a power cut does to a memory file system.
    pub fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.journals.path())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}
