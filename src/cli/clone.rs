//! `clone`: a new volume that begins as another one is.

use super::Global;
use super::arguments::{volume_name, volume_size};
use super::output::print;
use super::snapshot::milliseconds;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::branches::CloneView;
use crate::control::protocol::params::CloneParams;
use crate::units::{ByteSize, VolumeName, VolumeSize};
use clap::Args;

/// Make a new volume that begins as a snapshot, or another volume, is
///
/// It takes the same moment whatever the volume's size, and no space until one of the two is written. The source may be
/// removed afterwards; the clone keeps what it needs. A source that is written at the time is captured at one instant.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost clone debian@gold web7
  archvhost clone web1 web1-test --size 40GiB")]
pub struct CloneArgs {
    /// A snapshot, or a volume as it is now
    #[arg(value_parser = volume_name())]
    source: VolumeName,
    /// The new volume's name
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// Make it larger than the source; behind the source's end it has zeros
    #[arg(long, value_name = "SIZE", value_parser = volume_size())]
    size: Option<VolumeSize>,
}

pub(super) fn run(global: &Global, args: CloneArgs) -> Result<(), Failure> {
    let params = CloneParams {
        source: args.source.to_string(),
        name: args.name.to_string(),
        size: args.size.map(VolumeSize::bytes),
    };
    let mut target = Target::choose(global, Reach::Content)?;
    let view: CloneView = target.call(Method::Clone, &params, None, &Job::default())?;
    print(global.json, &view, |view| human(view, &args.source))
}

fn human(view: &CloneView, source: &VolumeName) -> String {
    let made = format!("{} is a clone of {source}: {}", view.volume.name, ByteSize(view.volume.size));
    if view.pause_seconds == 0.0 { made } else { format!("{made}; writes waited {}", milliseconds(view.pause_seconds)) }
}
