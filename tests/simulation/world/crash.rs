//! The two crashes: death of the daemon, after which the kernel finishes what it was told, and failure of power, after
//! which anything not synced is there, absent, or partly there.

use super::object::OpId;
use super::pending::{Incarnation, Stage};
use super::{State, World};
use crate::rng::mix;
use archvhost::store::Op;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// kill -9 of the daemon: the kernel, its caches and its I/O go on.
    Death,
    /// The host loses power.
    PowerCut,
}

/// What a power cut does to changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// All are kept: the caches had been written back.
    Everything,
    /// All are lost.
    Nothing,
    /// Those of operations that began before some moment are kept.
    Earlier,
    /// Each operation's are kept or lost together.
    ByOperation,
    /// Each sector for itself: torn and reordered.
    BySector,
}

impl Survival {
    pub const ALL: [Survival; 5] = [Self::Everything, Self::Nothing, Self::Earlier, Self::ByOperation, Self::BySector];
}

impl World {
    /// The living processes execute nothing more; a crash follows. What it still submits, its destructors perhaps, is lost.
    pub fn stop_process(&self) {
        let mut state = self.state();
        state.crash_at = Some(state.durable_steps);
    }

    /// Every process dies. What it submitted and the kernel knows of goes on and ends later.
    pub fn kill_all(&self) {
        self.forget_planned_crash();
        self.kill_all_only();
    }

    /// As [`World::kill_all`], with a planned crash still to come.
    pub fn kill_all_only(&self) {
        let mut state = self.state();
        state.living.clear();
        state.ended.clear();
        state.drop_what_the_kernel_does_not_know();
        state.injected = super::Injected::default();
        state.unsure.clear();
        let now = state.now;
        state.trace.say(now, || "all processes die".to_owned());
    }

    /// One process dies, and others live on.
    pub fn kill(&self, process: Incarnation) {
        let mut state = self.state();
        state.living.remove(&process);
        state.drop_what_the_kernel_does_not_know();
        let now = state.now;
        state.trace.say(now, || "a process dies".to_owned());
    }

    pub fn forget_planned_crash(&self) {
        let mut state = self.state();
        (state.crash_at, state.headers_to_crash) = (None, None);
    }

    /// The power fails, and comes back.
    pub fn cut_power(&self, survival: Survival) {
        self.forget_planned_crash();
        let mut state = self.state();
        state.living.clear();
        state.ended.clear();
        state.leave_in_flight_as_it_is(survival);
        state.forget_unsynced(survival);
        state.locks.clear();
        state.unsynced.clear();
        state.injected = super::Injected::default();
        state.unsure.clear();
        let now = state.now;
        state.trace.say(now, || format!("the power fails; survives: {survival:?}"));
    }
}

impl State {
    /// Not started: still in the process's memory. A publication is several system calls: it stops between two of them.
    fn drop_what_the_kernel_does_not_know(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|p| {
            let halfway = matches!(p.op, Op::Publish { .. }) && p.stage == Stage::Moving(0);
            self.living.contains(&p.origin.incarnation) || (p.started && !(halfway && self.rng.one_in(2)))
        });
        self.pending = pending;
    }

    /// Any part of what was in flight may have happened.
    fn leave_in_flight_as_it_is(&mut self, survival: Survival) {
        for index in 0..self.pending.len() {
            let Stage::Moving(done) = self.pending[index].stage else { continue };
            let left = self.pending[index].sectors() - done;
            let happens = self.pending[index].started && survival != Survival::Nothing && self.rng.one_in(2);
            if happens {
                let count = if left > 1 { 1 + self.rng.index(left) } else { left };
                self.take_effect(index, done, count);
            }
        }
        self.pending.clear();
    }

    fn forget_unsynced(&mut self, survival: Survival) {
        let salt = self.rng.next();
        let earlier_than = OpId(self.rng.between(self.oldest_unsynced(), self.next_op));
        let rng = &mut self.rng;
        let mut keeps = |op: OpId| match survival {
            Survival::Everything => true,
            Survival::Nothing => false,
            Survival::Earlier => op < earlier_than,
            Survival::ByOperation => mix(op.0 ^ salt).is_multiple_of(2),
            Survival::BySector => rng.one_in(2),
        };
        self.objects.values_mut().for_each(|object| object.cut_power(&mut keeps));
        self.objects.retain(|_, object| !object.is_forgotten());
    }

    fn oldest_unsynced(&self) -> u64 {
        self.unsynced.keys().next().map_or(self.next_op, |oldest| oldest.0)
    }
}
