//! Making completed changes durable, at the least cost that is safe (docs/decisions/0002, docs/store-drivers.md).
//!
//! - No objects: one `fdatasync` of a clean file, which flushes the device and with it every overwrite.
//! - A few: `fdatasync` each, all at once on the helper threads, and `fsync` of the directories that are not settled.
//! - Many, where it can be trusted: one `syncfs`, then the flush of the first case (a clean log alone flushes nothing).
//!
//! An error is told once, to the sync that met it; see also [`SyncState::before_closing`].

use super::home::{Home, failed};
use super::layout::Directory;
use super::list;
use super::open_file::OpenFile;
use crate::store::reply::Reply;
use crate::store::{ObjectName, Outcome, StoreError, StoreErrorKind};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Up to this many objects are synced one by one; measured (docs/store-drivers.md has the table).
const FEW: usize = 4;

/// A `syncfs` that took longer than this paid for somebody else's dirty pages; the next one is avoided if that is
/// affordable.
const SLOW: Duration = Duration::from_millis(100);

/// So many objects can be synced one by one in less time than [`SLOW`].
const AFFORDABLE: usize = 64;

#[derive(Default)]
pub(super) struct SyncState {
    /// Objects whose last sync failed while nobody waited for it.
    failed: Mutex<FxHashMap<ObjectName, StoreError>>,
    /// A failed `syncfs`. The kernel tells its errors once, to whoever asks first, and they may concern any object: so no
    /// sync of this store succeeds any more.
    failed_for_all: OnceLock<StoreError>,
    /// Milliseconds that the last `syncfs` took.
    last_syncfs: AtomicU64,
}

impl SyncState {
    /// A file whose late write errors nobody has seen yet must not be closed: the kernel tells them only to who had it open.
    /// So it is synced, and should that fail, the object's next sync says so, and every later one.
    pub(super) fn before_closing(&self, file: &OpenFile) {
        if file.is_unsynced()
            && !file.is_gone()
            && let Err(error) = file.sync()
        {
            self.keep_failure(file, error);
        }
    }

    /// A sync that nobody waited for failed: the object's next one, and every later one, says so.
    pub(super) fn keep_failure(&self, file: &OpenFile, error: Errno) {
        self.failed().insert(file.name.clone(), failed(error, "sync", &file.name));
    }

