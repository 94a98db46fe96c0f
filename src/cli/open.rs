//! `open`: the daemon takes a volume, without serving it.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::params::NameParams;
use crate::units::VolumeName;
use clap::Args;

/// Have the daemon hold a volume open, whether it serves it or not
///
/// For orchestrators that decide elsewhere which host has a volume: after this no other host can open it, and attaching and
/// detaching it here changes nothing about that. Until `close`, or the end of the daemon. Opening it again is no error.
#[derive(Debug, Args)]
pub struct OpenArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
}

pub(super) fn run(global: &Global, args: OpenArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.volume.to_string() };
    let opened: NameParams = daemon(global)?.call("open", &params)?;
    print(global.json, &opened, |opened| format!("{} is held open", opened.name))
}
