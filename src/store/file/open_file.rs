//! An object's open file: the descriptor, and what is known about how its writes become durable.
//!
//! Rule P1: a write into *written space* (see extents.rs) changes data alone, so any later device flush makes it durable.
//! How far written space reaches is learnt by FIEMAP right after an `fdatasync` through this very value, so that the
//! extents it names are durable themselves: an earlier process may have filled holes and died. Punching holes takes the
//! knowledge back. A write counts as such an overwrite only if the knowledge held when it began and no punch was running
//! at any time until it ended.

use super::extents;
use crate::store::{ObjectName, Persistence};
use crate::units::ByteRange;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// There is at most one of these per file and process, except for names that are never cached (open_files.rs).
pub(super) struct OpenFile {
    pub(super) name: ObjectName,
    fd: OwnedFd,
    /// Whether `fd` bypasses the page cache.
    pub(super) direct: bool,
    /// For transfers that O_DIRECT does not take; opened when first needed.
    buffered: OnceLock<OwnedFd>,
    /// The object was removed or replaced: nobody may begin anything through this.
    gone: AtomicBool,
    /// Looked up since the cache last asked.
    used: AtomicBool,
    /// Written through the page cache since the last sync: closing would lose a late error (docs/store-drivers.md).
    unsynced: AtomicBool,
    overwrite: Overwrite,
}

/// What is known about written space.
#[derive(Default)]
struct Overwrite {
    /// Writes that end here or before change data alone. Zero while nothing is known.
    written_len: AtomicU64,
    /// Counts beginnings and ends of punches: odd while one runs.
    punches: AtomicU64,
    /// Held while the above two change together.
    change: Mutex<()>,
    /// Writes that were not overwrites, looked at for [`OpenFile::is_worth_learning`].
    other_writes: AtomicU32,
    /// Such writes begun, and ended as far as their owners know.
    others_begun: AtomicU64,
    others_ended: AtomicU64,
}

/// What was the case before the sync that [`OpenFile::learn_written`] follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learning {
    punches: u64,
    /// Other writes begun, when all had ended.
    others: Option<u64>,
}

/// What was known when a write began.
#[derive(Debug, Clone, Copy)]
enum WriteStart {
    /// Of written space, with so many punches before.
    Overwrite { punches: u64 },
    /// It may fill a hole, or make the file longer.
    Other,
}

/// A write under way; to be made before it begins and kept until it has ended, whatever became of it.
pub(super) struct Writing {
    file: Arc<OpenFile>,
    start: WriteStart,
}

impl Writing {
    pub(super) fn begin(file: &Arc<OpenFile>, range: ByteRange) -> Self {
        let overwrite = &file.overwrite;
        let punches = overwrite.punches.load(Ordering::SeqCst);
        let written_len = overwrite.written_len.load(Ordering::SeqCst);
        let start = if range.fits(written_len) && punches.is_multiple_of(2) {
            WriteStart::Overwrite { punches }
        } else {
            overwrite.others_begun.fetch_add(1, Ordering::SeqCst);
            WriteStart::Other
        };
        Self { file: Arc::clone(file), start }
    }

    /// How the write, which succeeded, becomes durable.
    pub(super) fn end(self) -> Persistence {
        match self.start {
            WriteStart::Overwrite { punches } if punches == self.file.overwrite.punches.load(Ordering::SeqCst) => {
                Persistence::Device
            }
            WriteStart::Overwrite { .. } | WriteStart::Other => Persistence::Object,
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let WriteStart::Other = self.start {
            self.file.overwrite.others_ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl OpenFile {
    pub(super) fn new(name: ObjectName, fd: OwnedFd, direct: bool) -> Self {
        Self {
            name,
            fd,
            direct,
            buffered: OnceLock::new(),
            gone: AtomicBool::new(false),
            used: AtomicBool::new(true),
            unsynced: AtomicBool::new(false),
            overwrite: Overwrite::default(),
        }
    }

    /// Where a transfer of this kind goes that keeps to O_DIRECT's rules.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor that takes any offset and length.
    pub(super) fn buffered(&self, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<BorrowedFd<'_>, Errno> {
        if !self.direct {
            return Ok(self.fd.as_fd());
        }
        if self.buffered.get().is_none() {
            // Should two threads get here at once, one descriptor is dropped unused.
            drop(self.buffered.set(open()?));
        }
        Ok(self.buffered.get().expect("set just now").as_fd())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub(super) fn set_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Something went into the page cache. Call it before the write is answered.
    pub(super) fn set_unsynced(&self) {
        self.unsynced.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::SeqCst)
    }

    /// Makes every completed change of the object durable (not its name).
    pub(super) fn sync(&self) -> Result<(), Errno> {
        self.unsynced.store(false, Ordering::SeqCst);
        rustix::fs::fdatasync(&self.fd).inspect_err(|_| self.set_unsynced())
    }

    /// To be asked before a sync after which written space is to be learnt.
    pub(super) fn begin_learning(&self) -> Learning {
        let punches = self.overwrite.punches.load(Ordering::SeqCst);
        let ended = self.overwrite.others_ended.load(Ordering::SeqCst);
        let begun = self.overwrite.others_begun.load(Ordering::SeqCst);
        Learning { punches, others: (begun == ended).then_some(begun) }
    }

    /// Learns how much is written space. Only after [`OpenFile::sync`], or a `syncfs`, through this value. Nothing is learnt
    /// when a write that may have filled a hole was under way at any time since before that sync: the extent would show
    /// before anything makes it durable.
    pub(super) fn learn_written(&self, learning: Learning) {
        let len = extents::written_len(&self.fd);
        let _change = self.overwrite.change.lock().unwrap_or_else(PoisonError::into_inner);
        let no_punch =
            learning.punches.is_multiple_of(2) && self.overwrite.punches.load(Ordering::SeqCst) == learning.punches;
        if no_punch && learning.others == Some(self.overwrite.others_begun.load(Ordering::SeqCst)) {
            self.overwrite.written_len.store(len, Ordering::SeqCst);
        }
    }

    /// Whether all writes so far are known to reach: learning more would tell nothing new.
    pub(super) fn knows_written(&self) -> bool {
        self.overwrite.written_len.load(Ordering::Relaxed) != 0
    }

    /// Runs something that may free or unwrite space. Punches of one file do not overlap: `punch` runs under a lock.
    pub(super) fn punch<T>(&self, punch: impl FnOnce() -> T) -> T {
        let _change = self.overwrite.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.overwrite.written_len.store(0, Ordering::SeqCst);
        self.overwrite.punches.fetch_add(1, Ordering::SeqCst);
        let result = punch();
        self.overwrite.punches.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Counts a write that was no overwrite; true at the second one, when it begins to pay to look at the extents.
    pub(super) fn is_worth_learning(&self) -> bool {
        self.overwrite.other_writes.fetch_add(1, Ordering::Relaxed) == 1
    }

    /// For a file just created: it has holes, and its next sync will look.
    pub(super) fn set_not_worth_learning(&self) {
        self.overwrite.other_writes.store(2, Ordering::Relaxed);
    }
}
