//! `detach`: the daemon serves a volume no more.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::params::NameParams;
use crate::units::VolumeName;
use clap::Args;

/// End an attachment
///
/// Requests in flight are finished, the volume is flushed and closed, the socket is removed. The guest, if any, sees its
/// disk hang until the volume is attached again.
#[derive(Debug, Args)]
pub struct DetachArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
}

pub(super) fn run(global: &Global, args: DetachArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.name.to_string() };
    let detached: NameParams = daemon(global)?.call("detach", &params)?;
    print(global.json, &detached, |detached| format!("detached {}", detached.name))
}
