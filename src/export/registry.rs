//! All attachments of a daemon.
//!
//! The lock is held for look-ups only: opening and closing volumes, which may take long, happen outside of it, with the
//! attachment's place taken by an entry in state Opening or Stopping.

use super::ExportError;
use super::attachment::{AttachRequest, AttachmentStatus, Endpoint, State};
use super::front_end::{Life, Source};
use super::held::Held;
use super::listener::Stop;
use super::socket::BoundSocket;
use crate::admin::branch::Opened;
use crate::admin::increment::received::before_writing;
use crate::device::{Device, DeviceOptions, RequestTimeout, Writes};
use crate::store::Store;
use crate::units::VolumeName;
use crate::volume::{Access, OpenOptions, Volume};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How the registry opens volumes and makes devices.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    pub open: OpenOptions,
    pub poll_max: Duration,
    /// For attachments that do not say.
    pub request_timeout: RequestTimeout,
}

pub struct Registry {
    pub(super) store: Arc<dyn Store>,
    pub(super) options: ExportOptions,
    entries: Mutex<Entries>,
}

#[derive(Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
    /// Held whether served or not ([`super::held`]).
    pub(super) held: BTreeMap<VolumeName, Held>,
    next_id: u64,
    stopping: bool,
}

struct Entry {
    id: u64,
    volume: VolumeName,
    socket: Option<PathBuf>,
    endpoint: String,
    queues: u16,
    access: Access,
    request_timeout: RequestTimeout,
    phase: Phase,
}

/// Where an entry is in its life, with what it owns there.
enum Phase {
    Opening,
    Serving(Serving),
    Failed { reason: String },
    Stopping,
}

struct Serving {
    life: Arc<Life>,
    /// Closed at the end, unless it is held open as well.
    volume: Arc<Volume>,
    thread: JoinHandle<()>,
    /// Dropped, and so its file removed, when the attachment ends.
    socket: Option<BoundSocket>,
}

/// What [`Registry::stop_all`] could not close in order.
pub type StopFailures = Vec<(VolumeName, ExportError)>;

impl Registry {
    pub fn new(store: Arc<dyn Store>, options: ExportOptions) -> Self {
        Self { store, options, entries: Mutex::new(Entries::default()) }
    }

    /// Opens the volume and starts to listen. Blocks.
    ///
    /// # Errors
    /// When the volume is attached already (read-only ones may be attached several times) or cannot be opened, or the socket
    /// cannot be made. Nothing is left behind then.
    pub fn attach(&self, request: AttachRequest) -> Result<AttachmentStatus, ExportError> {
        let (id, held) = self.reserve(&request)?;
        match self.start(request, held) {
            Ok(serving) => self.serve(id, serving),
            Err(error) => {
                self.lock().list.retain(|entry| entry.id != id);
                Err(error)
            }
        }
    }

    /// As [`Registry::attach`], but a volume that fails keeps its place in the list, so that people see why it is not
    /// served. For attachments that are configured.
    pub fn attach_or_keep_failure(&self, request: AttachRequest) -> Result<AttachmentStatus, ExportError> {
        let kept = |reason| Entry::new(0, &request, self.request_timeout(&request), Phase::Failed { reason });
        let mut entry = kept(String::new());
        self.attach(request).inspect_err(|error| {
            let mut entries = self.lock();
            entry.id = entries.new_id();
            entry.phase = Phase::Failed { reason: error.to_string() };
            entries.list.push(entry);
        })
    }

    /// Finishes what is in flight, closes the volume, removes the socket; of a volume that is attached several times, all of
    /// them. Blocks.
    ///
    /// # Errors
    /// When there is no such attachment, or the volume could not be closed in order (it is detached all the same).
    pub fn detach(&self, volume: &VolumeName) -> Result<(), ExportError> {
        self.detach_where(volume, None)
    }

    /// As [`Registry::detach`], but only the attachment at this socket.
    ///
    /// # Errors
    /// As [`Registry::detach`].
    pub fn detach_at(&self, volume: &VolumeName, socket: &Path) -> Result<(), ExportError> {
        self.detach_where(volume, Some(socket))
    }

