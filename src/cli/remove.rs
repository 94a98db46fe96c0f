//! `remove`: a volume and its objects.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::progress::{Counted, watched};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::NameParams;
use crate::units::VolumeName;
use clap::Args;

/// Remove a volume and everything in it, for good
///
/// A volume that is attached, or held by another process or host, is not removed. A removal that is interrupted leaves a
/// volume in state "removing", which cannot be opened; removing it again finishes the work.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
}

pub(super) fn run(global: &Global, args: RemoveArgs) -> Result<(), Failure> {
    let mut target = Target::choose(global, Reach::Metadata)?;
    let params = NameParams { name: args.name.to_string() };
    let removed: Result<NameParams, Failure> =
        watched(Counted::Objects, "removing", |job| target.call(Method::Remove, &params, None, job));
    print(global.json, &removed?, |removed| format!("removed {}", removed.name))
}
