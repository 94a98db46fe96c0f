//! One life of the daemon: the guests' requests go in, answers come out and are checked, verbs run beside them, until a crash
//! or a quiet end.

use super::daemon::{Answer, CloseFailure, Daemon, OpenFailure};
use super::estate::{Estate, Key};
use super::guest::Guest;
use super::model::{Effect, End, stamp};
use super::plan::{Plan, Way};
use super::rival::Rival;
use super::rng::Rng;
use super::soft_dir::SoftDir;
use super::verbs::Verb;
use super::workload::{Asked, ask, regions_within};
use super::world::World;
use archvhost::volume::{Access, Stability};
use std::collections::BTreeMap;
use std::ops::Range;

/// After so many turns that moved nothing, everybody is looked at in order: then either something moves or nothing can.
const IDLE_TURNS_MAX: u32 = 40;

/// So often everybody is looked at before nothing moves any more.
const PASSES: u32 = 4;

/// Turns of a life: far more than any takes.
const TURNS_MAX: u64 = 3_000_000;

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

/// How an attempt to open a volume ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenEnd {
    Open,
    /// There is no such volume.
    NotFound,
    /// Somebody has it.
    Held,
    /// It failed, and a fault explains that.
    Excused,
}

pub struct Life<'a> {
    pub world: &'a World,
    pub estate: &'a mut Estate,
    pub rng: &'a mut Rng,
    pub plan: &'a Plan,
    pub guest: &'a Guest,
    pub daemon: Daemon,
    pub soft_dir: &'a SoftDir,
    pub open: BTreeMap<Key, Queues>,
    pub verbs: BTreeMap<u32, Verb>,
    pub(super) outstanding: BTreeMap<u32, Outstanding>,
    /// Who had the volume before it was taken over.
    pub rival: Option<Rival>,
    pub(super) next_tag: u32,
    pub(super) answers: Vec<Answer>,
    idle: u32,
    turns: u64,
    /// From now on every request must succeed.
    strict: bool,
    /// What quiet reads found of the volume that is being verified.
    found: BTreeMap<u64, stamp::Value>,
    /// What was read of a volume of which two things are possible; it is checked when all is read.
    unchecked: Option<Vec<(u64, Vec<u8>)>>,
    pub counts: Counts,
}

/// How a guest is connected to an open volume.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    pub count: usize,
    depth: usize,
    pub access: Access,
}

/// What a run did, for people.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub requests: u64,
    pub failed: u64,
    pub flushes: u64,
    pub verbs: u64,
    pub verbs_failed: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.flushes += other.flushes;
        self.verbs += other.verbs;
        self.verbs_failed += other.verbs_failed;
    }
}

