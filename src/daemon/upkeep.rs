//! What keeps a store in order: collection and checks.

use super::{Daemon, DaemonError};
use crate::admin::check::{CheckReport, CheckRequest, check};
use crate::admin::collect::{CollectOptions, CollectReport, collect};
use crate::admin::job::Job;

/// Whether a collection removes, or only counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    Real,
    DryRun,
}

impl Daemon {
    /// # Errors
    /// See [`collect`].
    pub fn collect(&self, collection: Collection, job: &Job) -> Result<CollectReport, DaemonError> {
        let options = CollectOptions {
            dry_run: collection == Collection::DryRun,
            memory_bytes: self.options.collect_memory_bytes,
            spill_dir: self.options.collect_spill_dir.clone(),
        };
        Ok(collect(&self.store, &self.registry, &options, job)?)
    }

    /// # Errors
    /// See [`check`].
    pub fn check(&self, request: &CheckRequest, job: &Job) -> Result<CheckReport, DaemonError> {
        Ok(check(&self.store, request, &self.registry, job)?)
    }
}
