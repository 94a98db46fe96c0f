//! One object, one file, in a directory of a local or shared file system.
//!
//! ```text
//!   FileStore ── Home: root directory, descriptor cache, unsettled directories, helper threads
//!      │            ▲
//!      ├ RingChannel (a thread's io_uring) ──┤ reads, writes, creations; opens what is not open
//!      └ PoolChannel (without io_uring) ─────┘ everything through helper threads
//! ```
//! layout.rs has the tree; sync.rs how changes become durable; docs/store-drivers.md the reasons and the measurements.

mod blocking;
mod channel;
mod directories;
mod extents;
mod file_system;
mod flushes;
mod home;
mod hot;
mod layout;
mod limits;
mod list;
mod lock;
mod open_file;
mod open_files;
mod operation;
mod pool_channel;
mod publish;
mod reserve;
mod ring;
mod setup;
mod sync;
mod transfer;
mod watches;

use super::open::{CacheMode, IoMethod, StoreOptions};
use super::{Channel, FreeLock, Lease, LockMode, Seized, Store, StoreError, StoreInfo};
use crate::units::VolumeId;
use channel::RingChannel;
use file_system::FileSystem;
use home::Home;
use layout::Directory;
use pool_channel::PoolChannel;
use std::path::Path;
use std::sync::Arc;

/// Channels that may share the descriptors: a hot table takes at most this part of them.
const CHANNELS_EXPECTED: usize = 16;

/// See the module's text.
pub struct FileStore {
    info: StoreInfo,
    home: Arc<Home>,
    method: IoMethod,
    hot: usize,
}

/// Opens the store in `directory`.
///
/// # Errors
/// When it cannot be used as one; the text says what is wrong with it.
pub fn open(directory: &Path, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let opened = setup::open_directory(directory, options.if_missing)?;
    let file_system = FileSystem::probe(&opened.root, setup::FORMAT_FILE, options)
        .map_err(|error| StoreError::from_io(error.into(), "open", format_args!("store {}", directory.display())))?;
    if options.cache == CacheMode::None && file_system.direct.is_none() {
        let store = directory.display();
        tracing::warn!(%store, "the file system has no O_DIRECT: object data goes through the page cache");
    }
    let method = usable(options.method);
    let capacity = limits::raise();
    let home = Home::new(opened, file_system, capacity)?;
    publish::tidy(&home, Directory::Names);
    reserve::prepare(&home);
    let info = StoreInfo {
        url: format!("file:{}", directory.display()),
        io_align: align(&file_system),
        persistent: true,
        free_lock: if file_system.local { FreeLock::ProvesTheEnd } else { FreeLock::ProvesNothing },
        method: describe(method, &file_system),
    };
    Ok(Arc::new(FileStore { info, home, method, hot: capacity / CHANNELS_EXPECTED }))
}

/// io_uring, unless it is not wanted or not allowed here.
fn usable(wanted: IoMethod) -> IoMethod {
    if wanted == IoMethod::Threads {
        return IoMethod::Threads;
    }
    match ring::Ring::new() {
        Ok(_) => IoMethod::Auto,
        Err(error) => {
            tracing::warn!(%error, "no io_uring here: object data goes through helper threads, which is slower");
            IoMethod::Threads
        }
    }
}

fn align(file_system: &FileSystem) -> u32 {
    let align = file_system.direct.map_or(1, |direct| direct.offset_align.max(direct.memory_align));
    u32::try_from(align).unwrap_or(u32::MAX)
}

fn describe(method: IoMethod, file_system: &FileSystem) -> String {
    let engine = match method {
        IoMethod::Auto => "io_uring",
        IoMethod::Threads => "helper threads",
    };
    let cache = if file_system.direct.is_some() { "O_DIRECT" } else { "page cache" };
    format!("{engine}, {cache}")
}

impl Store for FileStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        if self.method == IoMethod::Auto {
            match RingChannel::new(&self.home, lease, self.hot) {
                Ok(channel) => return Ok(Box::new(channel)),
                // There was one when the store was opened: memory or descriptors are short. Slow is better than not.
                Err(error) => tracing::warn!(%error, "no io_uring for a thread: it goes through helper threads"),
            }
        }
        Ok(Box::new(PoolChannel::new(&self.home, lease)?))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        lock::lock(&self.home, volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        lock::seize(&self.home, volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        lock::confirm(&self.home, lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        lock::record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        lock::holder(&self.home, volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        lock::remove_abandoned(&self.home)
    }
}
