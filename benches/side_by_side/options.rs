//! The command line of the side-by-side benchmark, and its defaults.

use crate::peers::Kind;
use clap::Parser;
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "side_by_side", about = "Measures archvhost beside another vhost-user-blk server, round by round")]
pub(crate) struct Options {
    /// What is measured: archvhost, archvhost=PATH or qsd
    #[arg(long, default_value = "archvhost")]
    pub(crate) subject: Kind,
    /// What it is compared with
    #[arg(long, default_value = "qsd")]
    pub(crate) peer: Kind,
    /// Compare the peer with itself: every ratio should be near 1
    #[arg(long)]
    pub(crate) self_check: bool,
    /// Only workloads whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    pub(crate) workloads: Vec<String>,
    /// Print the names of the workloads
    #[arg(long)]
    pub(crate) list: bool,
    /// Rounds of each workload; in each, both servers run it once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Length of one run
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Where the data goes (default: the target directory); a file system on the disk to be measured
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Size of the data of the file workloads, in MiB
    #[arg(long, default_value_t = 1024)]
    pub(crate) data_mib: u64,
    /// Poll for completions instead of sleeping until the interrupt, as a guest does
    #[arg(long)]
    pub(crate) poll: bool,
    /// Pin the servers to one CPU and the driver to another
    #[arg(long, value_name = "SERVER,DRIVER")]
    pub(crate) pin: Option<Pins>,
    /// Write everything that was measured into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn run_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn subject(&self) -> &Kind {
        if self.self_check { &self.peer } else { &self.subject }
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_mib << 20
    }

    pub(crate) fn wants(&self, workload: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|part| workload.contains(part.as_str()))
    }
}

/// The CPUs that servers and driver stay on.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Pins {
    pub(crate) server: u16,
    pub(crate) driver: u16,
}

impl FromStr for Pins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cpu = |text: &str| text.parse().map_err(|_| format!("{text:?} is not the number of a CPU"));
        let (server, driver) = text.split_once(',').ok_or("two CPUs, like 0,1")?;
        Ok(Pins { server: cpu(server)?, driver: cpu(driver)? })
    }
}
