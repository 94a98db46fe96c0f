//! `detach`: the daemon serves a volume no more.

use super::Global;
use super::arguments::volume_name;
use super::attach::absolute;
use super::output::print;
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::params::{DetachParams, NameParams};
use crate::units::VolumeName;
use clap::Args;
use std::path::PathBuf;

/// End an attachment
///
/// Requests in flight are finished, the volume is flushed and closed, the socket is removed. The guest, if any, sees its
/// disk hang until the volume is attached again. Of a volume that is attached read-only several times, all end unless
/// --socket names one.
#[derive(Debug, Args)]
pub struct DetachArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// Only the attachment at this socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: DetachArgs) -> Result<(), Failure> {
    let socket = args.socket.as_deref().map(absolute).transpose()?;
    let params = DetachParams { name: args.name.to_string(), socket };
    let detached: NameParams = daemon(global)?.call("detach", &params)?;
    print(global.json, &detached, |detached| format!("detached {}", detached.name))
}
