//! The peers' images, made with the program `rbd`. Features are those that `rbd create` gives: exclusive lock and object map among
//! them.

use crate::child::run;
use crate::cluster::{Cluster, POOL, User};
use crate::fio;
use crate::workload::{Pattern, Workload};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The user that archvhost is, too.
pub(crate) const USER: User = User::Archvhost;

/// How the peers reach the cluster: as everybody, but without librbd's cache, which costs them CPU and completes writes that no
/// OSD has yet.
pub(crate) struct Rbd {
    pub(crate) conf: PathBuf,
}

impl Rbd {
    pub(crate) fn new(cluster: &Cluster, dir: &Path) -> io::Result<Self> {
        let conf = dir.join("rbd.conf");
        let common = fs::read_to_string(&cluster.conf)?;
        fs::write(&conf, format!("{common}\n[client]\nrbd_cache = false\n"))?;
        Ok(Self { conf })
    }

    /// An image, fully written.
    pub(crate) fn make(&self, image: &str, bytes: u64) -> io::Result<()> {
        self.run(&["create", image, "--size", &format!("{bytes}B")])?;
        let fill = Workload {
            name: "fill",
            fixture: crate::workload::Fixture::File,
            pattern: Pattern::SequentialWrite,
            block_bytes: 4 << 20,
            depth: 4,
            queues: 1,
            within_bytes: bytes,
        };
        fio::write_all(self, image, fill)
    }

    /// A snapshot that clones may be made of.
    pub(crate) fn snapshot(&self, image: &str, snapshot: &str) -> io::Result<()> {
        let name = format!("{image}@{snapshot}");
        self.run(&["snap", "create", "--no-progress", &name])?;
        self.run(&["snap", "protect", &name])
    }

    pub(crate) fn clone(&self, image: &str, snapshot: &str, name: &str) -> io::Result<()> {
        // The option --pool is for the source only.
        self.run(&["clone", &format!("{image}@{snapshot}"), &format!("{POOL}/{name}")])
    }

    pub(crate) fn remove(&self, image: &str) -> io::Result<()> {
        self.run(&["remove", "--no-progress", image])
    }

    fn run(&self, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new("rbd");
        command.arg("--conf").arg(&self.conf).args(["--id", USER.id(), "--pool", POOL]).args(arguments);
        run(&mut command)
    }
}

/// Until nobody's watch is left, an image that was in use cannot be removed; a client that ended in order leaves none.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);
