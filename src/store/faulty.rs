//! A driver around another that fails, delays and holds operations as tests tell it, while they run.
//!
//! ```text
//!   submit ──► first rule that matches ──Fail──► an error, and nothing happened
//!                 │      │       ├─────FailAfter─► it happens, and an error is reported
//!                none  Hold    Delay
//!                 ▼      ▼       ▼ until released, or the time has come
//!               inner ◄──┴───────┘
//! ```
//! [`Faults`] is the handle for the test; rules may come and go from any thread. Random faults follow from a seed.

mod channel;

use super::{Channel, Lease, LockMode, Op, OpKind, Seized, Store, StoreError, StoreInfo, Wake};
use crate::units::VolumeId;
use channel::FaultyChannel;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// See the module's text.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

/// Which operations a store is to spoil, and how.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<(RuleId, Rule)>,
    last: u64,
    random: Option<Random>,
    sleepers: Vec<Weak<dyn Wake>>,
}

/// Names a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// What happens to some operations.
pub struct Rule {
    matches: Box<dyn Fn(&Op) -> bool + Send + Sync>,
    /// Matching operations that are let through first.
    skip: u64,
    /// Matching operations that it then happens to.
    times: u64,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Does nothing and reports this error number.
    Fail(i32),
    /// Does it and reports this error number all the same: a failed write may have happened.
    FailAfter(i32),
    /// Begins later.
    Delay(Duration),
    /// Begins when the rule is removed.
    Hold,
}

impl Rule {
    /// Happens to every operation of this kind.
    pub fn on(kind: OpKind, action: Action) -> Self {
        Self::when(move |op| OpKind::of(op) == kind, action)
    }

    /// Happens to every operation that this is true for.
    pub fn when(matches: impl Fn(&Op) -> bool + Send + Sync + 'static, action: Action) -> Self {
        Self { matches: Box::new(matches), skip: 0, times: u64::MAX, action }
    }

    /// Not to the first `skip` of them.
    #[must_use]
    pub fn after(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Only so many times.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Whether it happens to this operation.
    fn strikes(&mut self, op: &Op) -> bool {
        if !(self.matches)(op) || self.times == 0 {
            return false;
        }
        if self.skip != 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// SplitMix64: equal seeds give equal faults when operations come in equal order.
struct Random {
    state: u64,
    per_million: u64,
    errno: i32,
}

impl Random {
    fn strikes(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ bits >> 31) % 1_000_000 < self.per_million
    }
}

impl Faults {
    /// Rules are asked in the order in which they were added; the first one that strikes decides.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.lock();
        state.last += 1;
        let id = RuleId(state.last);
        state.rules.push((id, rule));
        id
    }

    /// Removes a rule, and lets go of the operations that it holds.
    pub fn remove(&self, rule: RuleId) {
        let mut state = self.lock();
        state.rules.retain(|(id, _)| *id != rule);
        state.wake();
    }

    /// Removes all rules and random faults.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.rules.clear();
        state.random = None;
        state.wake();
    }

    /// From now on, so many operations in a million fail, with nothing done.
    pub fn randomly(&self, seed: u64, per_million: u64, errno: i32) {
        self.lock().random = Some(Random { state: seed, per_million, errno });
    }

    fn strike(&self, op: &Op) -> Option<(RuleId, Action)> {
        let mut state = self.lock();
        let struck = state.rules.iter_mut().find_map(|(id, rule)| rule.strikes(op).then_some((*id, rule.action)));
        let random = state.random.as_mut().filter(|_| struck.is_none());
        let random = random.and_then(|random| random.strikes().then_some((RuleId(0), Action::Fail(random.errno))));
        struck.or(random)
    }

    fn is_alive(&self, rule: RuleId) -> bool {
        self.lock().rules.iter().any(|(id, _)| *id == rule)
    }

    fn add_sleeper(&self, waker: &Arc<dyn Wake>) {
        self.lock().sleepers.push(Arc::downgrade(waker));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        self.sleepers.retain(|sleeper| sleeper.upgrade().map(|waker| waker.wake()).is_some());
    }
}

/// What the operation reports instead of its own result.
fn error(errno: i32, kind: OpKind, target: &str) -> StoreError {
    StoreError::from_io(io::Error::from_raw_os_error(errno), kind.verb(), target)
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    pub fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }
}

impl Store for FaultyStore {
    fn info(&self) -> &StoreInfo {
        self.inner.info()
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        Ok(Box::new(FaultyChannel::new(self.inner.channel(lease)?, self.faults())))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.lock(volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.try_lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.inner.seize(volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.inner.record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.holder(volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
}

#[cfg(test)]
mod tests;
