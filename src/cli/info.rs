//! `info`: what is known of one volume.

use super::Global;
use super::arguments::volume_name;
use super::list::holder;
use super::output::{pairs, print};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::protocol::{NameParams, VolumeView};
use crate::units::{ByteSize, VolumeName};
use clap::Args;

/// Tell about one volume
#[derive(Debug, Args)]
pub struct InfoArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
}

pub(super) fn run(global: &Global, args: InfoArgs) -> Result<(), Failure> {
    let volume = Target::choose(global, Reach::Metadata)?.info(NameParams { name: args.name.to_string() })?;
    print(global.json, &volume, human)
}

fn human(volume: &VolumeView) -> String {
    let mut lines = vec![
        ("name", volume.name.clone()),
        ("id", volume.id.clone()),
        ("size", format!("{} ({} bytes)", ByteSize(volume.size), volume.size)),
        ("object size", ByteSize(volume.object_size).to_string()),
        ("state", volume.state.clone()),
    ];
    if let Some(view) = &volume.holder {
        lines.push((if volume.state == "open" { "holder" } else { "last holder" }, holder(view)));
    }
    pairs(&lines)
}
