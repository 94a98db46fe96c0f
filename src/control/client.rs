//! The other end of the control socket, for the command line. Blocks; one request at a time.

use super::failure::{Failure, FailureKind};
use super::lines::{Inbox, Limit, LineError, send};
use super::protocol::{HelloParams, HelloResult, PROTOCOL, ProgressParams, Reply, Request};
use crate::admin::job::Job;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often we look whether the user wants to cancel while we wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    inbox: Inbox,
    next_id: u64,
    server: HelloResult,
}

/// Why there is no client.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens there: the store may be used directly.
    NobodyListens,
    /// Somebody does, and it did not work.
    Failure(Failure),
}

impl Client {
    /// Connects and greets.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let stream = UnixStream::connect(path).map_err(|error| connect_error(path, &error))?;
        let failed = |error: io::Error| ConnectError::Failure(talk_error(path, &error));
        stream.set_read_timeout(Some(LOOK_INTERVAL)).map_err(failed)?;
        let server = HelloResult { protocol: PROTOCOL, version: String::new(), store: String::new() };
        let mut client = Self { path: path.to_owned(), stream, inbox: Inbox::default(), next_id: 1, server };
        client.server = client.call("hello", &HelloParams { protocol: PROTOCOL }).map_err(ConnectError::Failure)?;
        Ok(client)
    }

    /// What the daemon said about itself.
    pub fn server(&self) -> &HelloResult {
        &self.server
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the daemon answers, or that it does not.
    pub fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, Failure> {
        self.call_job(method, params, None, &Job::default())
    }

    /// As [`Client::call`], for requests that take long: the job shows the progress, and cancelling it cancels the
    /// request (the answer is waited for all the same, since it says how things were left).
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub fn call_job<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
        job: &Job,
    ) -> Result<T, Failure> {
        let id = self.send(method, params, descriptor)?;
        let mut cancelled = false;
        loop {
            while let Some(line) = self.inbox.line() {
                if let Some(result) = self.answer(&line, id, job)? {
                    return serde_json::from_value(result).map_err(|error| self.misunderstood(&error));
                }
            }
            if job.is_cancelled() && !cancelled {
                cancelled = true;
                self.send("cancel", &serde_json::json!({ "id": id }), None)?;
            }
            self.receive()?;
        }
    }

    fn send(
        &mut self,
        method: &str,
        params: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<u64, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let params = serde_json::to_value(params).map_err(|error| self.misunderstood(&error))?;
        let request = Request { jsonrpc: "2.0".into(), id: Some(id.into()), method: method.into(), params };
        let mut line = serde_json::to_vec(&request).map_err(|error| self.misunderstood(&error))?;
        line.push(b'\n');
        send(self.stream.as_fd(), &line, descriptor).map_err(|error| talk_error(&self.path, &error))?;
        Ok(id)
    }

    fn receive(&mut self) -> Result<(), Failure> {
        match self.inbox.receive(self.stream.as_fd(), Limit::None) {
            Err(LineError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(talk_error(&self.path, &error)),
            Ok(()) if self.inbox.is_closed() => {
                let text = format!("the daemon on {} closed the connection without an answer", self.path.display());
                Err(Failure::new(FailureKind::Unreachable, text))
            }
            Ok(()) => Ok(()),
        }
    }

    /// The result, when the line is the answer to request `id`.
    fn answer(&self, line: &[u8], id: u64, job: &Job) -> Result<Option<Value>, Failure> {
        let reply: Reply = serde_json::from_slice(line).map_err(|error| self.misunderstood(&error))?;
        if reply.method.as_deref() == Some("progress") {
            if let Some(progress) =
                reply.params.and_then(|params| serde_json::from_value::<ProgressParams>(params).ok())
            {
                job.set_total(progress.total);
                job.reached(progress.done);
            }
            return Ok(None);
        }
        // An error without an id is about the connection as a whole.
        let about_us = reply.id.as_ref().is_none_or(|reply_id| reply_id.is_null() || reply_id.as_u64() == Some(id));
        match reply.error {
            Some(error) if about_us => Err(error.into_failure()),
            _ => Ok(reply.result.filter(|_| about_us)),
        }
    }

    fn misunderstood(&self, error: &serde_json::Error) -> Failure {
        let text =
            format!("what the daemon on {} says is not understood: are the versions the same?", self.path.display());
        Failure::because(FailureKind::Protocol, text, error)
    }
}

fn connect_error(path: &Path, error: &io::Error) -> ConnectError {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    match error.kind() {
        ConnectionRefused | NotFound => ConnectError::NobodyListens,
        PermissionDenied => {
            let text =
                format!("you may not use the control socket {}: be root or a member of its group", path.display());
            ConnectError::Failure(Failure::because(FailureKind::Denied, text, error))
        }
        _ => ConnectError::Failure(talk_error(path, error)),
    }
}

fn talk_error(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::because(FailureKind::Unreachable, format!("cannot talk to the daemon on {}", path.display()), error)
}
