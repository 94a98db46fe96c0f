//! The workloads: a fully written volume of ours and two fully written images, one for each peer. In each round everybody takes a turn,
//! and the order rotates.

use crate::Scene;
use crate::contestants::{Contestant, Figures, start_ours};
use crate::figures::Spread;
use crate::fill::{Stripes, fill};
use crate::fio::Fio;
use crate::qsd::Qsd;
use crate::rbd::Rbd;
use crate::workload::{Fixture, Pattern, Workload};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

const NAMES: [&str; 3] = ["archvhost", "fio rbd", "qsd rbd"];
const WARM_UP: Duration = Duration::from_millis(500);

const fn row(name: &'static str, pattern: Pattern, block_bytes: usize, depth: u16) -> Workload {
    Workload { name, fixture: Fixture::File, pattern, block_bytes, depth, queues: 1, within_bytes: 0 }
}

const ROWS: [Workload; 4] = [
    row("read-4k-d32", Pattern::RandomRead, 4096, 32),
    row("write-4k-d32", Pattern::RandomWrite, 4096, 32),
    row("seq-read-128k-d8", Pattern::SequentialRead, 128 << 10, 8),
    row("seq-write-128k-d8", Pattern::SequentialWrite, 128 << 10, 8),
];

struct Row {
    name: &'static str,
    /// Of each contestant, by round.
    rounds: [Vec<Figures>; 3],
}

pub(crate) fn measure(scene: &Scene<'_>) -> io::Result<Value> {
    let bytes = scene.options.data_bytes();
    let mut daemon = start_ours(scene)?;
    daemon.create("rows", bytes)?;
    let (socket, _) = daemon.attach("rows", 1)?;
    fill(&socket, Stripes { span: bytes, step: 128 << 10, len: 128 << 10 })?;
    let rbd = Rbd::new(scene.cluster, scene.dir)?;
    ["rows-fio", "rows-qsd"].into_iter().try_for_each(|image| rbd.make(image, bytes))?;
    let (fio, qsd) = (Fio::new(&rbd, "rows-fio")?, Qsd::start(&rbd, "rows-qsd", scene.dir)?);
    let contestants = [
        Contestant::Server { socket: &socket, pid: daemon.pid() },
        Contestant::Fio(&fio),
        Contestant::Server { socket: &qsd.socket, pid: qsd.pid() },
    ];
    let mut rows = Vec::new();
    for workload in ROWS.into_iter().filter(|workload| scene.options.wants_row(workload.name)) {
        rows.push(compare(scene, &contestants, Workload { within_bytes: bytes, ..workload })?);
    }
    println!("\n{}", table(&rows));
    Ok(rows.iter().map(|row| json!({ "workload": row.name, "contestants": NAMES, "rounds": row.rounds })).collect())
}

fn compare(scene: &Scene<'_>, contestants: &[Contestant<'_>; 3], workload: Workload) -> io::Result<Row> {
    let mut rounds = [const { Vec::new() }; 3];
    for contestant in contestants {
        contestant.run(workload, WARM_UP)?;
    }
    for round in 0..scene.options.rounds {
        eprintln!("{}: round {round} …", workload.name);
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            rounds[index].push(contestants[index].run(workload, scene.options.run_time())?);
        }
    }
    Ok(Row { name: workload.name, rounds })
}

impl Row {
    fn median(&self, contestant: usize, figure: fn(&Figures) -> f64) -> f64 {
        Spread::of(self.rounds[contestant].iter().map(figure)).median
    }

    /// Ours to a peer's, of the same round.
    fn ratio(&self, peer: usize, figure: fn(&Figures) -> f64) -> Spread {
        Spread::of(self.rounds[0].iter().zip(&self.rounds[peer]).map(|(ours, theirs)| figure(ours) / figure(theirs)))
    }

    fn cells(&self) -> Vec<String> {
        let all = |figure: fn(&Figures) -> f64| [0, 1, 2].map(|index| format!("{:.0}", self.median(index, figure)));
        let ratios = |figure: fn(&Figures) -> f64| [1, 2].map(|peer| self.ratio(peer, figure).to_string());
        let latency = [0, 1, 2].map(|index| {
            let (p50, p99) = (self.median(index, |f| f.p50_us), self.median(index, |f| f.p99_us));
            format!("{:.1} / {:.1}", p50 / 1000.0, p99 / 1000.0)
        });
        let mut cells = vec![self.name.to_owned(), all(|f| f.iops).join(" : ")];
        cells.extend(ratios(|f| f.iops));
        cells.push(latency.join(" : "));
        cells.push(all(|f| f.cpu_us).join(" : "));
        cells.extend(ratios(|f| f.cpu_us));
        cells
    }
}

fn table(rows: &[Row]) -> Table {
    let [ours, fio, qsd] = NAMES;
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "workload".to_owned(),
        format!("IOPS {ours} : {fio} : {qsd}"),
        format!("to {fio}"),
        format!("to {qsd}"),
        "p50 / p99 ms".to_owned(),
        "client CPU µs".to_owned(),
        format!("to {fio}"),
        format!("to {qsd}"),
    ]);
    for row in rows {
        table.add_row(row.cells());
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
