//! The simulated world below the store contract: objects with a volatile cache, operations in flight, locks, processes
//! that die and power that fails.
//!
//! ```text
//!   Channel::submit ─► pending ──step()──► pieces take effect ──step()──► ended ──► Channel::reap
//!                        │ the process dies: goes on, reported to nobody      the lock is free when all have ended
//!                        └ power fails: any part of it happened
//! ```
//! Nothing advances but by [`World::step`], and every choice comes from the world's own [`Rng`], so a run is a function
//! of its seed. The world is also a witness: what breaks a rule that the store can see (names used twice, changes without
//! the lease, journal records in parallel) is kept in [`World::violations`].

pub mod content;
mod crash;
mod effect;
pub mod faults;
mod finish;
mod lock;
pub mod object;
mod pending;
mod rules;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod trace;

pub use crash::{CrashKind, Survival};
pub use store::SimStore;

use super::rng::Rng;
use archvhost::store::{Completion, Durability, ObjectName, Op};
use archvhost::units::VolumeId;
use faults::{Faults, Habits};
use lock::Lock;
use object::{OpId, SimObject};
pub use pending::Incarnation;
use pending::{ChannelId, Origin, Pending, Stage, Unsynced};
use rules::Rules;
use shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trace::Trace;

/// A handle; all clones are one world.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

struct State {
    rng: Rng,
    habits: Habits,
    faults: Faults,
    /// Steps so far, with jumps over times when nothing can move.
    now: u64,
    /// Processes that live; a process that died never lives again.
    living: BTreeSet<Incarnation>,
    next_incarnation: u64,
    next_op: u64,
    next_channel: u64,
    objects: BTreeMap<ObjectName, SimObject>,
    pending: Vec<Pending>,
    ended: BTreeMap<ChannelId, Vec<(OpId, Completion)>>,
    unsynced: BTreeMap<OpId, Unsynced>,
    locks: Vec<Lock>,
    next_lock: u64,
    holders: BTreeMap<VolumeId, Vec<u8>>,
    rules: Rules,
    shared: Shared,
    trace: Trace,
    /// Durable steps so far: submission, effect and end of each sync, publication and durable write.
    durable_steps: u64,
    crash_at: Option<u64>,
    headers_to_crash: Option<u64>,
    injected: Injected,
    failed_syncs: BTreeMap<OpId, Option<VolumeId>>,
    /// Volumes whose holders have been told of a failed sync.
    unsure: BTreeSet<VolumeId>,
}

/// Failures that the world has caused since the last crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    pub no_space: u64,
    /// Failed reads, writes and creations of data objects.
    pub data: u64,
    /// Failed journal writes and publications.
    pub metadata: u64,
    pub sync: u64,
}

impl Injected {
    pub fn any(self) -> bool {
        self != Self::default()
    }

    pub fn is_only_no_space(self) -> bool {
        self.any() && Self { no_space: 0, ..self } == Self::default()
    }
}

