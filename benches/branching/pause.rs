//! Snapshots under load. The guest's side of a pause: the longest time in which nothing was answered, on all queues together and
//! on the worst one, and the slowest request; around each snapshot, and around as many moments without one. Then: how long
//! cloning and opening take, and how much memory a huge map needs.

use crate::Options;
use crate::daemon::{Daemon, store_url};
use crate::figures::Percentiles;
use crate::load::{Answer, Direction, Load, Order, PAGE, Shape};
use crate::synthetic::{Mapped, furnish};
use serde::Serialize;
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { queues: 4, depth: 32, direction: Direction::Write };
const OBJECT: u64 = 4 << 20;
/// Before each snapshot.
const REST: Duration = Duration::from_millis(100);
/// The load before the first snapshot, in which nothing is captured.
const CALM: Duration = Duration::from_secs(10);
const OPENINGS: usize = 20;
const CLONES: usize = 50;

#[derive(Clone, Copy)]
struct Fixture {
    name: &'static str,
    bytes: u64,
    mapped: Mapped,
}

const FIXTURES: [Fixture; 3] = [
    Fixture { name: "1 GiB", bytes: 1 << 30, mapped: Mapped::Full },
    Fixture { name: "1 TiB, every block mapped", bytes: 1 << 40, mapped: Mapped::Full },
    // 4096 entries, each in a leaf of its own.
    Fixture { name: "1 PiB, sparse", bytes: 1 << 50, mapped: Mapped::OneIn(65536) },
];

pub(crate) fn measure(options: &Options, dir: &Path) -> io::Result<Value> {
    println!("\nsnapshots under load: 4 queues, depth 32, random 4 KiB writes; ms as p50 / p99 / max");
    println!(
        "| volume | pause, says the daemon | no answer on any queue | without a snapshot | no answer on a queue | without \
              | slowest request | without | whole command |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    for (index, fixture) in FIXTURES.into_iter().enumerate() {
        rows.push(measure_fixture(options, &dir.join(index.to_string()), fixture)?);
    }
    println!("\nms as p50 / p99 / max; memory in MiB");
    println!("| volume | clone | open (attach) | memory of an idle daemon | with the volume open | after the load |");
    println!("|---|---|---|---|---|---|");
    for row in &rows {
        println!("{}", row.line);
    }
    Ok(rows.into_iter().map(|row| row.json).collect())
}

struct Row {
    line: String,
    json: Value,
}

fn measure_fixture(options: &Options, dir: &Path, fixture: Fixture) -> io::Result<Row> {
    let window = fixture.bytes.min(options.data_bytes()) / OBJECT;
    let mut daemon = Daemon::start(&options.program, dir, None)?;
    daemon.create("big", fixture.bytes)?;
    furnish(&store_url(dir), "big", fixture.mapped, window)?;
    let idle = daemon.resident_bytes()?;
    let mut openings = Vec::new();
    for _ in 0..OPENINGS {
        let (_, taken) = daemon.attach("big", SHAPE.queues)?;
        openings.push(ms(taken));
        daemon.detach("big")?;
    }
    let (socket, _) = daemon.attach("big", SHAPE.queues)?;
    let opened = daemon.resident_bytes()?;
    let mut load = Load::connect(&socket, SHAPE)?;
    let order = Order::Random { pages: window * OBJECT / PAGE };
    load.run(order, Duration::from_secs(1))?;
    let moments = under_load(&mut daemon, &mut load, order, options.snapshots)?;
    drop(load);
    let loaded = daemon.resident_bytes()?;
    let clones = clone_often(&mut daemon)?;
    print_moments(fixture.name, &moments);
    let (clones, openings) = (Percentiles::of(clones), Percentiles::of(openings));
    let [idle, opened, loaded] = [idle, opened, loaded].map(|bytes| bytes as f64 / 1048576.0);
    let json = json!({
        "volume": fixture.name, "snapshots": moments, "clone_ms": clones, "open_ms": openings,
        "resident_mib": { "idle": idle, "opened": opened, "after_load": loaded },
    });
    let line = format!("| {} | {clones} | {openings} | {idle:.1} | {opened:.1} | {loaded:.1} |", fixture.name);
    Ok(Row { line, json })
}

fn clone_often(daemon: &mut Daemon) -> io::Result<Vec<f64>> {
    daemon.snapshot("big", "source")?;
    let mut taken = Vec::new();
    for number in 0..CLONES {
        taken.push(ms(daemon.clone("source", &format!("clone{number}"))?));
    }
    Ok(taken)
}

