//! The life of a daemon's process: open the store, listen, attach, say that it is ready, wait, stop in order.
//!
//! ```text
//!   start ─► ready ──SIGTERM, SIGINT, SIGHUP──► stopping ─► exit 0
//!     │        └── one volume: its front-end left, or it failed ──┘   │ a second signal, or too slow ─► exit 1
//!     └─ error ─► exit with its code
//! ```

use super::collecting::collect_now_and_then;
use super::settings::{ControlSocket, Form, Settings};
use crate::admin::create::CreateRequest;
use crate::config::collection::Interval;
use crate::config::soft_journal;
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Context;
use crate::control::server;
use crate::daemon::{Daemon, DaemonOptions};
use crate::export::socket::BoundSocket;
use crate::export::{AttachRequest, ExportOptions, State};
use crate::store::open::open;
use crate::units::{ObjectSize, VolumeName, VolumeSize};
use crate::volume::{Access, OpenOptions, VolumeErrorKind};
use sd_notify::NotifyState;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Threads of the control plane: it waits most of the time.
const RUNTIME_THREADS: usize = 2;

/// How long an orderly stop may take before the process ends as it is, when a store hangs. That is what a crash does: the
/// volumes have every completed write, and docs/operations.md says what it means for guests that run on.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

const TOO_SLOW: &str = "a volume does not close, or a request does not end: ending without it, as a crash would \
    (completed writes are kept, requests in flight are not finished)";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start, or cannot stop in order.
pub fn live(settings: Settings) -> Result<(), Failure> {
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::new() }).map_err(|error| cannot("handle signals", &error))?;
    let context = Arc::new(context(&settings)?);
    let result = match settings.form {
        Form::Host { control, attach, gc_interval } => {
            host(&runtime, &context, HostForm { control, attach, gc_interval }, signals)
        }
        Form::OneVolume { request, scratch_size } => one_volume(&runtime, &context, request, scratch_size, signals),
    };
    // What still runs is a verb whose client is gone and that could not be cancelled.
    runtime.shutdown_background();
    result
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime =
        Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).thread_name("control").enable_all().build();
    runtime.map_err(|error| cannot("start the control threads", &error))
}

fn context(settings: &Settings) -> Result<Context, Failure> {
    let soft_journal_dir = soft_journal::prepare(settings.soft_journal_dir.as_deref())?;
    let store = open(&settings.store, &settings.store_options)?;
    tracing::info!(store = store.info().url, method = store.info().method, "opened the store");
    let open = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir,
        cache_bytes: settings.map_cache.0,
        granule_bytes: settings.granule.0,
        lease: settings.lease.clone(),
    };
    let options = DaemonOptions {
        export: ExportOptions { open, poll_max: settings.poll_max, request_timeout: settings.request_timeout },
        collect_memory_bytes: settings.gc_memory.0,
        collect_spill_dir: settings.gc_spill_dir.clone(),
    };
    let daemon = Daemon::new(store, options);
    Ok(Context { daemon, socket_owner: settings.socket_owner })
}

struct HostForm {
    control: Option<ControlSocket>,
    attach: Vec<AttachRequest>,
    gc_interval: Interval,
}

fn host(runtime: &Runtime, context: &Arc<Context>, form: HostForm, mut signals: Signals) -> Result<(), Failure> {
    // First of all: a second daemon on the same socket must not touch a volume.
    let control = form.control.map(listen).transpose()?;
    let (stop, stopping) = watch::channel(false);
    runtime.block_on(async {
        let serving = control.as_ref().map(|control| control.serve(context, stopping.clone())).transpose()?;
        attach_all(context, form.attach).await;
        let collecting = tokio::spawn(collect_now_and_then(Arc::clone(context), form.gc_interval, stopping));
        notify(&[NotifyState::Ready]);
        tracing::info!("ready");
        signals.next().await;
        notify(&[NotifyState::Stopping]);
        let _ = stop.send(true);
        let requests_ended = async {
            if let Some(serving) = serving {
                let _ = serving.await;
            }
            let _ = collecting.await;
        };
        // Side by side: a request that hangs must not keep the volumes from being closed.
        let orderly = async { tokio::join!(stop_daemon(context), requests_ended).0 };
        within_patience(orderly, &mut signals).await
    })
}

/// The control socket, and the file that goes with it.
struct Control {
    listener: UnixListener,
    _file: Option<BoundSocket>,
}

