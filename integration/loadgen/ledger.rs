//! The ledger: for each block, the numbers of the writes it may hold. One number after a completed write; more while a
//! write is in flight or when the daemon died under it. Kept in a file between the runs of the load generator.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pattern::Origin;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// The number of the last write submitted, over all runs.
    pub(crate) last_write: u64,
    /// Block index → the writes it may hold; 0 stands for zeroes.
    pub(crate) blocks: BTreeMap<u64, Vec<u64>>,
}

impl Ledger {
    pub(crate) fn load_or_new(path: &Path) -> super::Fallible<Self> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn save(&self, path: &Path) -> super::Fallible<()> {
        Ok(fs::write(path, serde_json::to_vec(self)?)?)
    }

    /// A write of `block` is about to be submitted; from now on the block may hold it.
    pub(crate) fn submit(&mut self, block: u64) -> u64 {
        self.last_write += 1;
        self.blocks.entry(block).or_insert_with(|| vec![0]).push(self.last_write);
        self.last_write
    }

    /// The write completed: the block holds it and nothing else.
    pub(crate) fn complete(&mut self, block: u64, write: u64) {
        self.blocks.insert(block, vec![write]);
    }

    /// Whether the block may hold what was read; if so, it holds only that from now on.
    pub(crate) fn settle(&mut self, block: u64, origins: &[Origin]) -> bool {
        let Some(allowed) = self.blocks.get_mut(&block) else { return false };
        let fine = origins.iter().all(|origin| matches!(origin, Origin::Write(write) if allowed.contains(write)));
        if fine {
            allowed.retain(|&write| origins.contains(&Origin::Write(write)));
        }
        fine
    }
}
