//! A whole run of one seed: rounds of work, each ended by a crash or an orderly close, each followed by a check of
//! everything.

use super::daemon::Daemon;
use super::estate::{Estate, Existence, Key};
use super::guest::Guest;
use super::life::{Counts, Life, OpenEnd, Stop};
use super::model::Effect;
use super::plan::{Moment, Plan, Round, RoundEnd};
use super::rng::Rng;
use super::soft_dir::SoftDir;
use super::workload::{Asked, regions_within};
use super::world::faults::Faults;
use super::world::{CrashKind, SimStore, Survival, World};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::map::format::header::VolumeKind;
use archvhost::store::{FreeLock, Space};
use archvhost::units::VolumeId;
use archvhost::volume::{Access, Stability};

/// How often an opening is tried again when a fault, or the lock of a dead process, keeps it from succeeding.
const OPENINGS_MAX: u32 = 200;

/// So many collections free everything.
const COLLECTIONS: u32 = 3;

/// Volumes that guests write in one life.
const OPEN_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracing {
    Silent,
    /// Every event goes to standard error.
    Printed,
}

/// What a run that found nothing wrong did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    pub deaths: u64,
    pub power_cuts: u64,
    pub closes: u64,
    pub counts: Counts,
    /// Differs between runs that differ.
    pub digest: u64,
}

struct Run {
    plan: Plan,
    rng: Rng,
    world: World,
    estate: Estate,
    guest: Guest,
    soft_dir: SoftDir,
    report: Report,
}

/// Runs the seed.
///
/// # Errors
/// What was violated.
pub fn run(seed: u64, tracing: Tracing) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    VolumeId::seed_thread(seed << 32);
    let plan = Plan::of(&mut rng);
    let world = World::new(rng.fork(), plan.habits);
    if tracing == Tracing::Printed {
        world.print_trace();
        eprintln!("{plan:#?}");
    }
    let soft_dir = SoftDir::make().map_err(|error| format!("cannot make a directory for soft journals: {error}"))?;
    let guest = Guest::new(plan.queues)?;
    let mut run = Run { plan, rng, world, estate: Estate::new(), guest, soft_dir, report: Report::default() };
    run.create_disks()?;
    run.rounds()?;
    run.report.digest = run.world.digest();
    Ok(run.report)
}

impl Run {
    fn create_disks(&mut self) -> Result<(), String> {
        let store = SimStore::open(&self.world, self.world.start_process(), FreeLock::ProvesTheEnd);
        for _ in 0..self.plan.disks {
            let key = self.estate.add(VolumeKind::Disk, self.plan.size.sectors(), Existence::There);
            let name = self.estate.get(key).name.clone();
            let request = CreateRequest { name, size: self.plan.size, object_size: self.plan.object_size };
            create(&store, &request).map_err(|error| format!("a volume cannot be made: {error}"))?;
        }
        self.world.kill_all();
        Ok(())
    }

    fn rounds(&mut self) -> Result<(), String> {
        for round in self.plan.rounds.clone() {
            self.round(&round)?;
        }
        // Whatever the last crash left must be whole, and must come through an orderly close and a power cut unharmed.
        for _ in 0..2 {
            self.round(&Round::IDLE)?;
            self.crash(CrashKind::PowerCut, Survival::Nothing)?;
        }
        self.remove_everything()
    }

    /// When everything was removed and collected, nothing is left.
    fn remove_everything(&mut self) -> Result<(), String> {
        let daemon = Daemon::start(&self.world, &self.plan, self.soft_dir.path());
        let Self { world, estate, rng, plan, guest, soft_dir, .. } = self;
        let mut life = Life::new(world, estate, rng, plan, guest, daemon, soft_dir);
        let removed = life.remove_everything();
        drop(life);
        match removed {
            Err(Stop::Violation(text)) => return Err(text),
            Err(Stop::Crash) => return Err("a crash came that nobody had planned".to_owned()),
            Ok(()) => {}
        }
        self.look_for_violations()?;
        let left = self.world.names();
        if left.is_empty() { Ok(()) } else { Err(format!("everything was removed and collected, and left: {left:?}")) }
    }

