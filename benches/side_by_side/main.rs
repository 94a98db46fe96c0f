//! archvhost beside another vhost-user-blk server, on the same disk, under the same independent driver. Called by
//! `integration/bench` and `cargo bench --bench side_by_side`; docs/benchmarks.md says what is measured and how to read it.
//!
//! ```text
//! options ── which workloads, how long
//! compare ── starts a pair of servers (peers), fills their volumes (fill), lets them take turns (workload over driver)
//! report  ── the table and the JSON
//! ```
#![allow(clippy::cast_precision_loss, reason = "counts become figures with three digits")]

mod compare;
mod cpu;
#[path = "../../tests/support/driver/mod.rs"]
mod driver;
mod fill;
mod histogram;
mod options;
mod peers;
mod report;
mod workload;

use clap::Parser;
use compare::Pair;
use options::Options;
use report::Report;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use workload::{Fixture, WORKLOADS, Workload};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        WORKLOADS.iter().for_each(|workload| println!("{}", workload.name));
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    pin_driver(options)?;
    let parent = options.dir.as_deref().unwrap_or(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in(parent)?;
    println!("conditions: {}", report::conditions(options));
    let mut report = Report::default();
    for fixture in [Fixture::File, Fixture::Null, Fixture::Idle] {
        let chosen: Vec<Workload> =
            WORKLOADS.into_iter().filter(|w| w.fixture == fixture && options.wants(w.name)).collect();
        if !chosen.is_empty() {
            measure_fixture(options, fixture, &chosen, dir.path(), &mut report);
        }
    }
    println!("{}", report.table(options));
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json(options)))?;
    }
    if report.failures > 0 { Err(io::Error::other(format!("{} rows failed", report.failures))) } else { Ok(()) }
}

/// Measures the rows of one fixture. A row that fails is told at once and counted, and the others go on.
fn measure_fixture(options: &Options, fixture: Fixture, rows: &[Workload], dir: &Path, report: &mut Report) {
    let pair = match Pair::start(options, fixture, dir) {
        Ok(pair) => pair,
        Err(error) => {
            eprintln!("{fixture:?}: {error}");
            report.failures += rows.len();
            return;
        }
    };
    for row in rows {
        eprintln!("{} …", row.name);
        let measured = match fixture {
            Fixture::Idle => pair.compare_idle(*row).map(|idle| report.idle.push(idle)),
            Fixture::File | Fixture::Null => pair.compare(*row, options).map(|row| report.comparisons.push(row)),
        };
        if let Err(error) = measured {
            eprintln!("{}: {error}", row.name);
            report.failures += 1;
        }
    }
}

/// This thread's CPU is inherited by the threads that it starts.
fn pin_driver(options: &Options) -> io::Result<()> {
    let Some(pins) = options.pin else { return Ok(()) };
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(usize::from(pins.driver));
    Ok(rustix::thread::sched_setaffinity(None, &cpus)?)
}
