//! The store kept in order.

use crate::admin::check::{CheckRequest, Repair};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::protocol::params::{CheckParams, CollectParams};
use crate::control::protocol::upkeep::{CheckView, CollectView};
use crate::daemon::Daemon;
use crate::daemon::upkeep::Collection;
use crate::units::VolumeName;

pub(super) fn collect(daemon: &Daemon, params: CollectParams, job: &Job) -> Result<CollectView, Failure> {
    let collection = if params.dry_run { Collection::DryRun } else { Collection::Real };
    Ok(CollectView::new(params.dry_run, daemon.collect(collection, job)?))
}

pub(super) fn check(daemon: &Daemon, params: CheckParams, job: &Job) -> Result<CheckView, Failure> {
    let request = CheckRequest {
        volumes: params.names.iter().map(|name| VolumeName::new(name)).collect::<Result<_, _>>()?,
        repair: if params.repair { Repair::Safe } else { Repair::Nothing },
    };
    Ok(daemon.check(&request, job)?.into())
}
