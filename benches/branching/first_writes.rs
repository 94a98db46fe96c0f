//! What writing costs after a snapshot of a fully written volume: in the first moment, when every write meets something shared,
//! and later, when everything has been written again. Copy-up in granules of several sizes, one of them a whole object, and the
//! peer, take turns in each round.

use crate::Options;
use crate::daemon::Daemon;
use crate::figures::Spread;
use crate::fill::{Stripes, fill};
use crate::load::{Direction, Load, Order, PAGE, Shape};
use crate::qcow2::Images;
use archvhost::units::ByteSize;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SHAPE: Shape = Shape { queues: 1, depth: 32, direction: Direction::Write };

/// IOPS of one round.
#[derive(Clone, Copy, Serialize)]
struct Figures {
    before: f64,
    first: f64,
    steady: f64,
}

/// Something that is measured.
enum Subject {
    Granule { size: ByteSize, dir: PathBuf },
    Peer(Images),
}

pub(crate) fn measure(options: &Options, dir: &Path) -> io::Result<Value> {
    let mut subjects: Vec<(String, Subject)> = Vec::new();
    for size in &options.granules {
        let dir = dir.join(format!("granule-{}", size.0));
        fs::create_dir(&dir)?;
        subjects.push((format!("archvhost, granules of {size}"), Subject::Granule { size: *size, dir }));
    }
    let peer = Images::make(&dir.join("peer"), options.data_bytes())?;
    subjects.push(("qemu-storage-daemon, qcow2 over qcow2".to_owned(), Subject::Peer(peer)));

    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        order.rotate_left(round % subjects.len());
        for index in order {
            eprintln!("round {round}: {} …", subjects[index].0);
            rounds[index].push(subjects[index].1.measure(options, round)?);
        }
    }
    let names: Vec<&str> = subjects.iter().map(|(name, _)| name.as_str()).collect();
    print_table(&names, &rounds);
    Ok(names.iter().zip(&rounds).map(|(name, rounds)| json!({ "subject": name, "rounds": rounds })).collect())
}

impl Subject {
    fn measure(&self, options: &Options, round: usize) -> io::Result<Figures> {
        match self {
            Subject::Granule { size, dir } => measure_granule(options, *size, dir, round),
            Subject::Peer(images) => measure_peer(options, images),
        }
    }
}

fn measure_granule(options: &Options, size: ByteSize, dir: &Path, round: usize) -> io::Result<Figures> {
    let mut daemon = Daemon::start(&options.program, dir, Some(size))?;
    let name = format!("disk{round}");
    daemon.create(&name, options.data_bytes())?;
    let (socket, _) = daemon.attach(&name, SHAPE.queues)?;
    fill(&socket, all(options))?;
    let mut load = Load::connect(&socket, SHAPE)?;
    let before = run(&mut load, options, random(options))?;
    daemon.snapshot(&name, &format!("snap{round}"))?;
    let first = run(&mut load, options, random(options))?;
    drop(load);
    fill(&socket, all(options))?;
    let steady = run(&mut Load::connect(&socket, SHAPE)?, options, random(options))?;
    daemon.detach(&name)?;
    daemon.remove(&format!("snap{round}"))?;
    daemon.remove(&name)?;
    daemon.call("gc", &json!({}))?;
    Ok(Figures { before, first, steady })
}

fn measure_peer(options: &Options, images: &Images) -> io::Result<Figures> {
    let peer = images.serve(&images.base())?;
    let before = run(&mut Load::connect(&peer.socket, SHAPE)?, options, random(options))?;
    drop(peer);
    let top = images.snapshot()?;
    let peer = images.serve(&top)?;
    let first = run(&mut Load::connect(&peer.socket, SHAPE)?, options, random(options))?;
    fill(&peer.socket, all(options))?;
    let steady = run(&mut Load::connect(&peer.socket, SHAPE)?, options, random(options))?;
    Ok(Figures { before, first, steady })
}

fn run(load: &mut Load, options: &Options, order: Order) -> io::Result<f64> {
    Ok(load.run(order, Duration::from_secs_f64(options.seconds))?.iops())
}

fn random(options: &Options) -> Order {
    Order::Random { pages: options.data_bytes() / PAGE }
}

fn all(options: &Options) -> Stripes {
    Stripes { span: options.data_bytes(), step: 128 << 10, len: 128 << 10 }
}

fn print_table(names: &[&str], rounds: &[Vec<Figures>]) {
    println!("\nrandom 4 KiB writes, depth 32: IOPS as median (smallest–largest); ratios of the same round");
    println!("| | before the snapshot | right after it | all written again | that, to before |");
    println!("|---|---|---|---|---|");
    for (name, rounds) in names.iter().zip(rounds) {
        let of = |figure: fn(&Figures) -> f64| Spread::of(rounds.iter().map(figure));
        println!(
            "| {name} | {} | {} | {} | {} |",
            of(|f| f.before),
            of(|f| f.first),
            of(|f| f.steady),
            of(|f| f.steady / f.before)
        );
    }
    println!("\nfirst writes, ratio of the same round");
    let Some(ours) = rounds.first() else { return };
    for (name, theirs) in names.iter().zip(rounds).skip(1) {
        let ratio = Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.first / theirs.first));
        println!("- {} : {name} = {ratio}", names[0]);
    }
}
