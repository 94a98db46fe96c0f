//! `create`: a new, empty volume.

use super::Global;
use super::arguments::{object_size, volume_name, volume_size};
use super::output::print;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::CreateParams;
use crate::control::protocol::volumes::VolumeView;
use crate::units::{ByteSize, ObjectSize, VolumeName, VolumeSize};
use clap::Args;

/// Make a new, empty volume
///
/// It takes no space until something is written to it, whatever its size.
#[derive(Debug, Args)]
#[command(after_help = "Example: archvhost --store file:/srv/volumes create web1 --size 20GiB")]
pub struct CreateArgs {
    /// The new volume's name: letters, digits and . _ + @ : -
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// How large the guest's disk is, as in 20GiB (a store null:SIZE implies it)
    #[arg(long, value_name = "SIZE", value_parser = volume_size())]
    size: Option<VolumeSize>,
    /// How large each object is: a power of two from 64KiB to 16MiB, for good [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = object_size())]
    object_size: Option<ObjectSize>,
}

pub(super) fn run(global: &Global, args: CreateArgs) -> Result<(), Failure> {
    let params = CreateParams {
        name: args.name.to_string(),
        size: args.size.map(VolumeSize::bytes),
        object_size: args.object_size.map(ObjectSize::bytes),
    };
    let mut target = Target::choose(global, Reach::NewVolume)?;
    let volume: VolumeView = target.call(Method::Create, &params, None, &Job::default())?;
    print(global.json, &volume, |volume| {
        let (size, object_size) = (ByteSize(volume.size), ByteSize(volume.object_size));
        format!("created {}: {size} in objects of {object_size}", volume.name)
    })
}
