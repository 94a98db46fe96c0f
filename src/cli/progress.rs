//! A progress bar, when the standard error is a terminal.

use super::interrupt::cancel_on_signal;
use crate::admin::job::Job;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    Bytes,
    Objects,
}

/// Does `work` as a job that Ctrl-C cancels, with its bar.
pub fn watched<T>(counted: Counted, what: &str, work: impl FnOnce(&Job) -> T) -> T {
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let _bar = Bar::show(&job, counted, what);
    work(&job)
}

/// Drawn until it is dropped.
pub struct Bar {
    finished: Arc<AtomicBool>,
    drawing: Option<JoinHandle<()>>,
}

impl Bar {
    pub fn show(job: &Arc<Job>, counted: Counted, what: &str) -> Self {
        let finished = Arc::new(AtomicBool::new(false));
        let terminal = io::stderr().is_terminal();
        let (job, over, what) = (Arc::clone(job), Arc::clone(&finished), what.to_owned());
        let drawing = terminal.then(|| thread::spawn(move || draw(&job, &over, counted, &what)));
        Self { finished, drawing }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finished.store(true, Ordering::Relaxed);
        if let Some(drawing) = self.drawing.take() {
            drawing.thread().unpark();
            let _ = drawing.join();
        }
    }
}

fn draw(job: &Job, finished: &AtomicBool, counted: Counted, what: &str) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_message(what.to_owned());
    while !finished.load(Ordering::Relaxed) {
        let progress = job.progress();
        if progress.total != 0 && bar.length() != Some(progress.total) {
            bar.set_length(progress.total);
        }
        bar.set_style(style(counted, progress.total != 0));
        bar.set_position(progress.done);
        if job.is_cancelled() {
            bar.set_message("stopping");
        }
        bar.tick();
        thread::park_timeout(REDRAW_INTERVAL);
    }
    bar.finish_and_clear();
}

fn style(counted: Counted, bounded: bool) -> ProgressStyle {
    let template = match (counted, bounded) {
        (Counted::Bytes, true) => "{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        (Counted::Bytes, false) => "{msg} {spinner} {bytes}, {bytes_per_sec}",
        (Counted::Objects, true) => "{msg} [{wide_bar}] {pos} of {len} objects",
        (Counted::Objects, false) => "{msg} {spinner} {pos} objects",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
