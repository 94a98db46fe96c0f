//! The command line of the RADOS benchmark, and its defaults.

use clap::Parser;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "rados", about = "Measures archvhost beside RBD on a Ceph cluster of its own")]
pub(crate) struct Options {
    /// Only parts whose name contains one of these: rows, writes, branching
    #[arg(long, value_delimiter = ',')]
    parts: Vec<String>,
    /// Only rows whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Rounds; in each, everybody takes a turn
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Length of one run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long after a snapshot writes count as the first
    #[arg(long, default_value_t = 1.0)]
    first_seconds: f64,
    /// Snapshots and clones that are timed
    #[arg(long, default_value_t = 20)]
    pub(crate) snapshots: usize,
    /// Size of each volume and image, in MiB
    #[arg(long, default_value_t = 512)]
    data_mib: u64,
    /// Connections to the cluster that our daemon uses (default: its own)
    #[arg(long)]
    pub(crate) connections: Option<u32>,
    /// The archvhost program to measure (default: the one built with this benchmark)
    #[arg(long, default_value = env!("CARGO_BIN_EXE_archvhost"))]
    pub(crate) program: PathBuf,
    /// Write everything that was measured into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn wants(&self, part: &str) -> bool {
        is_chosen(&self.parts, part)
    }

    pub(crate) fn wants_row(&self, row: &str) -> bool {
        is_chosen(&self.workloads, row)
    }

    pub(crate) fn run_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn first_time(&self) -> Duration {
        Duration::from_secs_f64(self.first_seconds)
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_mib << 20
    }

    /// What a reader must know to compare these figures with others.
    pub(crate) fn conditions(&self) -> Value {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        json!({
            "kernel": read("/proc/sys/kernel/osrelease"),
            "cpus_online": read("/sys/devices/system/cpu/online"),
            "load_average": read("/proc/loadavg"),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "first_seconds": self.first_seconds,
            "data_mib": self.data_mib,
            "connections": self.connections,
        })
    }
}

fn is_chosen(chosen: &[String], name: &str) -> bool {
    chosen.is_empty() || chosen.iter().any(|part| name.contains(part.as_str()))
}
