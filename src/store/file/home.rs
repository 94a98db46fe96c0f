//! Everything that a store's channels and helper threads share.

use super::directories::Directories;
use super::file_system::FileSystem;
use super::layout::{self, Directory};
use super::list::Pass;
use super::open_file::OpenFile;
use super::open_files::OpenFiles;
use super::reserve::Reserve;
use super::setup;
use super::sync::SyncState;
use crate::store::helpers::Helpers;
use crate::store::sleep::EventWaker;
use crate::store::{ObjectName, StoreError, StoreErrorKind, Wake};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// No path leaves the store: not by `..`, not by a link, not by a mount. The last also means that all objects are on one
/// device, which the flush of another file relies on.
pub(super) const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Attempts at something that another thread may undo: a directory removed just after it was made, a full table of
/// descriptors.
const ATTEMPTS: usize = 16;

/// Enough that a few slow syncs do not hold up everything else, and that disks without io_uring still see some depth.
const THREADS_MAX: usize = 16;

pub(super) struct Home {
    /// Opened before the first write: a `syncfs` on it reports every error since.
    pub(super) root: OwnedFd,
    /// A file that nobody writes; its `fdatasync` flushes the device and does nothing else.
    pub(super) clean: OwnedFd,
    pub(super) file_system: FileSystem,
    pub(super) open_files: OpenFiles,
    pub(super) directories: Directories,
    pub(super) sync: SyncState,
    pub(super) pass: Pass,
    pub(super) pool: Helpers,
    pub(super) reserve: Reserve,
    /// Counts objects that went while their file was open: channels then look through what they hold.
    removals: AtomicU64,
    channels: Mutex<Vec<Weak<EventWaker>>>,
}

