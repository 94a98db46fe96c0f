//! Threads for calls that block: syncs, renames, listings, and everything where there is no io_uring.
//!
//! Threads start when a job finds none idle, up to a bound, and live as long as the store. Jobs are not ordered.

use crate::store::StoreError;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Helpers {
    jobs: Sender<Job>,
    source: Receiver<Job>,
    /// Jobs that wait or run.
    unfinished: Arc<AtomicUsize>,
    started: AtomicUsize,
    threads_max: usize,
}

impl Helpers {
    /// At most so many threads.
    ///
    /// # Errors
    /// When not even one can be had.
    pub(crate) fn new(threads_max: usize) -> Result<Self, StoreError> {
        let (jobs, source) = crossbeam_channel::unbounded();
        let helpers = Self { jobs, source, unfinished: Arc::default(), started: AtomicUsize::new(0), threads_max };
        helpers.start_thread().map_err(|error| StoreError::from_io(error, "start", "a thread of the store"))?;
        Ok(helpers)
    }

    /// Runs the job on some thread. The queue is bounded by what channels have in flight.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let unfinished = self.unfinished.fetch_add(1, Ordering::Relaxed) + 1;
        self.jobs.send(Box::new(job)).expect("we hold a receiver ourselves");
        let started = self.started.load(Ordering::Relaxed);
        // Two that look at the same time may start one too many.
        if unfinished > started && started < self.threads_max {
            // Without it the jobs wait for the threads that there are.
            self.start_thread().unwrap_or_else(|error| tracing::warn!(%error, "cannot start another store thread"));
        }
    }

    fn start_thread(&self) -> std::io::Result<()> {
        let (source, unfinished) = (self.source.clone(), Arc::clone(&self.unfinished));
        let work = move || {
            while let Ok(job) = source.recv() {
                job();
                unfinished.fetch_sub(1, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_job_that_blocks_for_ever_holds_up_no_other_while_there_may_be_more_threads() {
        let helpers = Helpers::new(8).unwrap();
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..7 {
            let held = held.clone();
            helpers.run(move || assert!(held.recv().is_err(), "nobody sends"));
            let (done, is_done) = mpsc::channel();
            helpers.run(move || done.send(()).unwrap());
            is_done.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        drop(release);
    }
}