/// What the guest saw around a moment, in ms.
#[derive(Clone, Copy, Serialize)]
struct Seen {
    all_queues: f64,
    worst_queue: f64,
    slowest: f64,
}

#[derive(Serialize)]
struct Moment {
    told_ms: f64,
    command_ms: f64,
    with: Seen,
    without: Seen,
}

/// A stretch of time, since the load's start.
#[derive(Clone, Copy)]
struct Window {
    from: Duration,
    to: Duration,
}

fn under_load(daemon: &mut Daemon, load: &mut Load, order: Order, snapshots: usize) -> io::Result<Vec<Moment>> {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let running = scope.spawn(|| load.record_until(order, start, &stop));
        let taken = take_snapshots(daemon, start, snapshots);
        stop.store(true, Ordering::Relaxed);
        let outcome = running.join().map_err(|_| io::Error::other("the load panicked"))??;
        let moments = taken?.into_iter().enumerate().map(|(index, Taken { told, window })| Moment {
            told_ms: ms(told),
            command_ms: ms(window.to - window.from),
            with: seen(&outcome.answers, window),
            without: seen(&outcome.answers, calm_window(index, snapshots, window.to - window.from)),
        });
        Ok(moments.collect())
    })
}

struct Taken {
    told: Duration,
    window: Window,
}

/// A stretch of the calm that is as long, another for each snapshot.
fn calm_window(index: usize, snapshots: usize, len: Duration) -> Window {
    // The first second fills the queues.
    let (start, room) = (Duration::from_secs(1), CALM.saturating_sub(Duration::from_secs(2)).saturating_sub(len));
    let from = start + room.mul_f64(index as f64 / snapshots as f64);
    Window { from, to: from + len }
}

fn take_snapshots(daemon: &mut Daemon, start: Instant, snapshots: usize) -> io::Result<Vec<Taken>> {
    thread::sleep(CALM);
    let mut taken = Vec::new();
    for number in 0..snapshots {
        thread::sleep(REST);
        let from = start.elapsed();
        let (told, _) = daemon.snapshot("big", &format!("snap{number}"))?;
        taken.push(Taken { told, window: Window { from, to: start.elapsed() } });
        // As whoever keeps a few snapshots does; otherwise the disk fills with what each keeps.
        if let Some(old) = number.checked_sub(KEPT) {
            daemon.remove(&format!("snap{old}"))?;
        }
    }
    Ok(taken)
}

const KEPT: usize = 4;

fn seen(answers: &[Vec<Answer>], window: Window) -> Seen {
    let by_queue = answers.iter().map(|answers| longest_gap(answers.iter().map(|answer| answer.at), window));
    let mut all: Vec<Duration> =
        answers.iter().flatten().map(|answer| answer.at).filter(|at| is_near(*at, window)).collect();
    all.sort_unstable();
    let latencies =
        answers.iter().flatten().filter(|answer| window.from <= answer.at && answer.at - answer.latency <= window.to);
    Seen {
        all_queues: ms(longest_gap(all.into_iter(), window)),
        worst_queue: ms(by_queue.max().unwrap_or_default()),
        slowest: ms(latencies.map(|answer| answer.latency).max().unwrap_or_default()),
    }
}

/// Far enough around a window that the answers before and after it are in.
fn is_near(at: Duration, window: Window) -> bool {
    let margin = Duration::from_secs(2);
    window.from.saturating_sub(margin) <= at && at <= window.to + margin
}

/// The longest time without an answer that overlaps the window. `times` ascend.
fn longest_gap(times: impl Iterator<Item = Duration>, window: Window) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = Duration::ZERO;
    for at in times.take_while(|at| *at <= window.to + Duration::from_secs(2)) {
        if at >= window.from && last <= window.to {
            longest = longest.max(at - last);
        }
        last = at;
    }
    longest
}

fn print_moments(name: &str, moments: &[Moment]) {
    let of = |figure: fn(&Moment) -> f64| Percentiles::of(moments.iter().map(figure));
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
        of(|m| m.told_ms),
        of(|m| m.with.all_queues),
        of(|m| m.without.all_queues),
        of(|m| m.with.worst_queue),
        of(|m| m.without.worst_queue),
        of(|m| m.with.slowest),
        of(|m| m.without.slowest),
        of(|m| m.command_ms),
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
