//! One life of the daemon under test: its open volumes, their keepers, one queue after another, and verbs that people asked
//! for, all on this thread.

use super::estate::Key;
use super::guest::{Frontend, Guest};
use super::plan::{Plan, Way};
use super::rng::Rng;
use super::workload::Asked;
use super::world::{Incarnation, SimStore, World};
use archvhost::store::io::{Io, RawCompletion};
use archvhost::store::{FreeLock, Store};
use archvhost::task::Executor;
use archvhost::units::{VolumeId, VolumeName};
use archvhost::volume::lease::{self, Holder, LeaseOptions, Taken, break_lock, lock, lock_shared};
use archvhost::volume::open::{Opened, find, open};
use archvhost::volume::{Access, OpenOptions, Port, Volume, VolumeError, VolumeErrorKind, keeper};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The volume takes its smallest page cache then (64 leaves), so that leaves are evicted and loaded again.
const CACHE_BYTES: u64 = 0;

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub tag: u32,
    /// What a read found; empty for everything else.
    pub result: Result<Vec<u8>, Failure>,
}

/// Why a request failed, as far as the guest is told.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    /// The volume says that something stored is missing or does not parse.
    pub is_damage: bool,
}

#[derive(Debug)]
pub enum OpenFailure {
    /// The planned crash came.
    Crashed,
    /// The lock is not free yet.
    Held,
    /// There is no such volume.
    NotFound,
    Failed(String),
}

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    First,
    /// It takes volumes over from the first by force.
    Second,
}

impl Host {
    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }

    /// The second one cannot know what became of processes of the first.
    fn free_lock(self) -> FreeLock {
        match self {
            Self::First => FreeLock::ProvesTheEnd,
            Self::Second => FreeLock::ProvesNothing,
        }
    }
}

pub struct Daemon {
    pub process: Incarnation,
    world: World,
    store: Arc<dyn Store>,
    soft_dir: PathBuf,
    /// Which host this process is on.
    host: Host,
    granule_bytes: u64,
    disks: BTreeMap<Key, Disk>,
    verbs: BTreeMap<u32, Verb>,
}

/// An open volume.
struct Disk {
    frontend: Frontend,
    /// None when it is open read-only.
    keeper: Option<Keeper>,
    volume: Arc<Volume>,
}

/// The keeper's thread, without the thread.
struct Keeper {
    io: Io,
    executor: Executor,
    raw: Vec<RawCompletion>,
}

/// Where verbs find open volumes.
pub struct OpenVolumes(BTreeMap<VolumeName, Arc<Volume>>);

impl archvhost::admin::branch::Opened for OpenVolumes {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        self.0.get(name).map(Arc::clone)
    }
}

type Work = Pin<Box<dyn Future<Output = Result<(), VolumeError>>>>;

/// A thread that carries out what a person asked for, without the thread.
struct Verb {
    thread: Thread,
    work: Work,
}

/// What the verb's thread turns.
enum Thread {
    Io(Io),
    Port(Port),
}

impl Thread {
    /// Collects completions. Whether there were any.
    fn reap(&self) -> bool {
        match self {
            Self::Io(io) => io.reap(&mut Vec::new()),
            Self::Port(port) => port.turn(&mut Vec::new()),
        }
    }

    /// Hands over what was submitted.
    fn kick(&self) {
        match self {
            Self::Io(io) => io.kick(),
            Self::Port(port) => drop(port.turn(&mut Vec::new())),
        }
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        if let Thread::Port(port) = &self.thread {
            port.abandon();
        }
    }
}

impl Daemon {
    pub fn start(world: &World, plan: &Plan, soft_dir: &Path) -> Self {
        Self::start_on(world, plan, Host::First, soft_dir)
    }

    /// A process on a host of its own.
    pub fn start_on(world: &World, plan: &Plan, host: Host, soft_dir: &Path) -> Self {
        let process = world.start_process();
        Self {
            process,
            world: world.clone(),
            store: SimStore::open(world, process, host.free_lock()),
            soft_dir: soft_dir.to_owned(),
            host,
            granule_bytes: plan.granule_bytes,
            disks: BTreeMap::new(),
            verbs: BTreeMap::new(),
        }
    }

    pub fn options(&self, access: Access) -> OpenOptions {
        OpenOptions {
            access,
            soft_journal_dir: self.soft_dir.clone(),
            cache_bytes: CACHE_BYTES,
            granule_bytes: self.granule_bytes,
            lease: LeaseOptions { host_id: self.host.name().to_owned(), fence_command: None, valid_for: None },
        }
    }

