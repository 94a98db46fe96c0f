//! What the daemon serves.

use super::Context;
use crate::control::failure::{Failure, FailureKind};
use crate::control::protocol::PROTOCOL;
use crate::control::protocol::attachments::{AttachmentView, StatusView, StoreView};
use crate::control::protocol::holding::HeldView;
use crate::control::protocol::params::{AttachParams, DetachParams, NameParams};
use crate::daemon::Daemon;
use crate::device::{QUEUES_DEFAULT, QUEUES_MAX, RequestTimeout};
use crate::export::{AttachRequest, Endpoint};
use crate::units::VolumeName;
use crate::volume::Access;
use std::path::{Path, PathBuf};

pub(super) fn attach(context: &Context, params: AttachParams) -> Result<AttachmentView, Failure> {
    let path = PathBuf::from(params.socket);
    if !path.is_absolute() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("the socket's path must be absolute, and {} is not", path.display()),
        ));
    }
    let request = AttachRequest {
        volume: VolumeName::new(&params.name)?,
        endpoint: Endpoint::Path { path, owner: context.socket_owner },
        queues: queues(params.queues)?,
        access: if params.read_only { Access::ReadOnly } else { Access::ReadWrite },
        request_timeout: params.request_timeout.map(request_timeout).transpose()?,
    };
    Ok(context.daemon.attach(request)?.into())
}

pub(super) fn detach(daemon: &Daemon, params: DetachParams) -> Result<NameParams, Failure> {
    daemon.detach(&VolumeName::new(&params.name)?, params.socket.as_deref().map(Path::new))?;
    Ok(NameParams { name: params.name })
}

pub(super) fn attachments(daemon: &Daemon) -> Vec<AttachmentView> {
    daemon.attachments().into_iter().map(AttachmentView::from).collect()
}

pub(super) fn status(daemon: &Daemon) -> StatusView {
    let store = daemon.store_info();
    StatusView {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: PROTOCOL,
        pid: std::process::id(),
        uptime_seconds: daemon.uptime().as_secs(),
        store: StoreView {
            url: store.url.clone(),
            method: store.method.clone(),
            io_align: store.io_align,
            persistent: store.persistent,
        },
        attachments: attachments(daemon),
        held: daemon.held().into_iter().map(HeldView::from).collect(),
    }
}

fn request_timeout(seconds: u32) -> Result<RequestTimeout, Failure> {
    RequestTimeout::from_seconds(seconds.into()).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
}

/// One queue unless said otherwise.
///
/// # Errors
/// When there are none or too many.
pub fn queues(queues: Option<u16>) -> Result<u16, Failure> {
    let queues = queues.unwrap_or(QUEUES_DEFAULT);
    let refused =
        || Failure::new(FailureKind::Usage, format!("a device has 1 to {QUEUES_MAX} queues, and {queues} is not"));
    if (1..=QUEUES_MAX).contains(&queues) { Ok(queues) } else { Err(refused()) }
}