    fn detach_where(&self, volume: &VolumeName, socket: Option<&Path>) -> Result<(), ExportError> {
        let taken = self.lock().take_for_stop(volume, socket);
        if taken.is_empty() {
            return Err(ExportError::NotAttached(volume.clone()));
        }
        let stop_one = |(id, phase)| {
            let result = self.close_unless_held(stop(phase));
            self.lock().list.retain(|entry| entry.id != id);
            result
        };
        // Each to its end, whatever became of the others.
        let results: Vec<_> = taken.into_iter().map(stop_one).collect();
        results.into_iter().collect()
    }

    /// Detaches everything at once and refuses new attachments. Blocks until the slowest is closed.
    pub fn stop_all(&self) -> StopFailures {
        let phases = self.lock().take_all();
        for (_, phase) in &phases {
            if let Phase::Serving(serving) = phase {
                serving.life.end();
            }
        }
        // What is held open is closed after whatever serves it.
        let mut held: BTreeMap<_, _> = self.lock().take_held().into_iter().collect();
        let mut closing = |(volume, phase): (VolumeName, Phase)| {
            let held = held.remove(&volume);
            (volume, thread::spawn(move || close(stop(phase).or(held))))
        };
        let mut threads: Vec<_> = phases.into_iter().map(&mut closing).collect();
        let rest = held.into_iter().map(|(volume, open)| (volume, thread::spawn(move || close(Some(open)))));
        threads.extend(rest);
        let results = threads.into_iter().map(|(volume, thread)| (volume, thread.join()));
        let failures =
            results.filter_map(|(volume, joined)| joined.unwrap_or(Ok(())).err().map(|error| (volume, error)));
        failures.collect()
    }

    /// Every attachment, by volume name.
    pub fn attachments(&self) -> Vec<AttachmentStatus> {
        let mut list: Vec<_> = self.lock().list.iter().map(Entry::status).collect();
        list.sort_by(|a, b| (&a.volume, &a.socket).cmp(&(&b.volume, &b.socket)));
        list
    }

    /// Blocks until the volume's attachment has nothing more to serve: its inherited connection ended, or it failed.
    pub fn wait_until_over(&self, volume: &VolumeName) {
        let serving = |entry: &Entry| match &entry.phase {
            Phase::Serving(serving) if entry.volume == *volume => Some(Arc::clone(&serving.life)),
            _ => None,
        };
        let life = self.lock().list.iter().find_map(serving);
        if let Some(life) = life {
            life.wait_until_over();
        }
    }

    /// Tells the guest that uses the volume, if one does, that its size changed.
    pub fn capacity_changed(&self, volume: &VolumeName) {
        let life = self.lock().serving(volume).map(|serving| Arc::clone(&serving.life));
        if let Some(life) = life {
            life.device.capacity_changed();
        }
    }

    /// A place for the attachment, and the volume if it is held open.
    fn reserve(&self, request: &AttachRequest) -> Result<(u64, Option<Arc<Volume>>), ExportError> {
        let mut entries = self.lock();
        if entries.stopping {
            return Err(ExportError::Stopping);
        }
        entries.forget_failure(request);
        entries.check_free(request)?;
        let held = entries.held_open(&request.volume)?;
        let id = entries.new_id();
        entries.list.push(Entry::new(id, request, self.request_timeout(request), Phase::Opening));
        Ok((id, held))
    }

    fn request_timeout(&self, request: &AttachRequest) -> RequestTimeout {
        request.request_timeout.unwrap_or(self.options.request_timeout)
    }

    fn start(&self, request: AttachRequest, held: Option<Arc<Volume>>) -> Result<Serving, ExportError> {
        if let Some(volume) = held {
            return self.listen(&volume, request);
        }
        let options = OpenOptions { access: request.access, ..self.options.open.clone() };
        let volume = Volume::open(&self.store, &request.volume, &options)?;
        let started = self.listen(&volume, request);
        started.inspect_err(|_| {
            if let Err(error) = volume.close() {
                tracing::warn!(volume = %volume.name(), %error, "cannot close the volume in order");
            }
        })
    }

