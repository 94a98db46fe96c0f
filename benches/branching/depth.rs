//! Random reads of the last of a chain of clones: a snapshot, a clone of it, a bit written to the clone, a snapshot of that … The
//! ends of shorter chains of the same store take turns with it.

use crate::Options;
use crate::daemon::Daemon;
use crate::figures::Spread;
use crate::fill::{Stripes, fill};
use crate::load::{Direction, Load, Order, PAGE, Shape};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const READS: Shape = Shape { queues: 1, depth: 32, direction: Direction::Read };
const WRITES: Shape = Shape { queues: 1, depth: 32, direction: Direction::Write };
/// Pages written to each clone, scattered: in a chain of a thousand, one page in eight of 1 GiB.
const PAGES_EACH: u64 = 32;

pub(crate) fn measure(options: &Options, dir: &Path) -> io::Result<Value> {
    let mut daemon = Daemon::start(&options.program, dir, None)?;
    let ends = make_chain(&mut daemon, options)?;
    let mut loads = Vec::new();
    for (depth, socket) in &ends {
        loads.push((*depth, Load::connect(socket, READS)?, Vec::new()));
    }
    let order = Order::Random { pages: options.data_bytes() / PAGE };
    for round in 0..options.rounds {
        let count = loads.len();
        for turn in 0..count {
            let (_, load, iops) = &mut loads[(round + turn) % count];
            iops.push(load.run(order, Duration::from_secs_f64(options.seconds))?.iops());
        }
    }
    println!("\nrandom 4 KiB reads, depth 32, of a clone of a clone of …: IOPS as median (smallest–largest)");
    println!("| generations | IOPS | ratio to the first, of the same round |");
    println!("|---|---|---|");
    let first = loads[0].2.clone();
    for (depth, _, iops) in &loads {
        let ratio = Spread::of(iops.iter().zip(&first).map(|(iops, first)| iops / first));
        println!("| {depth} | {} | {ratio} |", Spread::of(iops.iter().copied()));
    }
    Ok(loads.iter().map(|(depth, _, iops)| json!({ "generations": depth, "iops": iops })).collect())
}

/// The clones at the depths that are asked for, attached.
fn make_chain(daemon: &mut Daemon, options: &Options) -> io::Result<Vec<(usize, PathBuf)>> {
    daemon.create("clone0", options.data_bytes())?;
    let (socket, _) = daemon.attach("clone0", 1)?;
    fill(&socket, Stripes { span: options.data_bytes(), step: 128 << 10, len: 128 << 10 })?;
    daemon.detach("clone0")?;
    let (pages, mut from, mut ends) = (options.data_bytes() / PAGE, 0, Vec::new());
    for depth in 1..=options.depths.iter().copied().max().unwrap_or(0) {
        let (source, snapshot, clone) = (depth - 1, format!("snap{depth}"), format!("clone{depth}"));
        daemon.snapshot(&format!("clone{source}"), &snapshot)?;
        daemon.clone(&snapshot, &clone)?;
        let (socket, _) = daemon.attach(&clone, 1)?;
        let end = from + PAGES_EACH;
        Load::connect(&socket, WRITES)?.run(Order::Once { pages, from, end }, Duration::from_secs(30))?;
        from = end % pages;
        if options.depths.contains(&depth) {
            ends.push((depth, socket));
        } else {
            daemon.detach(&clone)?;
        }
    }
    Ok(ends)
}
