//! `attachments`: what the daemon serves.

use super::Global;
use super::output::{print, table};
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::attachments::AttachmentView;
use crate::units::ByteSize;
use clap::Args;

/// List what the daemon serves, and on which sockets
#[derive(Debug, Args)]
pub struct AttachmentsArgs {}

pub(super) fn run(global: &Global, _args: AttachmentsArgs) -> Result<(), Failure> {
    let attachments: Vec<AttachmentView> = daemon(global)?.call("attachments", &())?;
    print(global.json, &attachments, |attachments| {
        table(&["VOLUME", "SIZE", "MODE", "QUEUES", "STATE", "SOCKET"], attachments.iter().map(row))
    })
}

fn row(attachment: &AttachmentView) -> Vec<String> {
    vec![
        attachment.volume.clone(),
        attachment.size.map_or_else(|| "-".into(), |size| ByteSize(size).to_string()),
        if attachment.read_only { "read-only".into() } else { "read-write".into() },
        attachment.queues.to_string(),
        state(attachment),
        attachment.socket.clone().unwrap_or_else(|| "inherited".into()),
    ]
}

/// The state, and why.
pub(super) fn state(attachment: &AttachmentView) -> String {
    match &attachment.reason {
        Some(reason) => format!("{} ({reason})", attachment.state),
        None => attachment.state.clone(),
    }
}
