//! A lease's holder, as the lock's record says, and what is in doubt about its end.

use crate::clock;
use crate::store::FreeLock;
use std::fmt;
use std::path::{Path, PathBuf};

/// Directories of soft journals that a holder's record names at most.
const SOFT_JOURNAL_DIRS_MAX: usize = 8;

/// Doubts that a record names at most; it needs one to be a doubtful one.
const DOUBTS_MAX: usize = 8;

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
    /// When the process started, in clock ticks after boot: a later process of the same number is another one.
    pub started: u64,
    pub boot: String,
    /// In which the process has that number.
    #[serde(default)]
    pub pid_namespace: String,
    /// Where its soft journal is, and perhaps those of its predecessors of this boot, if it could not open the volume.
    #[serde(default)]
    pub soft_journal_dirs: Vec<PathBuf>,
    /// Holders before it of whom it is not known that they are gone, and whose writes no header of a later one accounts for.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
}

/// A holder that may still write.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Doubt {
    pub host: String,
    /// Zero when nobody knows.
    pub pid: u32,
    /// An operator has said to go on without it.
    #[serde(default)]
    pub given_up: bool,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("a holder that left no record"),
            pid => write!(f, "process {pid} on host {}", self.host),
        }
    }
}

impl Doubt {
    fn about(holder: &Holder) -> Self {
        Self { host: holder.host.clone(), pid: holder.pid, given_up: false }
    }

    fn about_nobody_known() -> Self {
        Self { host: "unknown".to_owned(), pid: 0, given_up: false }
    }
}

impl Holder {
    /// This process, with its soft journals in `dir`, if it makes any.
    pub fn this_process(host_id: &str, dir: Option<&Path>) -> Self {
        let absolute = |dir: &Path| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self {
            host: host_id.to_owned(),
            pid: std::process::id(),
            started: clock::process_start_ticks(),
            boot: clock::boot_id(),
            pid_namespace: clock::pid_namespace(),
            soft_journal_dirs: dir.map(absolute).into_iter().collect(),
            doubts: Vec::new(),
        }
    }

    /// The same, taking a volume over from `predecessor`, whose soft journals are still wanted.
    #[must_use]
    pub fn after(mut self, predecessor: Option<&Holder>) -> Self {
        let older = dirs_of(predecessor).iter().filter(|older| !self.soft_journal_dirs.contains(older)).cloned();
        let older: Vec<_> = older.take(SOFT_JOURNAL_DIRS_MAX - 1).collect();
        self.soft_journal_dirs.extend(older);
        self
    }

    #[must_use]
    pub(super) fn with(self, mut doubts: Vec<Doubt>) -> Self {
        doubts.truncate(DOUBTS_MAX);
        Self { doubts, ..self }
    }

    /// This process under its host's node name, after `predecessor`; for verbs that no host id was given to.
    pub fn successor(predecessor: Option<&Holder>, dir: Option<&Path>) -> Self {
        Self::this_process(&super::node_name(), dir).after(predecessor)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields become JSON")
    }

    pub fn decode(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }

    pub fn is_this_process(&self) -> bool {
        let is_ours = self.boot == clock::boot_id() && self.pid_namespace == clock::pid_namespace();
        is_ours && self.pid == std::process::id() && self.started == clock::process_start_ticks()
    }

    /// Whether it is another process of this host and boot, or an earlier opening of this one, that is seen to be gone.
    fn is_seen_gone(&self, host_id: &str) -> bool {
        if self.host != host_id || self.boot != clock::boot_id() || self.pid_namespace != clock::pid_namespace() {
            return false;
        }
        // What this process had it has given back.
        self.pid == std::process::id() || clock::is_process_gone(self.pid, self.started)
    }
}

/// Where the soft journal of a holder of this boot may be.
pub(in super::super) fn dirs_of(holder: Option<&Holder>) -> &[PathBuf] {
    holder.filter(|holder| holder.boot == clock::boot_id()).map_or(&[], |holder| &holder.soft_journal_dirs)
}

/// What is in doubt about the end of holders, seen by a process of the host `host_id` that found their lock free.
pub(super) fn doubts(last: Option<&Holder>, free_lock: FreeLock, host_id: &str) -> Vec<Doubt> {
    let earlier = last.map(|last| last.doubts.clone()).unwrap_or_default();
    match (free_lock, last) {
        (FreeLock::ProvesTheEnd, _) => earlier,
        (FreeLock::ProvesNothing, Some(last)) if last.is_seen_gone(host_id) => earlier,
        (FreeLock::ProvesNothing, last) => with_last(earlier, last),
    }
}

/// The doubts, and one about the last holder.
pub(super) fn with_last(mut doubts: Vec<Doubt>, last: Option<&Holder>) -> Vec<Doubt> {
    doubts.insert(0, last.map_or_else(Doubt::about_nobody_known, Doubt::about));
    doubts
}
