//! `attach`: the daemon serves a volume on a socket.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::daemon;
use crate::control::failure::{Failure, FailureKind};
use crate::control::protocol::attachments::AttachmentView;
use crate::control::protocol::params::AttachParams;
use crate::units::VolumeName;
use clap::Args;
use std::path::PathBuf;

/// Serve a volume on a vhost-user socket
///
/// The daemon opens the volume and listens on the socket until `detach`; front-ends may come and go, one at a time.
/// A volume has one attachment, or any number of read-only ones at sockets of their own; a snapshot only has such. The
/// daemon forgets attachments when it ends: what is to be there after a restart belongs in its configuration file, or is
/// attached again by whoever started it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: archvhost --control /run/archvhost.sock attach web1 --socket /run/web1.sock --queues 4"
)]
pub struct AttachArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// The socket to make, to which the virtual machine monitor connects
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Virtqueues offered to the guest, at least one per virtual processor [default: 16]
    #[arg(long, value_name = "N")]
    queues: Option<u16>,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
    /// How long a guest's request waits for a store that does not answer, before the guest gets an I/O error; 0: for ever
    /// [default: as the daemon was told]
    #[arg(long, value_name = "SECONDS")]
    request_timeout: Option<u32>,
}

pub(super) fn run(global: &Global, args: AttachArgs) -> Result<(), Failure> {
    let params = AttachParams {
        name: args.name.to_string(),
        socket: absolute(&args.socket)?,
        queues: args.queues,
        read_only: args.read_only,
        request_timeout: args.request_timeout,
    };
    let attachment: AttachmentView = daemon(global)?.call("attach", &params)?;
    print(global.json, &attachment, |attachment| {
        format!("attached {} to {}", attachment.volume, attachment.socket.as_deref().unwrap_or("-"))
    })
}

/// The daemon has another working directory, and JSON has only Unicode.
pub(super) fn absolute(path: &std::path::Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::because(FailureKind::Usage, format!("{:?} is not a path", path.display()), &error))?;
    let not_text = |path: std::ffi::OsString| {
        Failure::new(FailureKind::Usage, format!("the path {:?} is not valid UTF-8", path.to_string_lossy()))
    };
    absolute.into_os_string().into_string().map_err(not_text)
}