    /// Opens a volume and connects a guest to it. Nobody else gets a turn meanwhile.
    pub fn open(
        &mut self,
        key: Key,
        name: &VolumeName,
        access: Access,
        (way, queues): (Way, usize),
        guest: &Guest,
        beside: &mut dyn FnMut(),
    ) -> Result<(), OpenFailure> {
        let Opened { volume, keeper: seed } = self.open_volume(name, access, beside)?;
        let keeper = match seed {
            None => None,
            Some(seed) => {
                let io = volume.channel().map(Io::new).map_err(|error| OpenFailure::Failed(error.to_string()))?;
                let executor = Executor::new(io.waker());
                keeper::spawn(&executor, Arc::clone(&volume), io.clone(), seed);
                Some(Keeper { io, executor, raw: Vec::new() })
            }
        };
        let frontend = Frontend::connect(guest, &volume, way, queues).map_err(OpenFailure::Failed)?;
        self.disks.insert(key, Disk { frontend, keeper, volume });
        Ok(())
    }

    fn open_volume(&self, name: &VolumeName, access: Access, beside: &mut dyn FnMut()) -> Result<Opened, OpenFailure> {
        let (world, store, options) = (&self.world, &self.store, self.options(access));
        let without_lease = Io::new(store.channel(None).map_err(|error| OpenFailure::Failed(error.to_string()))?);
        let id = drive(world, &without_lease, find(&without_lease, name), beside)?;
        // Of its own host's dead, this one finds what they left in the directory.
        let predecessor = lease::holder(store, id).filter(|_| self.host == Host::Second);
        let lease = match access {
            Access::ReadWrite => lock(store, id, name, &self.holder(Some(&options.soft_journal_dir))),
            Access::ReadOnly => lock_shared(store, id, name),
        };
        let lease = lease.map_err(|error| why(&error))?;
        let io = Io::new(store.channel(Some(&lease)).map_err(|error| OpenFailure::Failed(error.to_string()))?);
        drive(world, &io, open(&io, store, lease, name, predecessor.as_ref(), &options), beside)
    }

    /// The volume, if it is open for writing.
    pub fn volume(&self, key: Key) -> Option<Arc<Volume>> {
        self.disks.get(&key).filter(|disk| disk.keeper.is_some()).map(|disk| Arc::clone(&disk.volume))
    }

    /// The volume has another size: its guest is told.
    pub fn capacity_changed(&self, key: Key) {
        self.disks[&key].frontend.capacity_changed();
    }

    /// Its size in sectors.
    pub fn sectors(&self, key: Key) -> u64 {
        self.disks[&key].volume.size().sectors()
    }

    pub fn volume_id(&self, key: Key) -> VolumeId {
        self.disks[&key].volume.id()
    }

    pub fn submit(&mut self, rng: &mut Rng, key: Key, queue: usize, tag: u32, asked: &Asked, content: &[u8]) {
        self.disk(key).frontend.submit(rng, queue, tag, asked, content);
    }

    /// One turn of a queue's thread. Whether anything moved.
    pub fn turn(&mut self, key: Key, queue: usize, answers: &mut Vec<Answer>) -> Result<bool, String> {
        self.disk(key).frontend.turn(queue, answers)
    }

    /// One turn of a keeper's thread. Whether anything moved.
    pub fn turn_keeper(&mut self, key: Key) -> bool {
        self.disk(key).keeper.as_mut().is_some_and(Keeper::turn)
    }

    fn disk(&mut self, key: Key) -> &mut Disk {
        self.disks.get_mut(&key).expect("only open volumes take turns")
    }

    // ---- verbs

