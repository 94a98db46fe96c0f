//! archvhost on a Ceph cluster beside RBD on the same cluster: random and sequential requests, the first writes after a snapshot,
//! and how long snapshots and clones take. Called by `integration/bench rados` and `cargo bench --bench rados`;
//! docs/benchmarks.md says what is measured and how to read it.
//!
//! ```text
//! rows ───────── IOPS and CPU of the workloads, round by round
//! first_writes ─ after a snapshot of a written volume, and to a fresh clone of a written image
//! branching ──── the two commands through the control socket
//!      all of them over contestants: ours and qsd (driver, workload), fio (a program of its own); rbd makes the peers' images
//! ```
#![allow(clippy::cast_precision_loss, reason = "counts become figures with three digits")]

mod branching;
#[path = "../branching/child.rs"]
mod child;
#[path = "../../tests/support/cluster/mod.rs"]
mod cluster;
mod contestants;
#[path = "../side_by_side/cpu.rs"]
#[allow(dead_code, reason = "the driver's own CPU is not asked for here")]
mod cpu;
#[path = "../branching/daemon.rs"]
#[allow(dead_code, reason = "stores in files are of the other benchmark")]
mod daemon;
#[path = "../../tests/support/driver/mod.rs"]
mod driver;
#[path = "../branching/figures.rs"]
mod figures;
#[path = "../side_by_side/fill.rs"]
mod fill;
mod fio;
mod first_writes;
#[path = "../side_by_side/histogram.rs"]
mod histogram;
mod options;
mod qsd;
mod rbd;
mod rows;
#[path = "../side_by_side/workload.rs"]
#[allow(dead_code, reason = "the rows here are others")]
mod workload;

use clap::Parser;
use cluster::Cluster;
use options::Options;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What every part works with.
pub(crate) struct Scene<'a> {
    pub(crate) options: &'a Options,
    pub(crate) cluster: &'a Cluster,
    /// For sockets, logs and configuration files.
    pub(crate) dir: &'a Path,
}

type Part = fn(&Scene<'_>) -> io::Result<Value>;

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rados: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let cluster = cluster::own().ok_or_else(|| io::Error::other("there is no Ceph here"))?;
    let dir = tempfile::Builder::new().prefix("rados").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let scene = Scene { options, cluster: &cluster, dir: dir.path() };
    let parts: [(&str, Part); 3] =
        [("rows", rows::measure), ("writes", first_writes::measure), ("branching", branching::measure)];
    let mut report = serde_json::Map::new();
    report.insert("conditions".into(), options.conditions());
    println!("conditions: {}", report["conditions"]);
    for (name, part) in parts.into_iter().filter(|(name, _)| options.wants(name)) {
        report.insert(name.into(), part(&scene)?);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", Value::Object(report)))?;
    }
    Ok(())
}
