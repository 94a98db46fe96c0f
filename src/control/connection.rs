//! One client's connection: reads requests, runs them, sends answers and progress.
//!
//! Requests of one connection run side by side, a bounded number of them; a client that wants an order waits for the
//! answers. When the client goes, its jobs are cancelled: nobody waits for them any more.

use super::failure::{Failure, FailureKind};
use super::lines::{Inbox, Limit, LineError};
use super::methods::{Call, Context, Method, run};
use super::protocol::{CancelParams, ErrorObject, ProgressParams, Reply, Request, code};
use crate::admin::job::Job;
use serde_json::Value;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Requests of one connection that run at once; one more is refused.
const REQUESTS_MAX: usize = 16;

/// Bytes of an id that is a string: every progress message repeats it.
const ID_BYTES_MAX: usize = 256;

/// Answers and progress messages on their way to a client that reads slowly.
const OUTBOX_MAX: usize = 64;

/// How often a running job's progress is sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How long a client may take to accept an answer before it is given up.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// What the tasks of one connection share.
struct Shared {
    context: Arc<Context>,
    outbox: mpsc::Sender<Reply>,
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    permits: Arc<Semaphore>,
}

/// Serves the connection until the client closes it or `stop` changes; returns when all its jobs have ended.
pub async fn serve(context: Arc<Context>, stream: UnixStream, mut stop: watch::Receiver<bool>) {
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    let shared = Arc::new(Shared { context, outbox, jobs: Mutex::default(), permits });
    let (reader, writer) = stream.into_split();
    let mut writing = tokio::spawn(write(writer, messages));
    let mut running = JoinSet::new();
    let writer_ended = tokio::select! {
        result = read(reader.as_ref(), &shared, &mut running) => {
            shared.report_end(result).await;
            false
        }
        () = stopped(&mut stop) => false,
        _ = &mut writing => true,
    };
    shared.cancel_all();
    while running.join_next().await.is_some() {}
    drop(shared);
    if !writer_ended {
        let _ = writing.await;
    }
}