    /// Starts something that runs beside the guests' requests.
    pub fn start_verb<F>(&mut self, number: u32, work: impl FnOnce(Io, Arc<dyn Store>) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<(), VolumeError>> + 'static,
    {
        let io = Io::new(self.store.channel(None).map_err(|error| error.to_string())?);
        let work: Work = Box::pin(work(io.clone(), Arc::clone(&self.store)));
        self.verbs.insert(number, Verb { thread: Thread::Io(io), work });
        Ok(())
    }

    /// As [`Daemon::start_verb`], on a volume that is open here.
    pub fn start_verb_on<F>(&mut self, key: Key, number: u32, work: impl FnOnce(Port) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<(), VolumeError>> + 'static,
    {
        let port = Port::open(&self.disks[&key].volume).map_err(|error| error.to_string())?;
        let work: Work = Box::pin(work(port.clone()));
        self.verbs.insert(number, Verb { thread: Thread::Port(port), work });
        Ok(())
    }

    /// As [`Daemon::start_verb`], under the lease of a volume that is not open.
    pub fn start_verb_under<F>(
        &mut self,
        taken: Taken,
        number: u32,
        work: impl FnOnce(Io, Arc<dyn Store>, Taken) -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<(), VolumeError>> + 'static,
    {
        let io = Io::new(self.store.channel(Some(&taken.lease)).map_err(|error| error.to_string())?);
        let work: Work = Box::pin(work(io.clone(), Arc::clone(&self.store), taken));
        self.verbs.insert(number, Verb { thread: Thread::Io(io), work });
        Ok(())
    }

    /// Takes the lease of a volume that is not open.
    pub fn lease(&self, name: &VolumeName) -> Result<Taken, OpenFailure> {
        let io = Io::new(self.store.channel(None).map_err(|error| OpenFailure::Failed(error.to_string()))?);
        let id = drive(&self.world, &io, find(&io, name), &mut || {})?;
        lease::take(&self.store, id, name, &self.lease_options(), None).map_err(|error| why(&error))
    }

    /// Cuts off whoever has the volume's lock.
    pub fn break_lock(&self, name: &VolumeName) -> Result<(), String> {
        let options = self.options(Access::ReadWrite).lease;
        break_lock(&self.store, name, &options).map(drop).map_err(|error| text(&error))
    }

    pub fn lease_options(&self) -> LeaseOptions {
        self.options(Access::ReadWrite).lease
    }

    /// Whether it would have to prove what became of others before it may change what they left.
    pub fn is_second_host(&self) -> bool {
        self.host == Host::Second
    }

    /// All volumes that are open for writing here.
    pub fn volumes(&self) -> OpenVolumes {
        let writable = self.disks.values().filter(|disk| disk.keeper.is_some());
        OpenVolumes(writable.map(|disk| (disk.volume.name(), Arc::clone(&disk.volume))).collect())
    }

    fn holder(&self, soft_dir: Option<&Path>) -> Holder {
        let boot = format!("boot of {}", self.host.name());
        Holder { boot, ..Holder::this_process(self.host.name(), soft_dir) }
    }

    pub fn verbs(&self) -> Vec<u32> {
        self.verbs.keys().copied().collect()
    }

    /// One turn of a verb's thread: whether anything moved, and how it ended, if it did.
    pub fn turn_verb(&mut self, number: u32) -> (bool, Option<Result<(), VolumeError>>) {
        let Some(verb) = self.verbs.get_mut(&number) else { return (false, None) };
        let moved = verb.thread.reap();
        let mut context = Context::from_waker(Waker::noop());
        let poll = verb.work.as_mut().poll(&mut context);
        verb.thread.kick();
        match poll {
            Poll::Pending => (moved, None),
            Poll::Ready(result) => {
                self.verbs.remove(&number);
                (true, Some(result))
            }
        }
    }

    // ---- the end

    /// Closes a volume in order, while the others' keepers go on.
    pub fn close(&mut self, key: Key) -> Result<(), CloseFailure> {
        let Some(mut disk) = self.disks.remove(&key) else { return Ok(()) };
        disk.frontend.disconnect();
        if disk.keeper.is_none() {
            return Ok(());
        }
        let volume = Arc::clone(&disk.volume);
        let mut closing = pin!(volume.close_keeper());
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = closing.as_mut().poll(&mut context) {
                return result.map_err(|error| CloseFailure::Failed(text(&error)));
            }
            let mut moved = disk.keeper.as_mut().is_some_and(Keeper::turn);
            for other in self.disks.values_mut() {
                moved |= other.keeper.as_mut().is_some_and(Keeper::turn);
            }
            moved |= self.world.step();
            if self.world.crash_is_due() {
                return Err(CloseFailure::Crashed);
            }
            if !moved {
                return Err(CloseFailure::Failed("nothing moves, and the volume is not closed".to_owned()));
            }
        }
    }
}

#[derive(Debug)]
pub enum CloseFailure {
    Crashed,
    Failed(String),
}

impl Drop for Disk {
    /// Tasks that wait keep their wakers, and those keep them: only this frees what a dead daemon had in memory.
    fn drop(&mut self) {
        self.frontend.disconnect();
        if let Some(keeper) = &self.keeper {
            keeper.executor.abandon();
        }
    }
}

impl Keeper {
    fn turn(&mut self) -> bool {
        let moved = self.io.reap(&mut self.raw);
        let ran = self.executor.run_ready();
        self.io.kick();
        moved | ran
    }
}

/// Lets the world go on until the future is ready or the crash comes.
pub fn drive<T>(
    world: &World,
    io: &Io,
    future: impl Future<Output = Result<T, VolumeError>>,
    beside: &mut dyn FnMut(),
) -> Result<T, OpenFailure> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut raw = Vec::new();
    loop {
        if world.crash_is_due() {
            return Err(OpenFailure::Crashed);
        }
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result.map_err(|error| why(&error));
        }
        io.kick();
        beside();
        if !world.step() && !io.reap(&mut raw) && !world.crash_is_due() {
            return Err(OpenFailure::Failed("nothing moves, and the volume is not open".to_owned()));
        }
        io.reap(&mut raw);
    }
}

fn why(error: &VolumeError) -> OpenFailure {
    match error.kind() {
        // Busy: it may only be read when what a holder that was cut off may still write was copied.
        VolumeErrorKind::Held | VolumeErrorKind::Busy => OpenFailure::Held,
        VolumeErrorKind::NotFound => OpenFailure::NotFound,
        _ => OpenFailure::Failed(text(error)),
    }
}

pub fn text(error: &VolumeError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}
