//! `rollback`: a volume becomes what its snapshot is.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::RollbackParams;
use crate::control::protocol::volumes::VolumeView;
use crate::units::VolumeName;
use clap::Args;

/// Make a volume again what one of its snapshots is
///
/// Everything that was written to the volume since is lost, unless another snapshot has it; the snapshot stays. The
/// volume must not be attached or held. The snapshot is one of the volume's own, or the one that it was cloned from.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, keeping what there is now:
  archvhost snapshot web1 web1@before-rollback && archvhost rollback web1 web1@monday")]
pub struct RollbackArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
    #[arg(value_parser = volume_name())]
    snapshot: VolumeName,
}

pub(super) fn run(global: &Global, args: RollbackArgs) -> Result<(), Failure> {
    let params = RollbackParams { name: args.volume.to_string(), snapshot: args.snapshot.to_string() };
    let mut target = Target::choose(global, Reach::Content)?;
    let volume: VolumeView = target.call(Method::Rollback, &params, None, &Job::default())?;
    print(global.json, &volume, |volume| format!("{} is again as {}", volume.name, args.snapshot))
}