    fn listen(&self, volume: &Arc<Volume>, request: AttachRequest) -> Result<Serving, ExportError> {
        let writes = match request.access {
            Access::ReadWrite => {
                before_writing(&self.store, volume)?;
                Writes::Allowed
            }
            Access::ReadOnly => Writes::Refused,
        };
        let options = DeviceOptions {
            queues: request.queues,
            writes,
            poll_max: self.options.poll_max,
            request_timeout: self.request_timeout(&request),
            ..DeviceOptions::default()
        };
        let device = Device::new(Arc::clone(volume), &options)?;
        let thread_error = |source| ExportError::Thread { volume: request.volume.clone(), source };
        let life = Arc::new(Life::new(request.volume.clone(), device, Stop::new().map_err(thread_error)?));
        let (source, socket) = open_endpoint(request.endpoint)?;
        let body = Arc::clone(&life);
        let thread = thread::Builder::new().name(format!("export-{}", request.volume));
        let thread = thread.spawn(move || body.run(source)).map_err(thread_error)?;
        Ok(Serving { life, volume: Arc::clone(volume), thread, socket })
    }

    /// The daemon may have been told to stop while the volume was opened.
    fn serve(&self, id: u64, serving: Serving) -> Result<AttachmentStatus, ExportError> {
        let mut entries = self.lock();
        let stopping = entries.stopping;
        match entries.list.iter_mut().find(|entry| entry.id == id).filter(|_| !stopping) {
            Some(entry) => {
                tracing::info!(volume = %entry.volume, endpoint = entry.endpoint, "attached");
                entry.phase = Phase::Serving(serving);
                Ok(entry.status())
            }
            None => {
                drop(entries);
                self.close_unless_held(stop(Phase::Serving(serving)))?;
                Err(ExportError::Stopping)
            }
        }
    }

