//! Who is measured, and one run of one of them.

use crate::Scene;
use crate::cluster::POOL;
use crate::cpu::CpuClock;
use crate::daemon::Daemon;
use crate::driver::{Driver, Settings};
use crate::fio::Fio;
use crate::rbd::USER;
use crate::workload::{self, Load, Waiting, Workload};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What one run gave.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) iops: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// User and system time of the whole process, for each request.
    pub(crate) cpu_us: f64,
}

/// Something that runs workloads on a device of its own.
pub(crate) enum Contestant<'a> {
    /// A vhost-user server, under our driver.
    Server {
        socket: &'a Path,
        pid: u32,
    },
    Fio(&'a Fio<'a>),
}

impl Contestant<'_> {
    pub(crate) fn run(&self, workload: Workload, duration: Duration) -> io::Result<Figures> {
        match self {
            Self::Server { socket, pid } => run_server(socket, *pid, workload, duration),
            Self::Fio(fio) => fio.run(workload, duration),
        }
    }
}

fn run_server(socket: &Path, pid: u32, workload: Workload, duration: Duration) -> io::Result<Figures> {
    let slots = Settings { slots: workload.depth, slot_bytes: workload.block_bytes, ..Settings::default() };
    let mut driver = Driver::connect(socket, slots)?;
    let load = Load { span: workload.within_bytes, duration, waiting: Waiting::Sleep };
    let clock = CpuClock::of_process(pid)?;
    let (start, before) = (Instant::now(), clock.now()?);
    let outcome = workload::run(&mut driver.queues, workload, load)?;
    let (elapsed, cpu) = (start.elapsed(), clock.now()? - before);
    Ok(Figures {
        iops: outcome.requests as f64 / elapsed.as_secs_f64(),
        p50_us: outcome.latency.quantile_us(0.5),
        p99_us: outcome.latency.quantile_us(0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / outcome.requests as f64,
    })
}

/// Our daemon, with its store in a namespace of the pool that the images are in.
pub(crate) fn start_ours(scene: &Scene<'_>) -> io::Result<Daemon> {
    let mut command = Command::new(&scene.options.program);
    command.arg("--store").arg(format!("rados:{POOL}/bench"));
    command.arg("--ceph-conf").arg(&scene.cluster.conf).args(["--ceph-user", USER.id()]);
    if let Some(connections) = scene.options.connections {
        command.args(["--ceph-connections", &connections.to_string()]);
    }
    Daemon::serve(command, scene.dir, None)
}