impl Home {
    pub(super) fn new(
        opened: setup::Opened,
        file_system: FileSystem,
        capacity: usize,
    ) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self {
            root: opened.root,
            clean: opened.format,
            file_system,
            open_files: OpenFiles::new(capacity),
            directories: Directories::default(),
            sync: SyncState::default(),
            pass: Pass::default(),
            pool: Helpers::new(THREADS_MAX)?,
            reserve: Reserve::default(),
            removals: AtomicU64::new(0),
            channels: Mutex::default(),
        }))
    }

    /// How an object's file is opened, without the flags that create it.
    pub(super) fn open_flags(&self, name: &ObjectName) -> OFlags {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if self.opens_direct(name) { flags | OFlags::DIRECT } else { flags }
    }

    pub(super) fn opens_direct(&self, name: &ObjectName) -> bool {
        self.file_system.direct.is_some() && OpenFiles::is_cacheable(name)
    }

    /// The object's open file. Blocks.
    pub(super) fn open(
        self: &Arc<Self>,
        name: &ObjectName,
        operation: &'static str,
    ) -> Result<Arc<OpenFile>, StoreError> {
        if let Some(file) = self.open_files.get(name) {
            return Ok(file);
        }
        let fd = self.open_path(name, self.open_flags(name)).map_err(|error| failed(error, operation, name))?;
        self.adopt(name.clone(), fd).ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, operation, name))
    }

    /// Creates a data object that does not exist, with the directories above it. Blocks.
    pub(super) fn create(self: &Arc<Self>, name: &ObjectName) -> Result<Arc<OpenFile>, StoreError> {
        let flags = self.open_flags(name) | OFlags::CREATE | OFlags::EXCL;
        for _ in 0..ATTEMPTS {
            match self.open_path(name, flags) {
                Ok(fd) => return self.adopt_new(name.clone(), fd),
                Err(Errno::NOENT) => self.make_directories(Directory::of(name))?,
                Err(error) => return Err(failed(error, "create", name)),
            }
        }
        Err(failed(Errno::NOENT, "create", name))
    }

    /// A second descriptor for an open object, through the page cache. Blocks.
    pub(super) fn open_buffered(&self, name: &ObjectName) -> Result<OwnedFd, Errno> {
        self.open_path(name, self.open_flags(name).difference(OFlags::DIRECT))
    }

    /// Caches the file of an object that exists; `None` when it was removed meanwhile.
    pub(super) fn adopt(self: &Arc<Self>, name: ObjectName, fd: OwnedFd) -> Option<Arc<OpenFile>> {
        let direct = self.opens_direct(&name);
        let cacheable = OpenFiles::is_cacheable(&name);
        let file = OpenFile::new(name, fd, direct);
        if !cacheable {
            return Some(Arc::new(file));
        }
        let adopted = self.open_files.adopt(file);
        self.retire(adopted.evicted);
        adopted.file
    }

    /// Caches the file of an object that was just created, and notes that its directory has a new entry.
    pub(super) fn adopt_new(self: &Arc<Self>, name: ObjectName, fd: OwnedFd) -> Result<Arc<OpenFile>, StoreError> {
        self.directories.changed(Directory::of(&name));
        let gone = StoreError::new(StoreErrorKind::NotFound, "create", &name);
        let file = self.adopt(name, fd).ok_or(gone)?;
        file.set_not_worth_learning();
        Ok(file)
    }

    /// The object was removed or replaced: whoever has its file open lets go of it.
    pub(super) fn forget(&self, name: &ObjectName) {
        if self.open_files.forget(name).is_none() {
            return;
        }
        self.removals.fetch_add(1, Ordering::SeqCst);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|channel| channel.upgrade().map(|waker| waker.wake()).is_some());
    }

    /// Grows with every object that went while its file was open.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// A channel that keeps files open by itself is woken when one of them should be let go.
    pub(super) fn add_channel(&self, waker: &Arc<EventWaker>) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(waker));
    }

    /// Makes a directory and those above it that are missing.
    pub(super) fn make_directories(&self, directory: Directory) -> Result<(), StoreError> {
        let mut chain: Vec<_> = directory.chain().collect();
        while let Some(directory) = chain.pop() {
            match setup::make_directory(&self.root, directory) {
                // One that exists may have been made this moment by a thread that has not said so yet.
                Ok(()) | Err(Errno::EXIST) => {
                    directory.parent().into_iter().for_each(|parent| self.directories.changed(parent));
                }
                Err(error) => return Err(StoreError::from_io(error.into(), "make directory", directory)),
            }
        }
        Ok(())
    }

    /// Closes files somewhere else: closing may take long when it frees a removed file's space, or needs a sync before.
    pub(super) fn retire(self: &Arc<Self>, files: impl IntoIterator<Item = Arc<OpenFile>>) {
        for file in files {
            if file.is_unsynced() || file.is_gone() {
                let home = Arc::clone(self);
                self.pool.run(move || home.sync.before_closing(&file));
            }
        }
    }

    fn open_path(&self, name: &ObjectName, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = if flags.contains(OFlags::CREATE) { setup::file_mode() } else { Mode::empty() };
        let mut result = Err(Errno::MFILE);
        for _ in 0..ATTEMPTS {
            result = rustix::fs::openat2(&self.root, layout::path(name), flags, mode, RESOLVE);
            match result {
                Err(Errno::MFILE | Errno::NFILE) => self.make_room(),
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => break,
            }
        }
        result
    }

    /// The size of the file that has the object's name now. Blocks.
    pub(super) fn size_of(&self, name: &ObjectName) -> Result<u64, Errno> {
        let file = self.open_path(name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW)?;
        let status = rustix::fs::fstat(file)?;
        u64::try_from(status.st_size).map_err(|_| Errno::IO)
    }

    /// Whether a local file system's own cache of names knows that there is no such object. Does not block. Where other
    /// hosts may make files, a cached name proves nothing.
    pub(super) fn surely_lacks(&self, name: &ObjectName) -> bool {
        let (flags, resolve) = (OFlags::PATH | OFlags::CLOEXEC, RESOLVE | ResolveFlags::CACHED);
        let look = || rustix::fs::openat2(&self.root, layout::path(name), flags, Mode::empty(), resolve);
        self.file_system.one_flush && look().is_err_and(|error| error == Errno::NOENT)
    }

    /// The process ran out of descriptors: closes some that nobody uses.
    pub(super) fn make_room(&self) {
        for file in self.open_files.shrink() {
            self.sync.before_closing(&file);
        }
    }
}

/// The error of an operation on an object.
pub(super) fn failed(error: Errno, operation: &'static str, name: &ObjectName) -> StoreError {
    StoreError::from_io(error.into(), operation, name)
}