/// A request that was submitted and not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    key: Key,
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
    pub fn new(
        world: &'a World,
        estate: &'a mut Estate,
        rng: &'a mut Rng,
        plan: &'a Plan,
        guest: &'a Guest,
        daemon: Daemon,
        soft_dir: &'a SoftDir,
    ) -> Self {
        Self {
            world,
            estate,
            rng,
            plan,
            guest,
            daemon,
            soft_dir,
            open: BTreeMap::new(),
            verbs: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            rival: None,
            next_tag: 0,
            answers: Vec::new(),
            idle: 0,
            turns: 0,
            strict: false,
            found: BTreeMap::new(),
            unchecked: None,
            counts: Counts::default(),
        }
    }

    // ---- opening and closing

    /// Opens a volume for a guest. The guest of the first one has virtqueues, if the plan says so; others have ports.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn open(&mut self, key: Key, access: Access) -> Result<OpenEnd, Stop> {
        let first = self.open.is_empty() && access == Access::ReadWrite;
        let (way, count) = if first { (self.plan.way, self.plan.queues) } else { (Way::Ports, 1 + self.rng.index(2)) };
        let name = self.estate.get(key).name.clone();
        self.world.say(|| format!("open {name} {access:?}"));
        match self.daemon.open(key, &name, access, (way, count), self.guest, &mut || {}) {
            Ok(()) => {
                self.open.insert(key, Queues { count, depth: self.plan.depth, access });
                if access == Access::ReadWrite {
                    self.estate.opened_for_writing(key);
                }
                let sectors = self.daemon.sectors(key);
                self.estate.has_size(key, sectors).map_err(Stop::Violation)?;
                Ok(OpenEnd::Open)
            }
            Err(OpenFailure::Crashed) => Err(Stop::Crash),
            Err(OpenFailure::Held) => Ok(OpenEnd::Held),
            Err(OpenFailure::NotFound) => Ok(OpenEnd::NotFound),
            Err(OpenFailure::Failed(_)) if self.world.injected().any() => Ok(OpenEnd::Excused),
            Err(OpenFailure::Failed(text)) => Err(Stop::Violation(format!("{name} cannot be opened: {text}"))),
        }
    }

    /// Closes a volume in order: everything in it is durable then.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn close(&mut self, key: Key) -> Result<(), Stop> {
        self.drain()?;
        let may_fail = self.world.injected().any();
        let Some(queues) = self.open.remove(&key) else { return Ok(()) };
        let name = self.estate.get(key).name.clone();
        self.world.say(|| format!("close {name}"));
        let model = &mut self.estate.get_mut(key).model;
        let submitted = model.tick();
        match self.daemon.close(key) {
            Err(CloseFailure::Failed(text)) if !(may_fail || self.world.injected().any()) => {
                Err(Stop::Violation(format!("{name} cannot be closed: {text}")))
            }
            Err(CloseFailure::Crashed) => Err(Stop::Crash),
            Err(CloseFailure::Failed(_)) => Ok(()),
            Ok(()) => {
                if queues.access == Access::ReadWrite {
                    self.estate.get_mut(key).model.flushed(submitted);
                }
                Ok(())
            }
        }
    }

    // ---- requests

    /// What is open for writing.
    pub fn disks(&self) -> Vec<Key> {
        let writable = self.open.iter().filter(|(_, queues)| queues.access == Access::ReadWrite);
        writable.map(|(key, _)| *key).collect()
    }

    /// An open volume and a queue of it that can take one more request, if there is any.
    pub fn free_queue(&mut self) -> Option<(Key, usize)> {
        let in_flight = |key, queue| self.outstanding.values().filter(|o| (o.key, o.queue) == (key, queue)).count();
        let all = self.open.iter().flat_map(|(key, queues)| (0..queues.count).map(|queue| (*key, queue, queues.depth)));
        let free = all.filter(|(key, queue, depth)| in_flight(*key, *queue) < *depth);
        let free: Vec<(Key, usize)> = free.map(|(key, queue, _)| (key, queue)).collect();
        if free.is_empty() { None } else { Some(*self.rng.pick(&free)) }
    }

    /// From now on nothing may fail.
    pub fn demand_success(&mut self) {
        self.strict = true;
    }

    pub fn must_succeed(&self) -> bool {
        self.strict
    }

    /// The guest asks for something.
    pub fn ask(&mut self, key: Key, queue: usize) {
        let end = self.estate.get(key).usable_sectors();
        let asked = match ask(self.rng, self.plan, end) {
            Asked::Change { sectors, .. } if self.open[&key].access == Access::ReadOnly => Asked::Read { sectors },
            asked => asked,
        };
        self.submit(key, queue, &asked);
    }

    pub fn submit(&mut self, key: Key, queue: usize, asked: &Asked) {
        let quiet = self.outstanding.is_empty();
        self.submit_as(key, queue, asked, quiet);
    }

    fn submit_as(&mut self, key: Key, queue: usize, asked: &Asked, quiet: bool) {
        self.next_tag += 1;
        let tag = self.next_tag;
        let model = &mut self.estate.get_mut(key).model;
        let (request, content) = match asked {
            Asked::Read { .. } | Asked::Flush => (0, Vec::new()),
            Asked::Change { effect, sectors, .. } => {
                let request = model.submit(*effect, sectors.clone());
                let content = if *effect == Effect::Write { stamped(request, sectors) } else { Vec::new() };
                (request, content)
            }
        };
        let submitted = match asked {
            Asked::Read { .. } => model.submit_read(),
            Asked::Flush | Asked::Change { .. } => model.tick(),
        };
        self.world.say(|| format!("{key:?} queue {queue} tag {tag} request {request}: {asked:?}"));
        let after_failed_sync = self.world.sync_failure_is_known(self.daemon.volume_id(key));
        let asked = asked.clone();
        self.daemon.submit(self.rng, key, queue, tag, &asked, &content);
        self.outstanding.insert(tag, Outstanding { key, queue, asked, submitted, request, after_failed_sync, quiet });
        self.counts.requests += 1;
    }

    /// Lets someone take a turn. `false` when nobody can move any more.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn pump(&mut self) -> Result<bool, Stop> {
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return Err(Stop::Violation("no end in sight".to_owned()));
        }
        self.turn_rival().map_err(Stop::Violation)?;
        let moved = match self.rng.below(8) {
            0..=3 => self.world.step(),
            4..=6 => self.turn_some_queue()?,
            _ => self.turn_some_keeper_or_verb()?,
        };
        self.idle = if moved { 0 } else { self.idle + 1 };
        let moved = self.idle < IDLE_TURNS_MAX || self.turn_everybody()?;
        self.check_answers()?;
        if self.world.crash_is_due() { Err(Stop::Crash) } else { Ok(moved) }
    }

    fn turn_some_queue(&mut self) -> Result<bool, Stop> {
        if self.open.is_empty() {
            return Ok(false);
        }
        let keys: Vec<Key> = self.open.keys().copied().collect();
        let key = *self.rng.pick(&keys);
        let queue = self.rng.index(self.open[&key].count);
        self.daemon.turn(key, queue, &mut self.answers).map_err(Stop::Violation)
    }

    fn turn_some_keeper_or_verb(&mut self) -> Result<bool, Stop> {
        let (disks, verbs) = (self.disks(), self.daemon.verbs());
        if disks.is_empty() && verbs.is_empty() {
            return Ok(false);
        }
        let chosen = self.rng.index(disks.len() + verbs.len());
        match disks.get(chosen) {
            Some(key) => Ok(self.daemon.turn_keeper(*key)),
            None => self.turn_verb(verbs[chosen - disks.len()]),
        }
    }

    fn turn_verb(&mut self, number: u32) -> Result<bool, Stop> {
        let (moved, ended) = self.daemon.turn_verb(number);
        if let Some(result) = ended {
            self.verb_ended(number, result).map_err(Stop::Violation)?;
        }
        Ok(moved)
    }

    fn turn_everybody(&mut self) -> Result<bool, Stop> {
        self.idle = 0;
        // What one tells another without the store moves nothing at first.
        for _ in 0..PASSES {
            if self.turn_everybody_once()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn turn_everybody_once(&mut self) -> Result<bool, Stop> {
        let mut moved = false;
        for (key, queues) in self.open.clone() {
            moved |= self.daemon.turn_keeper(key);
            for queue in 0..queues.count {
                moved |= self.daemon.turn(key, queue, &mut self.answers).map_err(Stop::Violation)?;
            }
        }
        for number in self.daemon.verbs() {
            moved |= self.turn_verb(number)?;
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

    /// Until every verb has ended, and every request is answered.
    ///
    /// # Errors
    /// As [`Life::drain`].
    pub fn drain_verbs(&mut self) -> Result<(), Stop> {
        while !self.verbs.is_empty() {
            if !self.pump()? && !self.verbs.is_empty() {
                return Err(Stop::Violation(format!("nothing moves, and verbs have not ended: {:?}", self.verbs)));
            }
        }
        self.drain()
    }

    /// Reads everything that guests ever work on, with no request in flight.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn verify(&mut self) -> Result<(), Stop> {
        let keys: Vec<Key> = self.open.keys().copied().collect();
        keys.into_iter().try_for_each(|key| self.verify_one(key))
    }

    /// As [`Life::verify`], one volume.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn verify_one(&mut self, key: Key) -> Result<(), Stop> {
        self.drain()?;
        if self.estate.get(key).otherwise.is_some() {
            self.find_out(key)?;
        }
        self.found.clear();
        let complete = self.counts.failed;
        self.read_all(key)?;
        if complete == self.counts.failed {
            let found = std::mem::take(&mut self.found);
            self.estate.looked(key, &found).map_err(Stop::Violation)?;
        }
        Ok(())
    }

    fn read_all(&mut self, key: Key) -> Result<(), Stop> {
        for region in regions_within(self.plan, self.estate.get(key).usable_sectors()) {
            let mut first = region.start;
            while first < region.end {
                let end = (first + VERIFY_SECTORS).min(region.end);
                let queue = self.rng.index(self.open[&key].count);
                self.submit_as(key, queue, &Asked::Read { sectors: first..end }, true);
                self.drain()?;
                first = end;
            }
        }
        Ok(())
    }

    /// What came of a rollback that was cut short.
    fn find_out(&mut self, key: Key) -> Result<(), Stop> {
        self.unchecked = Some(Vec::new());
        let read = self.read_all(key);
        let found = self.unchecked.take().unwrap_or_default();
        read?;
        let submitted = self.estate.clock.tick();
        self.estate.found_after_rollback(key, submitted, &found).map_err(Stop::Violation)
    }

    pub(super) fn check_answers(&mut self) -> Result<(), Stop> {
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
        let name = self.estate.get(outstanding.key).name.clone();
        if let Err(failure) = &result {
            self.counts.failed += 1;
            let superseded = self.rival.as_ref().is_some_and(|rival| rival.is_being_cut_off);
            let caused = (self.world.injected().any() && !failure.is_damage) || superseded;
            if self.strict || !caused {
                return Err(format!("{name}: {:?} fails for no reason: {}", outstanding.asked, failure.text));
            }
        }
        let Outstanding { key, asked, submitted, request, after_failed_sync, quiet, .. } = outstanding;
        let model = &mut self.estate.get_mut(key).model;
        model.end_read(submitted);
        match (asked, result) {
            (Asked::Read { sectors }, Ok(bytes)) => {
                self.check_read(key, &sectors, submitted, quiet, &bytes).map_err(|text| format!("{name}: {text}"))
            }
            (Asked::Read { .. } | Asked::Flush, Err(_)) => Ok(()),
            (Asked::Flush, Ok(_)) if after_failed_sync => {
                Err("C12: a flush succeeds although a sync had failed before it".to_owned())
            }
            (Asked::Flush, Ok(_)) => {
                self.counts.flushes += 1;
                model.flushed(submitted);
                Ok(())
            }
            (Asked::Change { stability, .. }, result) => {
                let end = match (result, stability) {
                    (Err(_), _) => End::Failed,
                    (Ok(_), Stability::Cached) => End::Done,
                    (Ok(_), Stability::Stable) => End::DoneStable,
                };
                model.complete(request, end);
                Ok(())
            }
        }
    }

    /// A read is quiet when nothing was in flight beside it.
    fn check_read(
        &mut self,
        key: Key,
        sectors: &Range<u64>,
        submitted: u64,
        quiet: bool,
        bytes: &[u8],
    ) -> Result<(), String> {
        if let Some(unchecked) = &mut self.unchecked {
            unchecked.push((sectors.start, bytes.to_vec()));
            return Ok(());
        }
        let model = &mut self.estate.get_mut(key).model;
        if quiet && self.outstanding.is_empty() && model.is_quiet_since(submitted) {
            let values = model.check_quiet_read(submitted, sectors.start, bytes)?;
            self.found.extend((sectors.start..).zip(values));
            Ok(())
        } else {
            model.check_read(submitted, sectors.start, bytes)
        }
    }
}

pub(super) fn stamped(request: u64, sectors: &Range<u64>) -> Vec<u8> {
    sectors.clone().flat_map(|sector| stamp::content(request, sector)).collect()
}
