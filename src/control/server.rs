//! Accepts clients on the control socket.
//!
//! Lives on its own small runtime; every client is checked (see [`super::peer`]) before anything it sends is read.

use super::connection::{refuse, serve, stopped};
use super::failure::{Failure, FailureKind};
use super::methods::Context;
use super::peer::{Admitted, admit};
use crate::log_budget::LogBudget;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients at once; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 64;

/// Pause after a failed accept: it fails when descriptors run out, and trying at once would burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves clients until `stop` becomes true; returns when their requests have ended.
///
/// # Errors
/// When the socket cannot be used.
pub async fn run(context: Arc<Context>, listener: StdListener, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let admitted = admitted(&listener)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let for_clients = stop.clone();
    let mut clients = JoinSet::new();
    let log = LogBudget::new("the clients of the control socket");
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            _ = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept(), if clients.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => welcome(&mut clients, &context, stream, admitted, &for_clients, &log),
                Err(error) => {
                    if log.allows() {
                        tracing::warn!(%error, "cannot accept a control connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
    Ok(())
}

fn welcome(
    clients: &mut JoinSet<()>,
    context: &Arc<Context>,
    stream: UnixStream,
    admitted: Admitted,
    stop: &watch::Receiver<bool>,
    log: &LogBudget,
) {
    match admit(&stream, admitted) {
        Ok(Ok(())) => {
            clients.spawn(serve(Arc::clone(context), stream, stop.clone()));
        }
        Ok(Err(user)) => {
            if log.allows() {
                tracing::warn!(user, "refused a control connection");
            }
            let text = format!(
                "user {user} may not use this control socket: it is for root, user {} and group {}",
                admitted.user, admitted.group
            );
            clients.spawn(refuse(stream, Failure::new(FailureKind::Denied, text).into()));
        }
        Err(error) if log.allows() => tracing::warn!(%error, "cannot tell who connected to the control socket"),
        Err(_) => {}
    }
}

/// The socket file's group counts; a socket without a file admits our own group.
fn admitted(listener: &StdListener) -> io::Result<Admitted> {
    let address = listener.local_addr()?;
    let file_group = address.as_pathname().and_then(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.gid());
    let group = file_group.unwrap_or_else(|| rustix::process::getegid().as_raw());
    Ok(Admitted { user: rustix::process::geteuid().as_raw(), group })
}
