//! What was measured, as a table for people and as JSON for programs. A ratio is the median of the rounds' ratios, with
//! the smallest and the largest: rounds are compared with their own partner, not with the average of all.

use crate::options::Options;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::time::Duration;

/// One run of one server.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) iops: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) server_cpu_us: f64,
    pub(crate) driver_cpu_us: f64,
}

#[derive(Serialize)]
pub(crate) struct Round {
    pub(crate) subject: Figures,
    pub(crate) peer: Figures,
}

#[derive(Serialize)]
pub(crate) struct Comparison {
    pub(crate) workload: &'static str,
    pub(crate) rounds: Vec<Round>,
}

#[derive(Serialize)]
pub(crate) struct Idle {
    pub(crate) workload: &'static str,
    pub(crate) subject: Duration,
    pub(crate) peer: Duration,
}

#[derive(Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }
}

impl Comparison {
    fn ratio(&self, figure: impl Fn(&Figures) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| figure(&round.subject) / figure(&round.peer)))
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(figure)).median
    }

    fn cells(&self) -> [String; 9] {
        let iops = self.ratio(|figures| figures.iops);
        let cpu = self.ratio(|figures| figures.server_cpu_us);
        [
            self.workload.to_owned(),
            format!("{:.0}", self.median(|round| round.subject.iops)),
            format!("{:.0}", self.median(|round| round.peer.iops)),
            format!("{:.2} ({:.2}–{:.2})", iops.median, iops.min, iops.max),
            format!("{:.0} / {:.0}", self.median(|r| r.subject.p50_us), self.median(|r| r.subject.p99_us)),
            format!("{:.0} / {:.0}", self.median(|r| r.peer.p50_us), self.median(|r| r.peer.p99_us)),
            format!("{:.2} : {:.2}", self.median(|r| r.subject.server_cpu_us), self.median(|r| r.peer.server_cpu_us)),
            format!("{:.2} ({:.2}–{:.2})", cpu.median, cpu.min, cpu.max),
            format!("{:.2} : {:.2}", self.median(|r| r.subject.driver_cpu_us), self.median(|r| r.peer.driver_cpu_us)),
        ]
    }
}

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) idle: Vec<Idle>,
    /// Rows that could not be measured.
    pub(crate) failures: usize,
}

impl Report {
    pub(crate) fn table(&self, options: &Options) -> String {
        let (subject, peer) = (options.subject().label(), options.peer.label());
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            "workload".to_owned(),
            format!("IOPS {subject}"),
            format!("IOPS {peer}"),
            "ratio".to_owned(),
            format!("p50 / p99 µs {subject}"),
            format!("p50 / p99 µs {peer}"),
            "server CPU µs".to_owned(),
            "ratio".to_owned(),
            "driver CPU µs".to_owned(),
        ]);
        for comparison in &self.comparisons {
            table.add_row(comparison.cells());
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let idle = self.idle.iter().map(|idle| {
            let [subject_ms, peer_ms] = [idle.subject, idle.peer].map(|time| time.as_secs_f64() * 1000.0);
            format!("\n{}: CPU in 10 s: {subject} {subject_ms:.1} ms, {peer} {peer_ms:.1} ms", idle.workload)
        });
        format!("{table}{}", idle.collect::<String>())
    }

    pub(crate) fn json(&self, options: &Options) -> serde_json::Value {
        let comparisons = self.comparisons.iter().map(|comparison| {
            serde_json::json!({
                "workload": comparison.workload,
                "iops_ratio": comparison.ratio(|figures| figures.iops),
                "server_cpu_ratio": comparison.ratio(|figures| figures.server_cpu_us),
                "rounds": comparison.rounds,
            })
        });
        let idle = self.idle.iter().map(|idle| {
            serde_json::json!({
                "workload": idle.workload,
                "subject_cpu_ms": idle.subject.as_secs_f64() * 1000.0,
                "peer_cpu_ms": idle.peer.as_secs_f64() * 1000.0,
            })
        });
        serde_json::json!({
            "subject": options.subject().label(),
            "peer": options.peer.label(),
            "conditions": conditions(options),
            "comparisons": comparisons.collect::<Vec<_>>(),
            "idle": idle.collect::<Vec<_>>(),
        })
    }
}

/// What a reader must know to compare these figures with others.
pub(crate) fn conditions(options: &Options) -> serde_json::Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus_online": read("/sys/devices/system/cpu/online"),
        "load_average": read("/proc/loadavg"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "data_mib": options.data_mib,
        "driver": if options.poll { "polls" } else { "sleeps" },
        "pinned": options.pin,
    })
}
