//! What branching costs a guest: how long a snapshot stops it, what the first writes after one cost, what reading through many
//! generations of clones costs, and how long huge maps take to open and clone. Called by `integration/bench branching` and
//! `cargo bench --bench branching`; docs/benchmarks.md says what is measured and how to read it.
//!
//! ```text
//! pause ─────── snapshots under load, of a small, a huge full and a huge sparse volume (synthetic)
//! first_writes ─ after a snapshot: in granules of several sizes, in whole objects, and by qemu-storage-daemon on qcow2 (qcow2)
//! depth ─────── random reads of the last of a chain of clones
//!      all of them over load, which drives the sockets of daemon and qcow2
//! ```
#![allow(clippy::cast_precision_loss, reason = "counts become figures with three digits")]

mod child;
mod daemon;
mod depth;
#[path = "../../tests/support/driver/mod.rs"]
mod driver;
mod figures;
#[path = "../side_by_side/fill.rs"]
mod fill;
mod first_writes;
mod load;
mod pause;
mod qcow2;
mod synthetic;

use archvhost::units::ByteSize;
use clap::Parser;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "branching", about = "Measures what snapshots and clones cost a guest")]
pub(crate) struct Options {
    /// Only parts whose name contains one of these: pause, writes, depth
    #[arg(long, value_delimiter = ',')]
    parts: Vec<String>,
    /// Snapshots of each volume in the part `pause`
    #[arg(long, default_value_t = 200)]
    pub(crate) snapshots: usize,
    /// Rounds of the parts `writes` and `depth`
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Length of one measurement
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Granules that are compared in the part `writes`
    #[arg(long, value_delimiter = ',', default_value = "4KiB,16KiB,64KiB,4MiB")]
    pub(crate) granules: Vec<ByteSize>,
    /// Generations of clones that are compared in the part `depth`
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    pub(crate) depths: Vec<usize>,
    /// Size of the data, in MiB
    #[arg(long, default_value_t = 1024)]
    pub(crate) data_mib: u64,
    /// Where the data goes (default: the target directory); a file system on the disk to be measured
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The archvhost program to measure (default: the one built with this benchmark)
    #[arg(long, default_value = env!("CARGO_BIN_EXE_archvhost"))]
    pub(crate) program: PathBuf,
    /// Write everything that was measured into this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| part.contains(wanted.as_str()))
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_mib << 20
    }
}

type Part = fn(&Options, &Path) -> io::Result<Value>;

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("branching: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let parent = options.dir.as_deref().unwrap_or(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let parts: [(&str, Part); 3] =
        [("pause", pause::measure), ("writes", first_writes::measure), ("depth", depth::measure)];
    let mut report = serde_json::Map::new();
    report.insert("conditions".into(), conditions(options));
    println!("conditions: {}", report["conditions"]);
    for (name, part) in parts.into_iter().filter(|(name, _)| options.wants(name)) {
        // A directory for each, so that the disk needs room for one at a time.
        let dir = tempfile::Builder::new().prefix("branching").tempdir_in(parent)?;
        report.insert(name.into(), part(options, dir.path())?);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", Value::Object(report)))?;
    }
    Ok(())
}

/// What a reader must know to compare these figures with others.
fn conditions(options: &Options) -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus_online": read("/sys/devices/system/cpu/online"),
        "load_average": read("/proc/loadavg"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "snapshots": options.snapshots,
        "data_mib": options.data_mib,
    })
}
