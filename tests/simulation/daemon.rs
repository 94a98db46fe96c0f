//! One life of the daemon under test: the volume opened, its keeper, and one queue after another, all on this thread.

use super::guest::{Frontend, Guest};
use super::plan::Plan;
use super::rng::Rng;
use super::workload::Asked;
use super::world::{SimStore, World};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::store::Store;
use archvhost::store::io::{Io, RawCompletion};
use archvhost::task::Executor;
use archvhost::units::VolumeName;
use archvhost::volume::lease::LeaseOptions;
use archvhost::volume::open::{Holder, Opened, find, lock, open};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Volume, VolumeError, VolumeErrorKind, keeper};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
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
    Failed(String),
}

pub struct Daemon {
    frontend: Frontend,
    keeper: Keeper,
    volume: Arc<Volume>,
    world: World,
}

/// The keeper's thread, without the thread.
struct Keeper {
    io: Io,
    executor: Executor,
    raw: Vec<RawCompletion>,
}

impl Daemon {
    /// Makes the volume that all lives of the daemon serve.
    pub fn create_volume(world: &World, plan: &Plan) -> Result<(), String> {
        let store = SimStore::open(world);
        let request = CreateRequest { name: name(), size: plan.size, object_size: plan.object_size };
        create(&store, &request).map(drop).map_err(|error| format!("the volume cannot be made: {}", text(&error)))
    }

    pub fn open(world: &World, plan: &Plan, guest: &Guest, soft_dir: &Path) -> Result<Self, OpenFailure> {
        let store = SimStore::open(world);
        let Opened { volume, keeper: seed } = open_volume(world, &store, soft_dir)?;
        let seed = seed.ok_or_else(|| OpenFailure::Failed("no keeper for a writable volume".to_owned()))?;
        let io = channel(&volume)?;
        let executor = Executor::new(io.waker());
        keeper::spawn(&executor, Arc::clone(&volume), io.clone(), seed);
        let keeper = Keeper { io, executor, raw: Vec::new() };
        let frontend = Frontend::connect(guest, &volume, plan).map_err(OpenFailure::Failed)?;
        Ok(Self { frontend, keeper, volume, world: world.clone() })
    }

    pub fn submit(&mut self, rng: &mut Rng, queue: usize, tag: u32, asked: &Asked, content: &[u8]) {
        self.frontend.submit(rng, queue, tag, asked, content);
    }

    /// One turn of a queue's thread. Whether anything moved.
    pub fn turn(&mut self, queue: usize, answers: &mut Vec<Answer>) -> Result<bool, String> {
        self.frontend.turn(queue, answers)
    }

    /// One turn of the keeper's thread. Whether anything moved.
    pub fn turn_keeper(&mut self) -> bool {
        self.keeper.turn()
    }

    /// Closes the volume in order.
    pub fn close(mut self) -> Result<(), CloseFailure> {
        self.frontend.disconnect();
        let volume = Arc::clone(&self.volume);
        let mut closing = pin!(volume.close_keeper());
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = closing.as_mut().poll(&mut context) {
                return result.map_err(|error| CloseFailure::Failed(text(&error)));
            }
            let moved = self.keeper.turn() | self.world.step();
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

impl Drop for Daemon {
    /// Tasks that wait keep their wakers, and those keep them: only this frees what a dead daemon had in memory.
    fn drop(&mut self) {
        self.frontend.disconnect();
        self.keeper.executor.abandon();
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

fn open_volume(world: &World, store: &Arc<dyn Store>, soft_dir: &Path) -> Result<Opened, OpenFailure> {
    let options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: soft_dir.to_owned(),
        cache_bytes: CACHE_BYTES,
        granule_bytes: GRANULE_BYTES,
        // There is no clock here.
        lease: LeaseOptions { valid_for: None, ..LeaseOptions::default() },
    };
    let without_lease = Io::new(store.channel(None).map_err(|error| OpenFailure::Failed(error.to_string()))?);
    let id = drive(world, &without_lease, find(&without_lease, &name()))?;
    let lease = lock(store, id, &name(), &Holder::successor(None, Some(&options.soft_journal_dir)))
        .map_err(|error| why(&error))?;
    let io = Io::new(store.channel(Some(&lease)).map_err(|error| OpenFailure::Failed(error.to_string()))?);
    drive(world, &io, open(&io, store, lease, &name(), None, &options))
}

fn channel(volume: &Arc<Volume>) -> Result<Io, OpenFailure> {
    volume.channel().map(Io::new).map_err(|error| OpenFailure::Failed(error.to_string()))
}

/// Lets the world go on until the future is ready or the crash comes.
fn drive<T>(world: &World, io: &Io, future: impl Future<Output = Result<T, VolumeError>>) -> Result<T, OpenFailure> {
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
        if !world.step() && !io.reap(&mut raw) && !world.crash_is_due() {
            return Err(OpenFailure::Failed("nothing moves, and the volume is not open".to_owned()));
        }
        io.reap(&mut raw);
    }
}

fn why(error: &VolumeError) -> OpenFailure {
    match error.kind() {
        VolumeErrorKind::Held => OpenFailure::Held,
        _ => OpenFailure::Failed(text(error)),
    }
}

fn text(error: &VolumeError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn name() -> VolumeName {
    VolumeName::new("simulated").expect("a good name")
}