fn listen(control: ControlSocket) -> Result<Control, Failure> {
    match control {
        ControlSocket::Inherited(listener) => Ok(Control { listener, _file: None }),
        ControlSocket::Path { path, owner } => {
            let file = BoundSocket::bind(&path, owner)?;
            let listener = file.listener.try_clone().map_err(|error| cannot("use the control socket", &error))?;
            tracing::info!(path = %path.display(), "listening for control connections");
            Ok(Control { listener, _file: Some(file) })
        }
    }
}

impl Control {
    fn serve(&self, context: &Arc<Context>, stop: watch::Receiver<bool>) -> Result<JoinHandle<()>, Failure> {
        let listener = self.listener.try_clone().map_err(|error| cannot("use the control socket", &error))?;
        let context = Arc::clone(context);
        Ok(tokio::spawn(async move {
            if let Err(error) = server::run(context, listener, stop).await {
                tracing::error!(%error, "the control socket cannot be served");
            }
        }))
    }
}

/// All at once: a volume that is slow to open makes nobody wait but itself.
async fn attach_all(context: &Arc<Context>, requests: Vec<AttachRequest>) {
    let start = |request| {
        let context = Arc::clone(context);
        tokio::task::spawn_blocking(move || context.daemon.attach_configured(request))
    };
    let attaching: Vec<_> = requests.into_iter().map(start).collect();
    for attached in attaching {
        if let Err(error) = attached.await {
            tracing::error!(%error, "attaching a volume ended by a fault of archvhost's own");
        }
    }
}

fn one_volume(
    runtime: &Runtime,
    context: &Arc<Context>,
    request: AttachRequest,
    scratch_size: VolumeSize,
    mut signals: Signals,
) -> Result<(), Failure> {
    let volume = request.volume.clone();
    make_scratch_volume(&context.daemon, &volume, scratch_size)?;
    context.daemon.attach(request)?;
    notify(&[NotifyState::Ready]);
    tracing::info!(%volume, "ready");
    runtime.block_on(async {
        let (waiting, watched) = (Arc::clone(context), volume.clone());
        let over = tokio::task::spawn_blocking(move || waiting.daemon.wait_until_over(&watched));
        let failed = tokio::select! {
            () = signals.next() => None,
            _ = over => failure_of(&context.daemon, &volume),
        };
        notify(&[NotifyState::Stopping]);
        let stopped = within_patience(stop_daemon(context), &mut signals).await;
        failed.map_or(stopped, Err)
    })
}

/// A store that keeps nothing has no volume to serve unless we make one.
fn make_scratch_volume(daemon: &Daemon, name: &VolumeName, size: VolumeSize) -> Result<(), Failure> {
    if daemon.store_info().persistent {
        return Ok(());
    }
    let request = CreateRequest { name: name.clone(), size, object_size: ObjectSize::DEFAULT };
    match daemon.create(&request) {
        Err(crate::daemon::DaemonError::Volume(error)) if error.kind() == VolumeErrorKind::Exists => Ok(()),
        created => Ok(created.map(drop)?),
    }
}

fn failure_of(daemon: &Daemon, volume: &VolumeName) -> Option<Failure> {
    let state = daemon.attachments().into_iter().find(|status| status.volume == *volume)?.state;
    match state {
        State::Failed { reason } => Some(Failure::new(FailureKind::Failed, format!("volume {volume}: {reason}"))),
        State::Listening { last_error: Some(reason) } => {
            Some(Failure::new(FailureKind::Failed, format!("volume {volume}: {reason}")))
        }
        State::Opening | State::Listening { last_error: None } | State::Connected { .. } | State::Stopping => None,
    }
}

async fn stop_daemon(context: &Arc<Context>) -> Result<(), Failure> {
    let context = Arc::clone(context);
    let stopped = tokio::task::spawn_blocking(move || context.daemon.stop()).await;
    let failures = stopped.map_err(|error| cannot("stop in order", &error))?;
    let mut first = None;
    for (volume, error) in failures {
        let failure = Failure::from(error);
        tracing::error!(%volume, error = %failure, "a volume could not be closed in order");
        first.get_or_insert(failure);
    }
    first.map_or(Ok(()), Err)
}

async fn within_patience(
    orderly: impl Future<Output = Result<(), Failure>>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    tracing::info!("stopping");
    let hurried = |text: &str| Err(Failure::new(FailureKind::Failed, text));
    tokio::select! {
        result = tokio::time::timeout(STOP_PATIENCE, orderly) => match result {
            Ok(result) => result,
            Err(_) => hurried(TOO_SLOW),
        },
        () = signals.next() => hurried("ended by a second signal before every volume was closed in order"),
    }
}

/// Whatever asks the daemon to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// For systemd, where it is there.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "cannot tell the supervisor");
    }
}

fn cannot(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::because(FailureKind::Failed, format!("cannot {what}"), error)
}
