//! The thread of one attachment: accept a front-end, serve it until it goes, accept the next.

use super::attachment::State;
use super::listener::{Stop, accept};
use crate::device::{Device, DeviceError};
use crate::log_budget::LogBudget;
use crate::units::VolumeName;
use std::error::Error;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What the thread and the registry share.
pub struct Life {
    pub volume: VolumeName,
    pub device: Arc<Device>,
    pub stop: Stop,
    pub connections: AtomicU64,
    /// A front-end can connect and leave as often as it likes.
    log: LogBudget,
    inner: Mutex<Inner>,
    over: Condvar,
}

struct Inner {
    state: State,
    /// Whether the thread has nothing more to do.
    over: bool,
}

/// Where the thread gets its front-ends from.
pub enum Source {
    Listener(UnixListener),
    Connection(UnixStream),
}

impl Life {
    pub fn new(volume: VolumeName, device: Arc<Device>, stop: Stop) -> Self {
        let inner = Mutex::new(Inner { state: State::Listening { last_error: None }, over: false });
        let log = LogBudget::new(format!("the front-ends of volume {volume}"));
        Self { volume, device, stop, connections: AtomicU64::new(0), log, inner, over: Condvar::new() }
    }

    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Blocks until the thread has nothing more to do.
    pub fn wait_until_over(&self) {
        let waited = self.over.wait_while(self.lock(), |inner| !inner.over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn enter(&self, next: State) {
        let mut inner = self.lock();
        if inner.state != State::Stopping {
            inner.state = next;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread, once the requests in flight are finished. Does not wait.
    pub fn end(&self) {
        self.enter(State::Stopping);
        self.stop.stop();
        self.device.stop();
    }

    /// The thread's body.
    pub fn run(&self, source: Source) {
        match source {
            Source::Connection(stream) => self.serve(stream),
            Source::Listener(listener) => self.serve_all(&listener),
        }
        self.lock().over = true;
        self.over.notify_all();
    }

    fn serve_all(&self, listener: &UnixListener) {
        loop {
            match accept(listener, &self.stop) {
                Ok(Some(stream)) => self.serve(stream),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(volume = %self.volume, %error, "cannot accept front-ends any more");
                    return self.enter(State::Failed { reason: format!("cannot accept front-ends: {error}") });
                }
            }
            if matches!(self.state(), State::Failed { .. } | State::Stopping) {
                return;
            }
        }
    }

    fn serve(&self, stream: UnixStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.enter(State::Connected { since: SystemTime::now() });
        if self.log.allows() {
            tracing::info!(volume = %self.volume, "a front-end connected");
        }
        // A fault of ours in one device must not end the process that serves the others.
        let next = match catch_unwind(AssertUnwindSafe(|| self.device.serve(stream))) {
            Ok(Ok(())) => self.disconnected(),
            Ok(Err(error)) => self.broken(&error),
            Err(_) => {
                State::Failed { reason: "a fault of archvhost's own, see the log: detach and attach again".into() }
            }
        };
        self.enter(next);
    }

    fn disconnected(&self) -> State {
        if self.log.allows() {
            tracing::info!(volume = %self.volume, "the front-end disconnected");
        }
        State::Listening { last_error: None }
    }

    fn broken(&self, error: &DeviceError) -> State {
        let text = with_causes(error);
        if self.log.allows() {
            tracing::warn!(volume = %self.volume, error = %text, "the connection to the front-end ended badly");
        }
        State::Listening { last_error: Some(text) }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
