//! Threads for calls that block: syncs, renames, listings, and everything where there is no io_uring.
//!
//! Threads start when a job finds none idle, up to a bound, and live as long as the store. Jobs are not ordered.

use crate::store::StoreError;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough that a few slow syncs do not hold up everything else, and that disks without io_uring still see some depth.
const THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Helpers {
    jobs: Sender<Job>,
    source: Receiver<Job>,
    idle: Arc<AtomicUsize>,
    started: AtomicUsize,
}

impl Helpers {
    /// # Errors
    /// When not even one thread can be had.
    pub(crate) fn new() -> Result<Self, StoreError> {
        let (jobs, source) = crossbeam_channel::unbounded();
        let helpers = Self { jobs, source, idle: Arc::default(), started: AtomicUsize::new(0) };
        helpers.start_thread().map_err(|error| StoreError::from_io(error, "start", "a thread of the store"))?;
        Ok(helpers)
    }

    /// Runs the job on some thread. The queue is bounded by what channels have in flight.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).expect("we hold a receiver ourselves");
        let wanted = self.source.len() > self.idle.load(Ordering::Relaxed);
        if wanted && self.started.load(Ordering::Relaxed) < THREADS_MAX {
            // Without it the jobs wait for the threads that there are.
            self.start_thread().unwrap_or_else(|error| tracing::warn!(%error, "cannot start another store thread"));
        }
    }

    fn start_thread(&self) -> std::io::Result<()> {
        let (source, idle) = (self.source.clone(), Arc::clone(&self.idle));
        let work = move || {
            idle.fetch_add(1, Ordering::Relaxed);
            while let Ok(job) = source.recv() {
                idle.fetch_sub(1, Ordering::Relaxed);
                job();
                idle.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
