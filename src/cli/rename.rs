//! `rename`: another name for a volume.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::RenameParams;
use crate::control::protocol::volumes::VolumeView;
use crate::units::VolumeName;
use clap::Args;

/// Give a volume or snapshot another name
///
/// The old name is free at once. The volume must not be attached, read or held.
#[derive(Debug, Args)]
pub struct RenameArgs {
    #[arg(value_name = "OLD", value_parser = volume_name())]
    name: VolumeName,
    #[arg(value_name = "NEW", value_parser = volume_name())]
    new_name: VolumeName,
}

pub(super) fn run(global: &Global, args: RenameArgs) -> Result<(), Failure> {
    let params = RenameParams { name: args.name.to_string(), new_name: args.new_name.to_string() };
    let mut target = Target::choose(global, Reach::Content)?;
    let volume: VolumeView = target.call(Method::Rename, &params, None, &Job::default())?;
    print(global.json, &volume, |volume| format!("{} is now {}", args.name, volume.name))
}
