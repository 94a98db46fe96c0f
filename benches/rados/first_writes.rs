//! What writing costs when all is shared: ours right after a snapshot of a fully written volume, the peers' to a fresh clone of a
//! protected snapshot of a fully written image. In each round everybody takes a turn, and the order rotates.

use crate::Scene;
use crate::contestants::{Contestant, start_ours};
use crate::daemon::Daemon;
use crate::figures::Spread;
use crate::fill::{Stripes, fill};
use crate::fio::Fio;
use crate::qsd::Qsd;
use crate::rbd::{Rbd, SETTLE};
use crate::workload::{Fixture, Pattern, Workload};
use serde::Serialize;
use serde_json::{Value, json};
use std::io;
use std::thread;
use std::time::Duration;

const NAMES: [&str; 3] = ["archvhost", "fio rbd", "qsd rbd"];
const BASE: &str = "writes-base";
const SNAPSHOT: &str = "snap";

/// IOPS of one round.
#[derive(Clone, Copy, Serialize)]
struct Figures {
    before: f64,
    first: f64,
}

pub(crate) fn measure(scene: &Scene<'_>) -> io::Result<Value> {
    let bytes = scene.options.data_bytes();
    let rbd = Rbd::new(scene.cluster, scene.dir)?;
    // What is written before a snapshot goes to an image of its own, so that the snapshot is always the same.
    ["writes-before", BASE].into_iter().try_for_each(|image| rbd.make(image, bytes))?;
    rbd.snapshot(BASE, SNAPSHOT)?;
    let mut daemon = start_ours(scene)?;
    let mut rounds = [const { Vec::new() }; 3];
    for round in 0..scene.options.rounds {
        eprintln!("first writes: round {round} …");
        for turn in 0..3 {
            let index = (round + turn) % 3;
            rounds[index].push(match index {
                0 => measure_ours(scene, &mut daemon, round)?,
                1 => measure_fio(scene, &rbd)?,
                _ => measure_qsd(scene, &rbd)?,
            });
        }
    }
    print_table(&rounds);
    Ok(NAMES.iter().zip(&rounds).map(|(name, rounds)| json!({ "contestant": name, "rounds": rounds })).collect())
}

fn measure_ours(scene: &Scene<'_>, daemon: &mut Daemon, round: usize) -> io::Result<Figures> {
    let (bytes, name, snapshot) = (scene.options.data_bytes(), format!("writes{round}"), format!("snap{round}"));
    daemon.create(&name, bytes)?;
    let (socket, _) = daemon.attach(&name, 1)?;
    fill(&socket, Stripes { span: bytes, step: 128 << 10, len: 128 << 10 })?;
    let contestant = Contestant::Server { socket: &socket, pid: daemon.pid() };
    let before = iops(scene, &contestant, scene.options.run_time())?;
    daemon.snapshot(&name, &snapshot)?;
    let first = iops(scene, &contestant, scene.options.first_time())?;
    daemon.detach(&name)?;
    daemon.remove(&snapshot)?;
    daemon.remove(&name)?;
    daemon.call("gc", &json!({}))?;
    Ok(Figures { before, first })
}

fn measure_fio(scene: &Scene<'_>, rbd: &Rbd) -> io::Result<Figures> {
    let before = iops(scene, &Contestant::Fio(&Fio::new(rbd, "writes-before")?), scene.options.run_time())?;
    on_a_clone(rbd, "writes-fio", before, |clone| {
        iops(scene, &Contestant::Fio(&Fio::new(rbd, clone)?), scene.options.first_time())
    })
}

fn measure_qsd(scene: &Scene<'_>, rbd: &Rbd) -> io::Result<Figures> {
    let run = |image: &str, duration| {
        let qsd = Qsd::start(rbd, image, scene.dir)?;
        iops(scene, &Contestant::Server { socket: &qsd.socket, pid: qsd.pid() }, duration)
    };
    let before = run("writes-before", scene.options.run_time())?;
    on_a_clone(rbd, "writes-qsd", before, |clone| run(clone, scene.options.first_time()))
}

fn on_a_clone(rbd: &Rbd, name: &str, before: f64, run: impl Fn(&str) -> io::Result<f64>) -> io::Result<Figures> {
    rbd.clone(BASE, SNAPSHOT, name)?;
    let first = run(name)?;
    thread::sleep(SETTLE);
    rbd.remove(name)?;
    Ok(Figures { before, first })
}

fn iops(scene: &Scene<'_>, contestant: &Contestant<'_>, duration: Duration) -> io::Result<f64> {
    let workload = Workload {
        name: "writes",
        fixture: Fixture::File,
        pattern: Pattern::RandomWrite,
        block_bytes: 4096,
        depth: 32,
        queues: 1,
        within_bytes: scene.options.data_bytes(),
    };
    Ok(contestant.run(workload, duration)?.iops)
}

fn print_table(rounds: &[Vec<Figures>; 3]) {
    println!("\nrandom 4 KiB writes, depth 32: IOPS as median (smallest–largest); ratios of the same round");
    println!("| | nothing shared | all shared | first writes, archvhost to this |");
    println!("|---|---|---|---|");
    for (name, theirs) in NAMES.iter().zip(rounds) {
        let of = |figure: fn(&Figures) -> f64| Spread::of(theirs.iter().map(figure));
        let ratio = Spread::of(rounds[0].iter().zip(theirs).map(|(ours, theirs)| ours.first / theirs.first));
        println!("| {name} | {} | {} | {ratio} |", of(|f| f.before), of(|f| f.first));
    }
}
