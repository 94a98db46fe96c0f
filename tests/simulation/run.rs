//! A whole run of one seed: rounds of work, each ended by a crash or an orderly close, each followed by a check of
//! everything.

use super::daemon::{CloseFailure, Daemon, OpenFailure};
use super::guest::Guest;
use super::life::{Counts, Life, Stop};
use super::model::{Effect, Model};
use super::plan::{Moment, Plan, Round, RoundEnd};
use super::rng::Rng;
use super::soft_dir::SoftDir;
use super::workload::{Asked, ask};
use super::world::faults::Faults;
use super::world::{CrashKind, Survival, World};
use archvhost::store::Space;
use archvhost::volume::Stability;

/// How often an opening is tried again when a fault, or the lock of a dead process, keeps it from succeeding.
const OPENINGS_MAX: u32 = 200;

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
    model: Model,
    guest: Guest,
    soft_dir: SoftDir,
    report: Report,
    after_power_cut: bool,
}

/// Runs the seed.
///
/// # Errors
/// What was violated.
pub fn run(seed: u64, tracing: Tracing) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    let plan = Plan::of(&mut rng);
    let world = World::new(rng.fork(), plan.habits);
    if tracing == Tracing::Printed {
        world.print_trace();
        eprintln!("{plan:#?}");
    }
    let soft_dir = SoftDir::make().map_err(|error| format!("cannot make a directory for soft journals: {error}"))?;
    Daemon::create_volume(&world, &plan)?;
    let model = Model::default();
    let guest = Guest::new(plan.queues)?;
    let mut run = Run { plan, rng, world, model, guest, soft_dir, report: Report::default(), after_power_cut: false };
    run.rounds()?;
    run.report.digest = run.world.digest();
    Ok(run.report)
}

impl Run {
    fn rounds(&mut self) -> Result<(), String> {
        for round in self.plan.rounds.clone() {
            self.round(&round)?;
        }
        // Whatever the last crash left must be whole, and must come through an orderly close and a power cut unharmed.
        for _ in 0..2 {
            self.round(&Round::IDLE)?;
            self.crash(CrashKind::PowerCut, Survival::Nothing)?;
        }
        Ok(())
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
        let daemon = self.open(round)?;
        let after_power_cut = std::mem::take(&mut self.after_power_cut);
        let mut life = Life::new(&self.world, &mut self.model, &mut self.rng, &self.plan, daemon);
        let worked = work(&mut life, round, after_power_cut);
        self.report.counts.add(life.counts);
        let Life { daemon, .. } = life;
        self.world.set_faults(Faults::NONE);
        match (worked, round.end) {
            (Ok(()), RoundEnd::Close) => {
                self.report.closes += 1;
                self.close(daemon)
            }
            (Ok(()), RoundEnd::Crash { moment: Moment::Closing(step), .. }) => {
                self.world.plan_crash(step);
                self.close(daemon)
            }
            (worked, _) => {
                // The daemon's memory is gone before anything else happens; nothing that its destructors submit counts.
                self.world.stop_process();
                drop(daemon);
                worked
            }
        }
    }

    fn open(&mut self, round: &Round) -> Result<Daemon, Stop> {
        self.world.set_faults(round.opening_faults);
        for _ in 0..OPENINGS_MAX {
            let opened = Daemon::open(&self.world, &self.plan, &self.guest, self.soft_dir.path());
            let caused = self.world.injected().any();
            match opened {
                Ok(daemon) => {
                    self.world.set_faults(Faults::NONE);
                    self.world.forget_injected();
                    return Ok(daemon);
                }
                Err(OpenFailure::Crashed) => return Err(Stop::Crash),
                Err(OpenFailure::Held) => {
                    self.world.step();
                }
                // The process gives up and ends; another one tries again.
                Err(OpenFailure::Failed(_)) if caused => {
                    self.world.set_faults(Faults::NONE);
                    self.world.kill_daemon_only();
                }
                Err(OpenFailure::Failed(text)) => {
                    return Err(Stop::Violation(format!("the volume cannot be opened: {text}")));
                }
            }
        }
        Err(Stop::Violation("the volume's lock never became free".to_owned()))
    }

    fn close(&mut self, daemon: Daemon) -> Result<(), Stop> {
        let may_fail = self.world.injected().any();
        match daemon.close() {
            Err(CloseFailure::Failed(text)) if !may_fail => {
                Err(Stop::Violation(format!("the volume cannot be closed: {text}")))
            }
            Err(CloseFailure::Crashed) => Err(Stop::Crash),
            Ok(()) | Err(CloseFailure::Failed(_)) => Ok(()),
        }
    }

    fn crash(&mut self, kind: CrashKind, survival: Survival) -> Result<(), String> {
        match kind {
            CrashKind::Death => {
                self.world.kill_daemon();
                self.model.daemon_died();
                self.report.deaths += 1;
            }
            CrashKind::PowerCut => {
                self.world.cut_power(survival);
                self.model.power_failed();
                self.soft_dir.clear().map_err(|error| format!("cannot clear the soft journals: {error}"))?;
                self.report.power_cuts += 1;
                self.after_power_cut = true;
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

fn work(life: &mut Life<'_>, round: &Round, after_power_cut: bool) -> Result<(), Stop> {
    life.verify()?;
    if after_power_cut {
        life.model.settle();
    }
    life.world.set_faults(round.faults);
    let last = match round.end {
        RoundEnd::Crash { moment: Moment::Request(request), .. } => request.min(round.requests),
        _ => round.requests,
    };
    for _ in 0..last {
        let queue = loop {
            match life.free_queue() {
                Some(queue) if !life.rng.one_in(3) => break queue,
                _ => life.pump()?,
            };
        };
        let asked = ask(life.rng, life.plan);
        life.submit(queue, &asked);
        if life.rng.one_in(life.plan.mix.pause_one_in) {
            life.verify()?;
        }
    }
    let abrupt = matches!(round.end, RoundEnd::Crash { moment: Moment::Request(_), .. });
    if abrupt {
        return Ok(());
    }
    life.drain()?;
    life.world.set_faults(Faults::NONE);
    if life.world.injected().is_only_no_space() {
        after_space_came_back(life)?;
    }
    life.verify()
}

/// Space was short and is there again: everything must work as before (design rule M9).
fn after_space_came_back(life: &mut Life<'_>) -> Result<(), Stop> {
    life.demand_success();
    let sectors = life.plan.regions[0].clone();
    let sectors = sectors.start..sectors.end.min(sectors.start + 8);
    let (stability, space) = (Stability::Cached, Space::Free);
    life.submit(0, &Asked::Change { effect: Effect::Write, sectors, stability, space });
    life.drain()?;
    life.submit(0, &Asked::Flush);
    life.drain()
}
