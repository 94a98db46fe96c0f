//! `gc` and `check`, again and again, beside everything else. While the daemon is dead they fail, and that is no finding.

use super::daemon::Place;
use super::load::World;
use super::storm::Plan;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Sweeper {
    signals: Arc<Signals>,
    thread: JoinHandle<()>,
}

/// Both sides look at these.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    stop: AtomicBool,
    /// Raised before and after each kill of the daemon.
    pub(crate) kills: AtomicU64,
    pub(crate) collections: AtomicU64,
    pub(crate) checks: AtomicU64,
}

impl Sweeper {
    pub(crate) fn start(place: &Place, plan: &Plan, world: &Arc<World>, signals: &Arc<Signals>) -> Self {
        let (place, world, shared) = (place.clone(), Arc::clone(world), Arc::clone(signals));
        let plan = plan.clone();
        let thread = thread::spawn(move || sweep(&place, &plan, &world, &shared));
        Self { signals: Arc::clone(signals), thread }
    }

    pub(crate) fn stop(self) {
        self.signals.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the sweeper reports, and does not panic");
    }
}

fn sweep(place: &Place, plan: &Plan, world: &World, signals: &Signals) {
    for round in 0_u64.. {
        if signals.stop.load(Ordering::SeqCst) {
            return;
        }
        let kills = signals.kills.load(Ordering::SeqCst);
        let verb = if round.is_multiple_of(3) { "check" } else { "gc" };
        let (result, count) = match verb {
            _ if plan.skips(verb) => {
                thread::sleep(PAUSE);
                continue;
            }
            "check" => (check(place), &signals.checks),
            _ => (place.run(&["gc"]).map(|_| ()), &signals.collections),
        };
        match result {
            Ok(()) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) if signals.kills.load(Ordering::SeqCst) != kills || kills % 2 == 1 => {}
            Err(error) => world.findings.add(error),
        }
        thread::sleep(PAUSE);
    }
}

/// Beside running verbs something may be there that nobody names yet; nothing may be missing.
fn check(place: &Place) -> Result<(), String> {
    let report = place.run_json(&["check"])?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let damage: Vec<_> = findings.into_iter().filter(|finding| finding["severity"] != "leak").collect();
    if damage.is_empty() { Ok(()) } else { Err(format!("check: {damage:?}")) }
}