impl World {
    pub fn new(mut rng: Rng, habits: Habits) -> Self {
        let state = State {
            rng: rng.fork(),
            habits,
            faults: Faults::NONE,
            now: 0,
            living: BTreeSet::new(),
            next_incarnation: 1,
            next_op: 1,
            next_channel: 1,
            objects: BTreeMap::new(),
            pending: Vec::new(),
            ended: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            locks: Vec::new(),
            next_lock: 1,
            holders: BTreeMap::new(),
            rules: Rules::default(),
            shared: Shared::default(),
            trace: Trace::default(),
            durable_steps: 0,
            crash_at: None,
            headers_to_crash: None,
            injected: Injected::default(),
            failed_syncs: BTreeMap::new(),
            unsure: BTreeSet::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A process starts: what it submits is its own.
    pub fn start_process(&self) -> Incarnation {
        let mut state = self.state();
        let process = Incarnation(state.next_incarnation);
        state.next_incarnation += 1;
        state.living.insert(process);
        process
    }

    /// Lets one operation in flight take its next step. False when none can: nothing is in flight.
    pub fn step(&self) -> bool {
        self.state().step()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The crash comes at the durable step that lies `steps` ahead; see [`World::crash_is_due`].
    pub fn plan_crash(&self, steps: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.durable_steps + steps);
    }

    /// The crash comes when the `count`-th header from now on has been published.
    pub fn plan_crash_at_header(&self, count: u64) {
        self.state().headers_to_crash = Some(count);
    }

    /// Whether the planned crash's moment has come. Operations submitted since then are lost.
    pub fn crash_is_due(&self) -> bool {
        self.state().crash_is_due()
    }

    /// Whether the volume's holder has been told that a sync of it failed.
    pub fn sync_failure_is_known(&self, volume: VolumeId) -> bool {
        self.state().unsure.contains(&volume)
    }

    pub fn injected(&self) -> Injected {
        self.state().injected
    }

    /// From now on no failure is excused by one that the world caused before.
    pub fn forget_injected(&self) {
        self.state().injected = Injected::default();
    }

    /// Rules broken so far, as the store sees it.
    pub fn violations(&self) -> Vec<String> {
        self.state().rules.violations()
    }

    /// Everything that there is.
    pub fn names(&self) -> Vec<ObjectName> {
        let state = self.state();
        let there = state.objects.iter().filter(|(_, object)| object.visible().is_some());
        there.map(|(name, _)| name.clone()).collect()
    }

    /// A number that differs between runs that differ.
    pub fn digest(&self) -> u64 {
        self.state().trace.digest()
    }

    pub fn print_trace(&self) {
        self.state().trace.print = true;
    }

    /// Puts a line of the run's own into the trace.
    pub fn say(&self, line: impl FnOnce() -> String) {
        let mut state = self.state();
        let now = state.now;
        state.trace.say(now, line);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lives(&self, process: Incarnation) -> bool {
        self.living.contains(&process)
    }

    fn crash_is_due(&self) -> bool {
        self.crash_at.is_some_and(|at| self.durable_steps >= at)
    }

    fn submit(&mut self, origin: Origin, token: archvhost::store::Token, op: Op) {
        if !self.lives(origin.incarnation) || self.crash_is_due() {
            return;
        }
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.check_rules(origin, &op);
        let delay =
            if self.rng.one_in(self.habits.stall_one_in) { self.habits.stall_max } else { self.habits.delay_max };
        let ready_at = self.now + self.rng.between(0, delay);
        let started = self.rng.one_in(2);
        let failure = self.failure_for(&op);
        let covers = self.covered_by(&op);
        let listed = self.names_now(&op);
        let stage = Stage::Moving(0);
        self.pending.push(Pending { id, origin, token, op, ready_at, started, stage, covers, listed, failure });
        self.note("submit", self.pending.len() - 1);
        self.count_durable_step(self.pending.len() - 1);
    }

    fn kick(&mut self, channel: ChannelId) {
        if self.crash_is_due() {
            return;
        }
        self.pending.iter_mut().filter(|pending| pending.origin.channel == channel).for_each(|p| p.started = true);
    }

    fn step(&mut self) -> bool {
        let Some(earliest) = self.pending.iter().filter(|p| p.started).map(|p| p.ready_at).min() else {
            return false;
        };
        self.now = (self.now + 1).max(earliest);
        let now = self.now;
        let able: Vec<usize> =
            (0..self.pending.len()).filter(|&i| self.pending[i].started && self.pending[i].ready_at <= now).collect();
        let chosen = *self.rng.pick(&able);
        match self.pending[chosen].stage {
            Stage::Moving(done) => self.advance(chosen, done),
            Stage::Effective => self.finish(chosen),
        }
        true
    }

    /// Moves some more sectors, usually all that are left.
    fn advance(&mut self, index: usize, done: usize) {
        let left = self.pending[index].sectors() - done;
        let whole = self.pending[index].sees_one_object();
        let now = if left > 1 && !whole && self.rng.one_in(4) { 1 + self.rng.index(left - 1) } else { left };
        self.take_effect(index, done, now);
        self.pending[index].stage = if now < left { Stage::Moving(done + now) } else { Stage::Effective };
        if now == left {
            self.note("effect", index);
            self.count_durable_step(index);
        }
    }

    fn count_durable_step(&mut self, index: usize) {
        let counts = match &self.pending[index].op {
            Op::Sync { .. } | Op::SyncAll | Op::Publish { .. } => true,
            Op::Write { durability, .. } => *durability == Durability::Durable,
            Op::Read { .. }
            | Op::Create { .. }
            | Op::Zero { .. }
            | Op::Remove { .. }
            | Op::Stat { .. }
            | Op::List { .. } => false,
        };
        if counts {
            self.durable_steps += 1;
        }
    }

    fn count_header(&mut self, op: &Op) {
        let Op::Publish { object: ObjectName::Header { .. }, .. } = op else { return };
        self.headers_to_crash = self.headers_to_crash.map(|count| count.saturating_sub(1));
        if self.headers_to_crash == Some(0) {
            self.crash_at = Some(self.durable_steps);
        }
    }

    fn note(&mut self, what: &'static str, index: usize) {
        let pending = &self.pending[index];
        self.trace.note(self.now, what, pending);
    }
}