/// Returns when the daemon is to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the daemon.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn write(mut writer: OwnedWriteHalf, mut messages: mpsc::Receiver<Reply>) {
    while let Some(message) = messages.recv().await {
        let Ok(mut line) = serde_json::to_vec(&message) else { continue };
        line.push(b'\n');
        let sent = tokio::time::timeout(SEND_PATIENCE, writer.write_all(&line)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// Until the client closes its side.
async fn read(stream: &UnixStream, shared: &Arc<Shared>, running: &mut JoinSet<()>) -> Result<(), LineError> {
    let mut inbox = Inbox::default();
    loop {
        while let Some(line) = inbox.line() {
            if !line.trim_ascii().is_empty() {
                shared.handle(&line, &mut inbox, running).await;
            }
        }
        if inbox.is_closed() {
            return Ok(());
        }
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || match inbox.receive(stream.as_fd(), Limit::Message) {
            Err(LineError::Socket(error)) => Err(error),
            other => Ok(other),
        });
        match received {
            Ok(result) => result?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        while running.try_join_next().is_some() {}
    }
}

impl Shared {
    /// Starts what the line asks for, or answers at once that it cannot.
    async fn handle(self: &Arc<Self>, line: &[u8], inbox: &mut Inbox, running: &mut JoinSet<()>) {
        let request = match parse(line) {
            Ok(request) => request,
            Err((id, error)) => return self.send(Reply::error(id, error)).await,
        };
        if request.method == "cancel" {
            return self.answer_cancel(request).await;
        }
        // A notification asks for no answer, and nothing that we do should go unanswered.
        let Some(id) = request.id else { return };
        let Some(method) = Method::named(&request.method) else {
            let version = env!("CARGO_PKG_VERSION");
            let text = format!("this daemon, archvhost {version}, has no method {:?}", request.method);
            return self.send(Reply::error(id, ErrorObject::new(code::METHOD_NOT_FOUND, text))).await;
        };
        let descriptor = if method.takes_descriptor() { inbox.descriptor() } else { None };
        self.start(id, Call { method, params: request.params, descriptor }, running).await;
    }

    async fn start(self: &Arc<Self>, id: Value, call: Call, running: &mut JoinSet<()>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let text = format!("more than {REQUESTS_MAX} requests at once on one connection");
            return self.send(Reply::error(id, Failure::new(FailureKind::Busy, text).into())).await;
        };
        let job = Arc::new(Job::default());
        if !self.enlist(&id, &job) {
            let error = ErrorObject::new(code::INVALID_REQUEST, "a request with this id is running");
            return self.send(Reply::error(id, error)).await;
        }
        let shared = Arc::clone(self);
        running.spawn(async move {
            let reply = shared.run(&id, call, job).await;
            shared.jobs().remove(&id.to_string());
            shared.send(reply).await;
            drop(permit);
        });
    }

    /// Notes the job for [`Shared::answer_cancel`]; not when its id is in use.
    fn enlist(&self, id: &Value, job: &Arc<Job>) -> bool {
        let mut jobs = self.jobs();
        let free = !jobs.contains_key(&id.to_string());
        if free {
            jobs.insert(id.to_string(), Arc::clone(job));
        }
        free
    }

    /// Runs the call on a blocking thread and tells of its progress.
    async fn run(self: &Arc<Self>, id: &Value, call: Call, job: Arc<Job>) -> Reply {
        let (context, running_job) = (Arc::clone(&self.context), Arc::clone(&job));
        let mut work = tokio::task::spawn_blocking(move || run(&context, call, &running_job));
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        interval.tick().await;
        let finished = loop {
            tokio::select! {
                finished = &mut work => break finished,
                _ = interval.tick() => self.send_progress(id, &job),
            }
        };
        match finished {
            Ok(Ok(result)) => Reply::result(id.clone(), result),
            Ok(Err(error)) => Reply::error(id.clone(), error),
            Err(error) => {
                tracing::error!(%error, "a request ended by a fault of archvhost's own");
                let text = "a fault of archvhost's own, see the daemon's log";
                Reply::error(id.clone(), Failure::new(FailureKind::Failed, text).into())
            }
        }
    }

    /// Progress that cannot be sent at once is not worth waiting for.
    fn send_progress(&self, id: &Value, job: &Job) {
        let progress = job.progress();
        if progress.done != 0 || progress.total != 0 {
            let params = ProgressParams { id: id.clone(), done: progress.done, total: progress.total };
            let _ = self.outbox.try_send(Reply::progress(&params));
        }
    }

    async fn answer_cancel(&self, request: Request) {
        let params = serde_json::from_value::<CancelParams>(request.params);
        let result = params.map_err(|error| ErrorObject::new(code::INVALID_PARAMS, error.to_string())).map(|params| {
            let job = self.jobs().get(&params.id.to_string()).cloned();
            let found = job.is_some();
            if let Some(job) = job {
                job.cancel();
            }
            serde_json::json!({ "found": found })
        });
        let Some(id) = request.id else { return };
        let reply = match result {
            Ok(value) => Reply::result(id, value),
            Err(error) => Reply::error(id, error),
        };
        self.send(reply).await;
    }

    /// The client's last message, if it was in error, is answered before the connection closes.
    async fn report_end(&self, result: Result<(), LineError>) {
        match result {
            Ok(()) => {}
            Err(LineError::Socket(error)) => tracing::debug!(%error, "a control connection broke"),
            Err(error @ (LineError::TooLong | LineError::TooManyDescriptors)) => {
                let object = ErrorObject::new(code::INVALID_REQUEST, error.to_string());
                self.send(Reply::error(Value::Null, object)).await;
            }
        }
    }

    fn cancel_all(&self) {
        self.jobs().values().for_each(|job| job.cancel());
    }

    async fn send(&self, reply: Reply) {
        // It fails when the client is gone, which is the client's loss.
        let _ = self.outbox.send(reply).await;
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(line: &[u8]) -> Result<Request, (Value, ErrorObject)> {
    let parse_error = |error: serde_json::Error| (Value::Null, ErrorObject::new(code::PARSE, error.to_string()));
    let value: Value = serde_json::from_slice(line).map_err(parse_error)?;
    let id = value.get("id").filter(|id| is_id(id)).cloned().unwrap_or(Value::Null);
    let invalid = |text: String| (id.clone(), ErrorObject::new(code::INVALID_REQUEST, text));
    if value.is_array() {
        return Err(invalid("batches are not supported: send one request per line".into()));
    }
    if value.get("id").is_some_and(|id| !is_id(id)) {
        return Err(invalid(format!("an id is a number or a string of at most {ID_BYTES_MAX} bytes")));
    }
    let request: Request = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    if request.jsonrpc == "2.0" { Ok(request) } else { Err(invalid("\"jsonrpc\" must be \"2.0\"".into())) }
}

fn is_id(id: &Value) -> bool {
    id.is_number() || id.as_str().is_some_and(|id| id.len() <= ID_BYTES_MAX)
}

/// Tells a client that it is not wanted, and why.
pub async fn refuse(mut stream: UnixStream, error: ErrorObject) {
    let Ok(mut line) = serde_json::to_vec(&Reply::error(Value::Null, error)) else { return };
    line.push(b'\n');
    let _ = tokio::time::timeout(SEND_PATIENCE, stream.write_all(&line)).await;
}
