//! Runs the simulation for as many seeds as one likes.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 0..10000 --jobs 2
//! cargo run --release --example simulate -- --seed 4711 --trace
//! ```

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

use clap::Parser;
use run::{Report, Tracing, run};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Crash tests of the volume on a simulated store.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to run, as FIRST..END.
    #[arg(long, value_parser = parse_range, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Seeds run side by side; each is single-threaded.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 10)]
    failures: usize,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    bounds.ok_or_else(|| format!("{text:?} is not FIRST..END"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let tracing = if arguments.trace { Tracing::Printed } else { Tracing::Silent };
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let results: Mutex<(Vec<Report>, usize)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| work(&next, seeds.end, tracing, arguments.failures, &results));
        }
    });
    let (reports, failures) = results.into_inner().expect("no worker panics while it holds the results");
    print_summary(&reports, failures, began);
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(next: &AtomicU64, end: u64, tracing: Tracing, failures: usize, results: &Mutex<(Vec<Report>, usize)>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || results.lock().is_ok_and(|results| results.1 >= failures) {
            return;
        }
        let result = std::panic::catch_unwind(|| run(seed, tracing)).unwrap_or_else(|_| Err("a panic".to_owned()));
        let mut results = results.lock().expect("no worker panics while it holds the results");
        match result {
            Ok(report) => results.0.push(report),
            Err(text) => {
                println!("seed {seed}: {text}");
                results.1 += 1;
            }
        }
    }
}

fn print_summary(reports: &[Report], failures: usize, began: Instant) {
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} seeds passed, {failures} failed in {:.1} s: {} deaths of the daemon, {} power cuts, {} orderly closes, \
         {} requests ({} failed), {} flushes",
        reports.len(),
        began.elapsed().as_secs_f64(),
        total(|report| report.deaths),
        total(|report| report.power_cuts),
        total(|report| report.closes),
        total(|report| report.counts.requests),
        total(|report| report.counts.failed),
        total(|report| report.counts.flushes),
    );
}