    fn round(&mut self, round: &Round) -> Result<(), String> {
        self.world.say(|| format!("round: {round:?}"));
        match round.end {
            RoundEnd::Crash { moment: Moment::DurableStep(step), .. } => self.world.plan_crash(step),
            RoundEnd::Crash { moment: Moment::Header(count), .. } => self.world.plan_crash_at_header(count),
            RoundEnd::Crash { moment: Moment::Request(_) | Moment::Quiet | Moment::Closing(_), .. } => {}
            RoundEnd::Close => {}
        }
        let ended = self.live(round);
        self.look_for_violations()?;
        match (ended, round.end) {
            (Err(Stop::Violation(text)), _) => Err(text),
            (Ok(()), RoundEnd::Close) => Ok(()),
            (Ok(()) | Err(Stop::Crash), RoundEnd::Crash { kind, survival, .. }) => self.crash(kind, survival),
            (Err(Stop::Crash), RoundEnd::Close) => Err("a crash came that nobody had planned".to_owned()),
        }
    }

    /// Opens, checks, works, and closes or leaves the daemon to be crashed.
    fn live(&mut self, round: &Round) -> Result<(), Stop> {
        let daemon = Daemon::start(&self.world, &self.plan, self.soft_dir.path());
        let Self { world, estate, rng, plan, guest, report, soft_dir } = self;
        let mut life = Life::new(world, estate, rng, plan, guest, daemon, soft_dir);
        let worked = life.run(round);
        let ended = match (worked, round.end) {
            (Ok(()), RoundEnd::Close) => {
                report.closes += 1;
                life.close_all()
            }
            (Ok(()), RoundEnd::Crash { moment: Moment::Closing(step), .. }) => {
                life.world.plan_crash(step);
                life.close_all()
            }
            (worked, _) => worked,
        };
        // The daemon's memory is gone before anything else happens; nothing that its destructors submit counts.
        life.world.stop_process();
        life.cut_verbs_short();
        report.counts.add(life.counts);
        drop(life);
        soft_dir.move_back().map_err(|error| Stop::Violation(format!("cannot move soft journals: {error}")))?;
        if ended.is_ok() && round.end == RoundEnd::Close {
            world.kill_all();
        }
        ended
    }

    fn crash(&mut self, kind: CrashKind, survival: Survival) -> Result<(), String> {
        match kind {
            CrashKind::Death => {
                self.world.kill_all();
                self.estate.daemon_died();
                self.report.deaths += 1;
            }
            CrashKind::PowerCut => {
                self.world.cut_power(survival);
                self.estate.power_failed();
                self.soft_dir.clear().map_err(|error| format!("cannot clear the soft journals: {error}"))?;
                self.report.power_cuts += 1;
            }
        }
        self.look_for_violations()
    }

    fn look_for_violations(&self) -> Result<(), String> {
        match self.world.violations().first() {
            None => Ok(()),
            Some(first) => Err(first.clone()),
        }
    }
}

