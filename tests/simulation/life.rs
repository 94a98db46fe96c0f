//! One life of the daemon: the guest's requests go in, answers come out and are checked, until a crash or a quiet end.

use super::daemon::{Answer, Daemon};
use super::model::{Effect, End, Model, stamp};
use super::plan::Plan;
use super::rng::Rng;
use super::workload::Asked;
use super::world::World;
use archvhost::volume::Stability;
use std::collections::BTreeMap;
use std::ops::Range;

/// After so many turns that moved nothing, everybody is looked at in order: then either something moves or nothing can.
const IDLE_TURNS_MAX: u32 = 40;

/// Sectors in one read of a verification.
const VERIFY_SECTORS: u64 = 256;

/// Why a life does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The planned crash's moment has come.
    Crash,
    /// Something was not as it must be.
    Violation(String),
}

pub struct Life<'a> {
    pub world: &'a World,
    pub model: &'a mut Model,
    pub rng: &'a mut Rng,
    pub plan: &'a Plan,
    pub daemon: Daemon,
    outstanding: BTreeMap<u32, Outstanding>,
    next_tag: u32,
    answers: Vec<Answer>,
    idle: u32,
    /// From now on every request must succeed.
    strict: bool,
    pub counts: Counts,
}

/// What a run did, for people.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub requests: u64,
    pub failed: u64,
    pub flushes: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.flushes += other.flushes;
    }
}

/// A request that was submitted and not answered.
#[derive(Debug)]
struct Outstanding {
    queue: usize,
    asked: Asked,
    /// The model's time of its submission.
    submitted: u64,
    /// The model's number of a change.
    request: u64,
    /// Whether the daemon had been told of a failed sync before.
    after_failed_sync: bool,
    quiet: bool,
}

impl<'a> Life<'a> {
    pub fn new(world: &'a World, model: &'a mut Model, rng: &'a mut Rng, plan: &'a Plan, daemon: Daemon) -> Self {
        let counts = Counts::default();
        let outstanding = BTreeMap::new();
        let answers = Vec::new();
        Self { world, model, rng, plan, daemon, outstanding, next_tag: 0, answers, idle: 0, strict: false, counts }
    }

    /// A queue that can take one more request, if there is any.
    pub fn free_queue(&mut self) -> Option<usize> {
        let in_flight = |queue| self.outstanding.values().filter(|outstanding| outstanding.queue == queue).count();
        let free: Vec<usize> = (0..self.plan.queues).filter(|queue| in_flight(*queue) < self.plan.depth).collect();
        if free.is_empty() { None } else { Some(*self.rng.pick(&free)) }
    }

    /// From now on nothing may fail.
    pub fn demand_success(&mut self) {
        self.strict = true;
    }

    pub fn submit(&mut self, queue: usize, asked: &Asked) {
        let quiet = self.outstanding.is_empty();
        self.submit_as(queue, asked, quiet);
    }

    fn submit_as(&mut self, queue: usize, asked: &Asked, quiet: bool) {
        self.next_tag += 1;
        let tag = self.next_tag;
        let (request, content) = match asked {
            Asked::Read { .. } | Asked::Flush => (0, Vec::new()),
            Asked::Change { effect, sectors, .. } => {
                let request = self.model.submit(*effect, sectors.clone());
                let content = if *effect == Effect::Write { stamped(request, sectors) } else { Vec::new() };
                (request, content)
            }
        };
        let submitted = match asked {
            Asked::Read { .. } => self.model.submit_read(),
            Asked::Flush | Asked::Change { .. } => self.model.tick(),
        };
        self.world.say(|| format!("queue {queue} tag {tag} request {request}: {asked:?}"));
        let after_failed_sync = self.world.sync_failure_is_known();
        let outstanding = Outstanding { queue, asked: asked.clone(), submitted, request, after_failed_sync, quiet };
        self.outstanding.insert(tag, outstanding);
        self.counts.requests += 1;
        self.daemon.submit(self.rng, queue, tag, asked, &content);
    }

