//! Runs each workload against both servers, alternating: subject, peer, peer, subject, … so that a slow drift of the machine
//! falls on both. Both servers live all the time; only one is loaded.

use crate::cpu::CpuClock;
use crate::driver::{Driver, Settings};
use crate::fill::{Stripes, fill};
use crate::options::Options;
use crate::peers::{NULL_BYTES, Server, Service};
use crate::report::{Comparison, Figures, Idle, Round};
use crate::workload::{self, Fixture, Load, Waiting, Workload};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The two servers of a fixture, with their data.
pub(crate) struct Pair {
    subject: Server,
    peer: Server,
    span: u64,
}

/// Size of the objects that one stripe each is written to in a null volume, so that its map has an entry for every block.
const NULL_STEP: u64 = 4 << 20;

impl Pair {
    pub(crate) fn start(options: &Options, fixture: Fixture, dir: &Path) -> io::Result<Pair> {
        let service = Service { fixture, data_bytes: options.data_bytes(), pins: options.pin };
        let subject = Server::start(options.subject(), service, &dir.join(format!("{fixture:?}-subject")))?;
        let peer = Server::start(&options.peer, service, &dir.join(format!("{fixture:?}-peer")))?;
        let stripes = match fixture {
            Fixture::File => Some(Stripes { span: service.data_bytes, step: 128 << 10, len: 128 << 10 }),
            Fixture::Null => Some(Stripes { span: NULL_BYTES, step: NULL_STEP, len: 4096 }),
            Fixture::Idle => None,
        };
        for server in [&subject, &peer] {
            stripes.map_or(Ok(()), |stripes| fill(&server.sockets[0], stripes))?;
        }
        Ok(Pair { subject, peer, span: stripes.map_or(0, |stripes| stripes.span) })
    }

    /// Runs one workload for all its rounds.
    pub(crate) fn compare(&self, workload: Workload, options: &Options) -> io::Result<Comparison> {
        let waiting = if options.poll { Waiting::Poll } else { Waiting::Sleep };
        let load = Load { span: self.span.min(workload.within_bytes), duration: options.run_time(), waiting };
        let mut subject = Loaded::connect(&self.subject, workload)?;
        let mut peer = Loaded::connect(&self.peer, workload)?;
        let warm_up = Load { duration: load.duration.min(Duration::from_millis(500)), ..load };
        subject.run(workload, warm_up)?;
        peer.run(workload, warm_up)?;

        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            let (first, second) = if round % 2 == 0 { (&mut subject, &mut peer) } else { (&mut peer, &mut subject) };
            let (first, second) = (first.run(workload, load)?, second.run(workload, load)?);
            let (subject, peer) = if round % 2 == 0 { (first, second) } else { (second, first) };
            rounds.push(Round { subject, peer });
        }
        Ok(Comparison { workload: workload.name, rounds })
    }

    /// The CPU time that both servers take while every volume is connected and nobody asks for anything.
    pub(crate) fn compare_idle(&self, workload: Workload) -> io::Result<Idle> {
        Ok(Idle { workload: workload.name, subject: idle_cpu(&self.subject)?, peer: idle_cpu(&self.peer)? })
    }
}

/// A connected server.
struct Loaded {
    driver: Driver,
    cpu: CpuClock,
}

impl Loaded {
    fn connect(server: &Server, workload: Workload) -> io::Result<Loaded> {
        let settings = Settings {
            queues: workload.queues,
            slots: workload.depth,
            slot_bytes: workload.block_bytes,
            ..Settings::default()
        };
        Ok(Loaded { driver: Driver::connect(&server.sockets[0], settings)?, cpu: server.cpu()? })
    }

    fn run(&mut self, workload: Workload, load: Load) -> io::Result<Figures> {
        let clocks = [self.cpu, CpuClock::of_self()];
        let (start, before) = (Instant::now(), [clocks[0].now()?, clocks[1].now()?]);
        let outcome = workload::run(&mut self.driver.queues, workload, load)?;
        let elapsed = start.elapsed();
        let per_request =
            |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / outcome.requests as f64;
        Ok(Figures {
            iops: outcome.requests as f64 / elapsed.as_secs_f64(),
            p50_us: outcome.latency.quantile_us(0.5),
            p99_us: outcome.latency.quantile_us(0.99),
            server_cpu_us: per_request(clocks[0].now()?, before[0]),
            driver_cpu_us: per_request(clocks[1].now()?, before[1]),
        })
    }
}

const IDLE_TIME: Duration = Duration::from_secs(10);

fn idle_cpu(server: &Server) -> io::Result<Duration> {
    let drivers: Vec<Driver> = server
        .sockets
        .iter()
        .map(|socket| {
            let mut driver = Driver::connect(socket, Settings::default())?;
            driver.queues[0].execute(crate::driver::Request::Read { offset: 0, len: 4096 })?;
            Ok(driver)
        })
        .collect::<io::Result<_>>()?;
    // Whatever polls after work has stopped polling by then.
    thread::sleep(Duration::from_secs(1));
    let before = server.cpu()?.now()?;
    thread::sleep(IDLE_TIME);
    let after = server.cpu()?.now()?;
    drop(drivers);
    Ok(after - before)
}