impl Life<'_> {
    fn run(&mut self, round: &Round) -> Result<(), Stop> {
        self.world.set_faults(round.opening_faults);
        for key in self.chosen_disks(round) {
            self.open_for_writing(key)?;
        }
        self.world.set_faults(Faults::NONE);
        self.world.forget_injected();
        self.verify()?;
        for key in self.estate.keys(|known| matches!(known.existence, Existence::There | Existence::Doubtful)) {
            let doubtful = self.estate.get(key).existence == Existence::Doubtful;
            if !self.open.contains_key(&key) && (doubtful || round.is_idle() || self.rng.one_in(3)) {
                self.look_at(key)?;
            }
        }
        self.world.set_faults(round.faults);
        let worked = self.work(round);
        self.world.set_faults(Faults::NONE);
        worked
    }

    /// Those that guests write in this round: a few, the first and the newest more often than others.
    fn chosen_disks(&mut self, round: &Round) -> Vec<Key> {
        let mut disks = self.estate.keys(|known| known.kind == VolumeKind::Disk && known.existence == Existence::There);
        let most = if round.take_over_at.is_some() { 1 } else { OPEN_MAX };
        let count = 1 + self.rng.index(most.min(disks.len().max(1)));
        while disks.len() > count {
            let index = self.rng.index(disks.len());
            disks.remove(index);
        }
        disks
    }

    fn open_for_writing(&mut self, key: Key) -> Result<(), Stop> {
        for _ in 0..OPENINGS_MAX {
            match self.open(key, Access::ReadWrite)? {
                OpenEnd::Open => return Ok(()),
                OpenEnd::Held => {
                    self.world.step();
                }
                OpenEnd::Excused => self.world.set_faults(Faults::NONE),
                OpenEnd::NotFound => {
                    let name = self.estate.get(key).name.clone();
                    return Err(Stop::Violation(format!("{name} does not exist any more")));
                }
            }
        }
        Err(Stop::Violation("a lock never became free".to_owned()))
    }

    fn work(&mut self, round: &Round) -> Result<(), Stop> {
        let last = match round.end {
            RoundEnd::Crash { moment: Moment::Request(request), .. } => request.min(round.requests),
            _ => round.requests,
        };
        for number in 0..last {
            if round.take_over_at == Some(number) {
                self.take_over()?;
            }
            let (key, queue) = loop {
                match self.free_queue() {
                    Some(free) if !self.rng.one_in(3) => break free,
                    _ => self.pump()?,
                };
            };
            self.ask(key, queue);
            if self.rival.is_none() && self.rng.one_in(self.plan.verb_one_in) {
                self.start_verb()?;
            }
            if self.rng.one_in(self.plan.mix.pause_one_in) {
                self.verify()?;
            }
        }
        let abrupt = matches!(round.end, RoundEnd::Crash { moment: Moment::Request(_), .. });
        if abrupt {
            return Ok(());
        }
        self.drain_verbs()?;
        self.world.set_faults(Faults::NONE);
        if self.world.injected().is_only_no_space() {
            self.after_space_came_back()?;
        }
        self.verify()
    }

    /// Space was short and is there again: everything must work as before (design rule M9).
    fn after_space_came_back(&mut self) -> Result<(), Stop> {
        self.demand_success();
        for key in self.disks() {
            let sectors = regions_within(self.plan, self.estate.get(key).usable_sectors())[0].clone();
            let sectors = sectors.start..sectors.end.min(sectors.start + 8);
            let (stability, space) = (Stability::Cached, Space::Free);
            self.submit(key, 0, &Asked::Change { effect: Effect::Write, sectors, stability, space });
            self.drain()?;
            self.submit(key, 0, &Asked::Flush);
            self.drain()?;
        }
        Ok(())
    }

    fn remove_everything(&mut self) -> Result<(), Stop> {
        self.demand_success();
        for key in self.estate.keys(|known| known.existence != Existence::Gone) {
            if !self.remove(key)? {
                return Err(Stop::Violation(format!("{} is in use", self.estate.get(key).name)));
            }
            self.drain_verbs()?;
        }
        // Twice: what was young at the first, and headers that only it found out are not needed.
        for _ in 0..COLLECTIONS {
            self.start_collection()?;
            self.drain_verbs()?;
        }
        Ok(())
    }

    fn close_all(&mut self) -> Result<(), Stop> {
        self.drain_verbs()?;
        let keys: Vec<Key> = self.open.keys().copied().collect();
        keys.into_iter().try_for_each(|key| self.close(key))
    }
}
