//! `close`: the daemon gives an open volume back.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::params::NameParams;
use crate::units::VolumeName;
use clap::Args;

/// Have the daemon close a volume that `open` opened
///
/// It must not be attached. Afterwards any host can open it.
#[derive(Debug, Args)]
pub struct CloseArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
}

pub(super) fn run(global: &Global, args: CloseArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.volume.to_string() };
    let closed: NameParams = daemon(global)?.call("close", &params)?;
    print(global.json, &closed, |closed| format!("closed {}", closed.name))
}
