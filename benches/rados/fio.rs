//! fio with its engine `rbd`: driver and client in one process, which is started for each run.
//!
//! The CPU time is that of the whole process, and so includes what fio itself does for a request. What it takes to start and to open the
//! image is measured by a run of a single request, and subtracted.

use crate::cluster::POOL;
use crate::contestants::Figures;
use crate::cpu::CpuClock;
use crate::rbd::{Rbd, USER};
use crate::workload::{Pattern, Workload};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One image in the hands of fio.
pub(crate) struct Fio<'a> {
    rbd: &'a Rbd,
    image: String,
    start: Duration,
}

impl<'a> Fio<'a> {
    pub(crate) fn new(rbd: &'a Rbd, image: &str) -> io::Result<Self> {
        let image = image.to_owned();
        let mut start = Duration::MAX;
        for _ in 0..3 {
            let mut command = command(rbd, &image, "randread", 4096, 1);
            command.arg("--number_ios=1");
            start = start.min(finish(command)?.0);
        }
        Ok(Self { rbd, image, start })
    }

    pub(crate) fn run(&self, workload: Workload, duration: Duration) -> io::Result<Figures> {
        run(self.rbd, &self.image, workload, duration, self.start)
    }
}

fn run(rbd: &Rbd, image: &str, workload: Workload, duration: Duration, start: Duration) -> io::Result<Figures> {
    let mut command = command(rbd, image, direction(workload), workload.block_bytes, workload.depth);
    command.arg(format!("--runtime={}ms", duration.as_millis())).arg("--time_based");
    let (cpu, report) = finish(command)?;
    let job = &report["jobs"][0];
    let done = if matches!(workload.pattern, Pattern::RandomRead | Pattern::SequentialRead) { "read" } else { "write" };
    let number = |value: &Value| value.as_f64().ok_or_else(|| io::Error::other("fio's report has other fields"));
    let percentiles = &job[done]["clat_ns"]["percentile"];
    Ok(Figures {
        iops: number(&job[done]["iops"])?,
        p50_us: number(&percentiles["50.000000"])? / 1000.0,
        p99_us: number(&percentiles["99.000000"])? / 1000.0,
        cpu_us: cpu.saturating_sub(start).as_secs_f64() * 1e6 / number(&job[done]["total_ios"])?,
    })
}

/// Writes the image from its start to its end.
pub(crate) fn write_all(rbd: &Rbd, image: &str, workload: Workload) -> io::Result<()> {
    finish(command(rbd, image, direction(workload), workload.block_bytes, workload.depth)).map(drop)
}

fn direction(workload: Workload) -> &'static str {
    match workload.pattern {
        Pattern::RandomRead => "randread",
        Pattern::SequentialRead => "read",
        Pattern::SequentialWrite => "write",
        Pattern::RandomWrite | Pattern::RandomWriteFlush | Pattern::Nothing => "randwrite",
    }
}

/// Random places are chosen as ours are: a block may come twice. A thread, so that all of fio is one process.
fn command(rbd: &Rbd, image: &str, direction: &str, block_bytes: usize, depth: u16) -> Command {
    let mut command = Command::new("fio");
    command.env("CEPH_CONF", &rbd.conf);
    command.args([
        "--name=bench",
        "--ioengine=rbd",
        "--thread",
        "--output-format=json",
        "--norandommap",
        "--randrepeat=0",
    ]);
    command.arg(format!("--clientname={}", USER.id())).arg(format!("--pool={POOL}")).arg(format!("--rbdname={image}"));
    command.arg(format!("--rw={direction}")).arg(format!("--bs={block_bytes}")).arg(format!("--iodepth={depth}"));
    command
}

/// Runs it to its end: the CPU time that the process took, and its report.
fn finish(mut command: Command) -> io::Result<(Duration, Value)> {
    let errors = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.try_clone()?);
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("cannot start fio: {error}")))?;
    let mut text = String::new();
    if let Some(output) = &mut child.stdout {
        output.read_to_string(&mut text)?;
    }
    let cpu = cpu_at_the_end(&mut child)?;
    let status = child.wait()?;
    // Warnings may come before it.
    let report = text.find('{').and_then(|start| serde_json::from_str::<Value>(&text[start..]).ok());
    match report {
        Some(report) if status.success() => Ok((cpu, report)),
        _ => Err(io::Error::other(format!("{command:?}: {status}\n{text}{}", all_of(errors)?))),
    }
}

/// Waits for the child's end without forgetting it, so that its clock can still be read.
fn cpu_at_the_end(child: &mut Child) -> io::Result<Duration> {
    waitid(WaitId::Pid(Pid::from_child(child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    CpuClock::of_process(child.id())?.now()
}

fn all_of(mut file: File) -> io::Result<String> {
    let mut text = String::new();
    io::Seek::rewind(&mut file)?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