    fn close_unless_held(&self, served: Option<Arc<Volume>>) -> Result<(), ExportError> {
        let is_held = |served: &Arc<Volume>| match self.lock().held.get(&served.name()) {
            Some(Held::Open(open)) => Arc::ptr_eq(open, served),
            _ => false,
        };
        close(served.filter(|served| !is_held(served)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So that verbs work on volumes while they are attached.
impl Opened for Registry {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        let entries = self.lock();
        let held = || entries.held_open(name).ok().flatten();
        entries.served(name).ok().flatten().or_else(held)
    }
}

impl Entries {
    fn serving(&self, volume: &VolumeName) -> Option<&Serving> {
        self.list.iter().find_map(|entry| match &entry.phase {
            Phase::Serving(serving) if entry.volume == *volume => Some(serving),
            _ => None,
        })
    }

    /// The volume, if it is served for writing.
    ///
    /// # Errors
    /// When it is attached otherwise, or not yet or no more.
    pub(super) fn served(&self, volume: &VolumeName) -> Result<Option<Arc<Volume>>, ExportError> {
        match self.list.iter().find(|entry| entry.volume == *volume).map(|entry| (&entry.phase, entry.access)) {
            None | Some((Phase::Failed { .. }, _)) => Ok(None),
            Some((Phase::Serving(serving), Access::ReadWrite)) => Ok(Some(Arc::clone(&serving.volume))),
            Some(_) => self.refuse_attached(volume).map(|()| None),
        }
    }

    /// # Errors
    /// When the volume is attached.
    pub(super) fn refuse_attached(&self, volume: &VolumeName) -> Result<(), ExportError> {
        let attached = |entry: &&Entry| entry.volume == *volume && !matches!(entry.phase, Phase::Failed { .. });
        match self.list.iter().find(attached) {
            Some(entry) => Err(ExportError::Attached { volume: volume.clone(), endpoint: entry.endpoint.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A failed attachment is replaced by a new try.
    fn forget_failure(&mut self, request: &AttachRequest) {
        self.list.retain(|entry| !entry.bars(request) || !matches!(entry.phase, Phase::Failed { .. }));
    }

    fn check_free(&self, request: &AttachRequest) -> Result<(), ExportError> {
        if let Some(entry) = self.list.iter().find(|entry| entry.bars(request)) {
            return Err(ExportError::Attached { volume: entry.volume.clone(), endpoint: entry.endpoint.clone() });
        }
        let path = request.endpoint.path();
        match self.list.iter().find(|entry| path.is_some() && entry.socket.as_deref() == path) {
            Some(entry) => Err(ExportError::SocketTaken { path: entry.endpoint.clone(), volume: entry.volume.clone() }),
            None => Ok(()),
        }
    }

    /// The volume's attachments, or the one at a socket, their places marked as Stopping.
    fn take_for_stop(&mut self, volume: &VolumeName, socket: Option<&Path>) -> Vec<(u64, Phase)> {
        let meant = |entry: &&mut Entry| {
            entry.volume == *volume
                && (socket.is_none() || entry.socket.as_deref() == socket)
                && matches!(entry.phase, Phase::Serving(_) | Phase::Failed { .. })
        };
        let taken = self.list.iter_mut().filter(meant);
        taken.map(|entry| (entry.id, std::mem::replace(&mut entry.phase, Phase::Stopping))).collect()
    }

    fn take_all(&mut self) -> Vec<(VolumeName, Phase)> {
        self.stopping = true;
        self.list.drain(..).map(|entry| (entry.volume, entry.phase)).collect()
    }
}

impl Entry {
    fn new(id: u64, request: &AttachRequest, request_timeout: RequestTimeout, phase: Phase) -> Self {
        Self {
            id,
            volume: request.volume.clone(),
            socket: request.endpoint.path().map(Path::to_owned),
            endpoint: request.endpoint.to_string(),
            queues: request.queues,
            access: request.access,
            request_timeout,
            phase,
        }
    }

    /// Whether the attachment asked for cannot be beside this one. Readers of one volume may, at sockets of their own.
    fn bars(&self, request: &AttachRequest) -> bool {
        let readers = self.access == Access::ReadOnly && request.access == Access::ReadOnly;
        let same_socket = self.socket.is_some() && self.socket.as_deref() == request.endpoint.path();
        self.volume == request.volume && (!readers || same_socket)
    }

    fn status(&self) -> AttachmentStatus {
        let (state, serving) = match &self.phase {
            Phase::Opening => (State::Opening, None),
            Phase::Serving(serving) => (serving.life.state(), Some(serving)),
            Phase::Failed { reason } => (State::Failed { reason: reason.clone() }, None),
            Phase::Stopping => (State::Stopping, None),
        };
        AttachmentStatus {
            volume: self.volume.clone(),
            socket: self.socket.clone(),
            endpoint: self.endpoint.clone(),
            queues: self.queues,
            access: self.access,
            request_timeout: self.request_timeout,
            state,
            size: serving.map(|serving| serving.volume.size()),
            statistics: serving.map(|serving| serving.life.device.statistics()).unwrap_or_default(),
            connections: serving.map_or(0, |serving| serving.life.connections.load(Ordering::Relaxed)),
        }
    }
}

fn open_endpoint(endpoint: Endpoint) -> Result<(Source, Option<BoundSocket>), ExportError> {
    match endpoint {
        Endpoint::Path { path, owner } => {
            let socket = BoundSocket::bind(&path, owner)?;
            let listener = socket.listener.try_clone().map_err(|source| ExportError::Listen { path, source })?;
            Ok((Source::Listener(listener), Some(socket)))
        }
        Endpoint::Listener(listener) => Ok((Source::Listener(listener), None)),
        Endpoint::Connection(stream) => Ok((Source::Connection(stream), None)),
    }
}

/// Ends an attachment that has been taken out of the list: no new front-end, then no old one. Returns the volume, to be closed.
fn stop(phase: Phase) -> Option<Arc<Volume>> {
    let Phase::Serving(Serving { life, volume, thread, socket }) = phase else { return None };
    life.end();
    drop(socket);
    if thread.join().is_err() {
        tracing::error!(volume = %life.volume, "the attachment's thread ended by a fault of archvhost's own");
    }
    // What was answered early may still be written: nobody else may have the volume before.
    life.device.settle();
    tracing::info!(volume = %life.volume, "detached");
    Some(volume)
}

fn close(volume: Option<Arc<Volume>>) -> Result<(), ExportError> {
    Ok(volume.map_or(Ok(()), |volume| volume.close())?)
}
