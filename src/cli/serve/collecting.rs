//! Collection by itself, at an interval: the same work as `archvhost gc`, with its outcome in the log.

use crate::admin::job::Job;
use crate::config::collection::Interval;
use crate::control::connection::stopped;
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Context;
use crate::daemon::upkeep::Collection;
use crate::units::ByteSize;
use std::sync::Arc;
use tokio::sync::watch;

/// Until `stop` becomes true; a collection that runs then is cancelled, which does no harm. The first begins an interval
/// after the start, so that a daemon that is started again and again does not do so with a collection each time.
pub(super) async fn collect_now_and_then(context: Arc<Context>, interval: Interval, mut stop: watch::Receiver<bool>) {
    let Interval::Every(interval) = interval else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopped(&mut stop) => return,
        }
        let job = Arc::new(Job::default());
        let mut work = tokio::task::spawn_blocking({
            let (context, job) = (Arc::clone(&context), Arc::clone(&job));
            move || collect(&context, &job)
        });
        tokio::select! {
            _ = &mut work => {}
            () = stopped(&mut stop) => {
                job.cancel();
                let _ = work.await;
                return;
            }
        }
    }
}

fn collect(context: &Context, job: &Job) {
    match context.daemon.collect(Collection::Real, job).map_err(Failure::from) {
        Ok(report) if report.objects_removed == 0 => tracing::debug!(volumes = report.volumes, "nothing to collect"),
        Ok(report) => {
            let freed = ByteSize(report.bytes_removed);
            tracing::info!(objects = report.objects_removed, %freed, volumes = report.volumes, "collected");
        }
        // Another daemon of this store is at it.
        Err(failure) if failure.kind == FailureKind::Held => {
            tracing::info!(reason = %failure, "left collecting to another")
        }
        Err(failure) => tracing::warn!(error = %failure, "cannot collect"),
    }
}