    fn failure_among(&self, objects: &[ObjectName]) -> Option<StoreError> {
        if let Some(error) = self.failed_for_all.get() {
            return Some(error.clone());
        }
        let failed = self.failed();
        if failed.is_empty() { None } else { objects.iter().find_map(|name| failed.get(name).cloned()) }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, FxHashMap<ObjectName, StoreError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `syncfs` should be used for so many objects.
    fn prefers_syncfs(&self, objects: usize) -> bool {
        let last = Duration::from_millis(self.last_syncfs.load(Ordering::Relaxed));
        if objects <= FEW {
            return false;
        }
        if last > SLOW && objects <= AFFORDABLE {
            // The memory fades, so that it is tried again some time.
            self.last_syncfs.store(u64::try_from(last.as_millis() / 2).unwrap_or(0), Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Runs [`Op::Sync`](crate::store::Op::Sync) on helper threads and answers. Does not block.
pub(super) fn start(home: &Arc<Home>, mut objects: Vec<ObjectName>, reply: Reply) {
    objects.sort_unstable();
    objects.dedup();
    if let Some(error) = home.sync.failure_among(&objects) {
        return reply.send(Err(error), None);
    }
    if home.file_system.syncfs && home.sync.prefers_syncfs(objects.len()) {
        let home_too = Arc::clone(home);
        home.pool.run(move || everything(&home_too, &objects, reply));
    } else if objects.is_empty() {
        let home_too = Arc::clone(home);
        home.pool.run(move || {
            let flushed = rustix::fs::fdatasync(&home_too.clean).map_err(failed_for_all);
            reply.send(flushed.map(|()| Outcome::Done), None);
        });
    } else {
        one_by_one(home, objects, reply);
    }
}

/// The directories that must be synced for these objects' names to be durable.
fn unsettled(home: &Home, objects: &[ObjectName]) -> FxHashSet<Directory> {
    let directories: FxHashSet<_> = objects.iter().map(Directory::of).collect();
    directories.into_iter().flat_map(|directory| home.directories.unsettled(directory)).collect()
}

fn one_by_one(home: &Arc<Home>, objects: Vec<ObjectName>, reply: Reply) {
    let directories = unsettled(home, &objects);
    let round = Round::new(objects.len() + directories.len(), reply);
    for name in objects {
        let (home_too, round) = (Arc::clone(home), Arc::clone(&round));
        home.pool.run(move || round.part(sync_object(&home_too, &name)));
    }
    for directory in directories {
        let (home_too, round) = (Arc::clone(home), Arc::clone(&round));
        home.pool.run(move || round.part(sync_directory(&home_too, directory)));
    }
}

fn sync_object(home: &Arc<Home>, name: &ObjectName) -> Result<(), StoreError> {
    let file = match home.open(name, "sync") {
        // It was removed; that is what becomes durable.
        Err(error) if error.kind() == StoreErrorKind::NotFound => return sync_directory(home, Directory::of(name)),
        other => other?,
    };
    let learning = file.begin_learning();
    file.sync().map_err(|error| failed(error, "sync", name))?;
    if home.file_system.one_flush && file.direct {
        file.learn_written(learning);
    }
    Ok(())
}

fn sync_directory(home: &Home, directory: Directory) -> Result<(), StoreError> {
    let synced = home.directories.sync(&home.root, directory);
    synced.map_err(|error| StoreError::from_io(error.into(), "sync", format_args!("directory {directory}")))
}

/// Makes the names of this object's directory durable, and the directory's own. Blocks.
pub(super) fn settle(home: &Home, name: &ObjectName) -> Result<(), StoreError> {
    let directories = home.directories.unsettled(Directory::of(name));
    directories.into_iter().try_for_each(|directory| sync_directory(home, directory))
}

fn everything(home: &Arc<Home>, objects: &[ObjectName], reply: Reply) {
    let directories = unsettled(home, objects);
    let moment = home.directories.now();
    let files = objects.iter().filter_map(|name| home.open_files.get(name));
    let files: Vec<_> = files.map(|file| (file.begin_learning(), file)).collect();
    let start = Instant::now();
    let synced = sync_file_system(home);
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    home.sync.last_syncfs.store(took, Ordering::Relaxed);
    if let Err(error) = synced {
        return reply.send(Err(error), None);
    }
    directories.into_iter().for_each(|directory| home.directories.settle(directory, moment));
    reply.send(Ok(Outcome::Done), None);
    if home.file_system.one_flush {
        let unknown = files.into_iter().filter(|(_, file)| file.direct && !file.knows_written());
        unknown.for_each(|(learning, file)| file.learn_written(learning));
    }
}

/// Runs [`Op::SyncAll`](crate::store::Op::SyncAll). Blocks; without a `syncfs` to trust, for as long as it takes to sync
/// every file there is.
pub(super) fn whole_store(home: &Home) -> Result<(), StoreError> {
    let unseen = home.sync.failed_for_all.get().cloned().or_else(|| home.sync.failed().values().next().cloned());
    unseen.map_or(Ok(()), Err)?;
    if home.file_system.syncfs {
        return sync_file_system(home);
    }
    for directory in list::directories(home).map_err(failed_for_all)? {
        sync_files(home, directory).map_err(failed_for_all)?;
    }
    Ok(())
}

fn sync_file_system(home: &Home) -> Result<(), StoreError> {
    let synced = rustix::fs::syncfs(&home.root).map_err(failed_for_all);
    if let Err(error) = synced {
        return Err(home.sync.failed_for_all.get_or_init(|| error).clone());
    }
    rustix::fs::fdatasync(&home.clean).map_err(failed_for_all)
}

fn sync_files(home: &Home, directory: Directory) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for path in list::files(home, directory)? {
        match rustix::fs::openat(&home.root, path, flags, Mode::empty()) {
            Ok(file) => rustix::fs::fdatasync(file)?,
            // It was removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    home.directories.sync(&home.root, directory)
}

pub(super) fn failed_for_all(error: Errno) -> StoreError {
    StoreError::from_io(error.into(), "sync", "the store's file system")
}

/// One operation in several parts: answers when the last one has ended, with the first error if there was one.
struct Round {
    missing: AtomicUsize,
    error: Mutex<Option<StoreError>>,
    reply: Mutex<Option<Reply>>,
}

impl Round {
    fn new(parts: usize, reply: Reply) -> Arc<Self> {
        Arc::new(Self { missing: AtomicUsize::new(parts), error: Mutex::default(), reply: Mutex::new(Some(reply)) })
    }

    /// A part that panics is never counted, and its operation is answered as failed when the round is dropped.
    fn part(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
            reply.into_iter().for_each(|reply| reply.send(error.clone().map_or(Ok(Outcome::Done), Err), None));
        }
    }
}