    /// Lets someone take a turn. `false` when nobody can move any more.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn pump(&mut self) -> Result<bool, Stop> {
        let moved = match self.rng.below(8) {
            0..=3 => self.world.step(),
            4..=6 => {
                let queue = self.rng.index(self.plan.queues);
                self.daemon.turn(queue, &mut self.answers).map_err(Stop::Violation)?
            }
            _ => self.daemon.turn_keeper(),
        };
        self.idle = if moved { 0 } else { self.idle + 1 };
        let moved = self.idle < IDLE_TURNS_MAX || self.turn_everybody()?;
        self.check_answers()?;
        if self.world.crash_is_due() { Err(Stop::Crash) } else { Ok(moved) }
    }

    fn turn_everybody(&mut self) -> Result<bool, Stop> {
        self.idle = 0;
        let mut moved = self.daemon.turn_keeper();
        for queue in 0..self.plan.queues {
            moved |= self.daemon.turn(queue, &mut self.answers).map_err(Stop::Violation)?;
        }
        Ok(moved | self.world.step())
    }

    /// Until every request is answered.
    ///
    /// # Errors
    /// See [`Stop`]; a request that is never answered is a violation.
    pub fn drain(&mut self) -> Result<(), Stop> {
        while !self.outstanding.is_empty() {
            if !self.pump()? && !self.outstanding.is_empty() {
                let asked: Vec<&Asked> = self.outstanding.values().map(|outstanding| &outstanding.asked).collect();
                return Err(Stop::Violation(format!("nothing moves, and these are not answered: {asked:?}")));
            }
        }
        Ok(())
    }

    /// Reads everything that the guest ever works on, with nothing else in flight.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn verify(&mut self) -> Result<(), Stop> {
        self.drain()?;
        for region in &self.plan.regions {
            let mut first = region.start;
            while first < region.end {
                let end = (first + VERIFY_SECTORS).min(region.end);
                let queue = self.rng.index(self.plan.queues);
                self.submit_as(queue, &Asked::Read { sectors: first..end }, true);
                self.drain()?;
                first = end;
            }
        }
        Ok(())
    }

    fn check_answers(&mut self) -> Result<(), Stop> {
        for answer in std::mem::take(&mut self.answers) {
            self.check_answer(answer).map_err(Stop::Violation)?;
        }
        Ok(())
    }

    fn check_answer(&mut self, answer: Answer) -> Result<(), String> {
        let Answer { tag, result } = answer;
        let Some(outstanding) = self.outstanding.remove(&tag) else {
            return Err(format!("invariant 5: tag {tag} is answered, which is not in flight"));
        };
        self.world.say(|| {
            format!(
                "tag {tag} is answered: {}",
                result.as_ref().map_or_else(|failure| failure.text.as_str(), |_| "done")
            )
        });
        if let Err(failure) = &result {
            self.counts.failed += 1;
            let caused = self.world.injected().any() && !failure.is_damage;
            if self.strict || !caused {
                return Err(format!("{:?} fails for no reason: {}", outstanding.asked, failure.text));
            }
        }
        self.model.end_read(outstanding.submitted);
        match (outstanding.asked, result) {
            (Asked::Read { sectors }, Ok(bytes)) => {
                self.check_read(&sectors, outstanding.submitted, outstanding.quiet, &bytes)
            }
            (Asked::Read { .. } | Asked::Flush, Err(_)) => Ok(()),
            (Asked::Flush, Ok(_)) if outstanding.after_failed_sync => {
                Err("C12: a flush succeeds although a sync had failed before it".to_owned())
            }
            (Asked::Flush, Ok(_)) => {
                self.counts.flushes += 1;
                self.model.flushed(outstanding.submitted);
                Ok(())
            }
            (Asked::Change { stability, .. }, result) => {
                let end = match (result, stability) {
                    (Err(_), _) => End::Failed,
                    (Ok(_), Stability::Cached) => End::Done,
                    (Ok(_), Stability::Stable) => End::DoneStable,
                };
                self.model.complete(outstanding.request, end);
                Ok(())
            }
        }
    }

    /// A read is quiet when nothing was in flight beside it.
    fn check_read(&mut self, sectors: &Range<u64>, submitted: u64, quiet: bool, bytes: &[u8]) -> Result<(), String> {
        if quiet && self.outstanding.is_empty() && self.model.is_quiet_since(submitted) {
            self.model.check_quiet_read(submitted, sectors.start, bytes)
        } else {
            self.model.check_read(submitted, sectors.start, bytes)
        }
    }
}

fn stamped(request: u64, sectors: &Range<u64>) -> Vec<u8> {
    sectors.clone().flat_map(|sector| stamp::content(request, sector)).collect()
}
