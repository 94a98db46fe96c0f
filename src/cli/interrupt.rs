//! Ctrl-C during a long job: the first asks the job to stop and tidy up, the second ends the process at once.

use super::exit::INTERRUPTED;
use crate::admin::job::Job;
use std::sync::Arc;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// From now on Ctrl-C, and SIGTERM, cancel the job. Without a thread to spare they end the process, as they did before.
pub fn cancel_on_signal(job: &Arc<Job>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    let job = Arc::clone(job);
    let waiting = thread::Builder::new().name("signals".into());
    let _ = waiting.spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if job.is_cancelled() {
                    std::process::exit(i32::from(INTERRUPTED));
                }
                job.cancel();
            }
        });
    });
}
