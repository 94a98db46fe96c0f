//! `resize`: a volume's size, also under a running guest.

use super::Global;
use super::arguments::{volume_name, volume_size};
use super::output::print;
use super::progress::{Counted, watched};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::ResizeParams;
use crate::control::protocol::volumes::VolumeView;
use crate::units::{ByteSize, VolumeName, VolumeSize};
use clap::Args;

/// Change a volume's size
///
/// A running guest is told and sees the new size without a reboot; its partitions and file systems are its own affair.
/// Making a volume smaller loses what is behind the new end and is refused without --shrink: shrink the file system first.
/// What was lost never comes back when the volume grows again: it grows by zeros. Snapshots keep their size.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost resize web1 40GiB
  archvhost resize web1 10GiB --shrink")]
pub struct ResizeArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
    /// The new size, as in 40GiB
    #[arg(value_parser = volume_size())]
    size: VolumeSize,
    /// Allow the volume to become smaller, and what is behind the new end to be lost
    #[arg(long)]
    shrink: bool,
}

pub(super) fn run(global: &Global, args: ResizeArgs) -> Result<(), Failure> {
    let params = ResizeParams { name: args.volume.to_string(), size: args.size.bytes(), shrink: args.shrink };
    let mut target = Target::choose(global, Reach::Content)?;
    let volume: Result<VolumeView, Failure> =
        watched(Counted::Objects, "resizing", |job| target.call(Method::Resize, &params, None, job));
    print(global.json, &volume?, |volume| format!("{} has {}", volume.name, ByteSize(volume.size)))
}
