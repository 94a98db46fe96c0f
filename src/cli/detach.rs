//! `detach`: the daemon serves a volume no more.

use super::Global;
use super::arguments::volume_name;
use super::attach::absolute;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::DetachParams;
use crate::units::VolumeName;
use clap::Args;
use std::path::PathBuf;

/// End an attachment
///
/// Requests in flight are finished, the volume is flushed and closed, the socket is removed. The guest, if any, sees its
/// disk hang until the volume is attached again.
#[derive(Debug, Args)]
pub struct DetachArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// Which attachment, where the volume has several
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: DetachArgs) -> Result<(), Failure> {
    let socket = args.socket.as_deref().map(absolute).transpose()?;
    let params = DetachParams { name: args.name.to_string(), socket };
    let detached: DetachParams = daemon(global)?.call("detach", &params)?;
    print(global.json, &detached, |detached| format!("detached {}", detached.name))
}
