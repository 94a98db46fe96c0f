//! How long a snapshot and a clone take: the commands through the control socket, so that no start of a program is in a figure. Each
//! snapshot is of an open volume that was written to since the last one. Beside them, what a single write takes at that time: either
//! command is a chain of such writes, one after the other.

use crate::Scene;
use crate::contestants::{Contestant, start_ours};
use crate::figures::Percentiles;
use crate::fill::{Stripes, fill};
use crate::workload::{Fixture, Pattern, Workload};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// Writes before each snapshot, at depth and one by one.
const WRITING: Duration = Duration::from_millis(300);

pub(crate) fn measure(scene: &Scene<'_>) -> io::Result<Value> {
    let bytes = scene.options.data_bytes();
    let mut daemon = start_ours(scene)?;
    daemon.create("branching", bytes)?;
    let (socket, _) = daemon.attach("branching", 1)?;
    fill(&socket, Stripes { span: bytes, step: 128 << 10, len: 128 << 10 })?;
    let writing = |depth| Workload {
        name: "writes",
        fixture: Fixture::File,
        pattern: Pattern::RandomWrite,
        block_bytes: 4096,
        depth,
        queues: 1,
        within_bytes: bytes,
    };
    let (mut writes, mut pauses, mut snapshots, mut clones) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..scene.options.snapshots {
        let contestant = Contestant::Server { socket: &socket, pid: daemon.pid() };
        contestant.run(writing(32), WRITING)?;
        writes.push(contestant.run(writing(1), WRITING)?.p50_us / 1000.0);
        let snapshot = format!("branching-snap{number}");
        let (pause, taken) = daemon.snapshot("branching", &snapshot)?;
        pauses.push(ms(pause));
        snapshots.push(ms(taken));
        clones.push(ms(daemon.clone(&snapshot, &format!("branching-clone{number}"))?));
    }
    let [write, pause, snapshot, clone] = [writes, pauses, snapshots, clones].map(Percentiles::of);
    println!("\nms as p50 / p99 / max of {}", scene.options.snapshots);
    println!("| snapshot | writes held back meanwhile | clone | a single 4 KiB write |");
    println!("|---|---|---|---|");
    println!("| {snapshot} | {pause} | {clone} | {write} |");
    Ok(json!({ "snapshot_ms": snapshot, "pause_ms": pause, "clone_ms": clone, "write_ms": write }))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
