//! `lock`: nobody opens a volume for a while.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::params::NameParams;
use crate::units::VolumeName;
use clap::Args;

/// Keep everybody from opening a volume, this daemon included
///
/// Until `unlock`, or the end of the daemon. A volume that somebody uses is not locked, and the answer says who does.
/// Locking it again is no error.
#[derive(Debug, Args)]
pub struct LockArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
}

pub(super) fn run(global: &Global, args: LockArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.volume.to_string() };
    let locked: NameParams = daemon(global)?.call("lock", &params)?;
    print(global.json, &locked, |locked| format!("locked {}", locked.name))
}
