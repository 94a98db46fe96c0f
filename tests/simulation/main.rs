//! Crash tests of the whole volume on a simulated store: the short set. The example `simulate` runs as many seeds as one
//! likes; docs/simulation.md says what is simulated and how a seed is replayed.

#![allow(unreachable_pub, reason = "in a test's own modules `pub` means: for the rest of the simulation")]

mod daemon;
mod estate;
mod guest;
mod life;
mod model;
mod plan;
mod rival;
mod rng;
mod run;
mod soft_dir;
mod verbs;
mod workload;
mod world;

use run::{Report, Tracing, run};
use std::panic::resume_unwind;

/// Seeds of the short set; the long runner begins at zero too. So many take seconds even without optimisation.
const SEEDS: u64 = 60;

/// Seeds run side by side; each is single-threaded.
const JOBS: u64 = 2;

#[test]
fn no_crash_breaks_an_invariant() {
    let jobs = (0..JOBS).map(|job| move || (job..SEEDS).step_by(2).map(must_hold).collect::<Vec<Report>>());
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.map(|job| scope.spawn(job)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    // A simulation in which nothing happens would pass too.
    assert!(total(|report| report.deaths) > SEEDS / 4);
    assert!(total(|report| report.power_cuts) > SEEDS);
    assert!(total(|report| report.closes) > SEEDS);
    assert!(total(|report| report.counts.requests) > 20 * SEEDS);
    assert!(total(|report| report.counts.flushes) > 5 * SEEDS);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 2, 3] {
        assert_eq!(must_hold(seed).digest, must_hold(seed).digest);
    }
}

fn must_hold(seed: u64) -> Report {
    run(seed, Tracing::Silent).unwrap_or_else(|text| panic!("seed {seed}: {text}"))
}
