//! `remove`: a volume and its objects.

use super::Global;
use super::arguments::volume_name;
use super::interrupt::cancel_on_signal;
use super::output::print;
use super::progress::{Bar, Counted};
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::protocol::NameParams;
use crate::units::VolumeName;
use clap::Args;
use std::sync::Arc;

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
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let bar = Bar::show(&job, Counted::Objects, "removing");
    let removed = target.remove(NameParams { name: args.name.to_string() }, &job);
    drop(bar);
    print(global.json, &removed?, |removed| format!("removed {}", removed.name))
}
