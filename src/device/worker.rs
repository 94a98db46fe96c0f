//! The thread of one started virtqueue.
//!
//! ```text
//!   start ──► take orders → fetch chains → turn the port → answer → interrupt ──► anything done? yes: again
//!               ▲                                                     no: watch for a while (polling)
//!               └──────── port.wait ◄── ask for kicks, look once more ◄── nothing came
//!   stop: fetch no more, go on until nothing is unanswered, then end, but see late requests to their end
//! ```
//!
//! Kicks, completions and orders all end [`Port::wait`], so the thread has one place to sleep, and an idle queue costs
//! nothing. The kick descriptor is watched, never read.
//!
//! The session gives orders and waits until each is carried out, so what it answers to the front-end is true.

use super::connection::Connection;
use super::deadlines::Deadlines;
use super::error::DeviceError;
use super::event_fd::{EventFd, StuckWatch};
use super::features::Features;
use super::late::LateRequest;
use super::memory::Memory;
use super::nudge::nudge;
use super::polling::Polling;
use super::queue::{Condition, Queue};
use super::ring::{Notification, Ring, RingAddress, RingParts};
use super::shared::Shared;
use super::sigbus;
use crate::store::{Wake, WatchId};
use crate::volume::{Done, Port};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustc_hash::FxHashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a ring is looked at whose front-end gave no kick descriptor.
const KICKLESS_INTERVAL: Duration = Duration::from_micros(200);

/// How long an order is waited for between two looks whether the thread is stuck (see [`StuckWatch`]).
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How the guest tells that there is something in the ring.
#[derive(Debug, Clone)]
pub(super) enum Kick {
    Event(Arc<EventFd>),
    /// The front-end asked for polling.
    None,
}

/// All that a queue starts with.
pub(super) struct QueueStart {
    pub(super) index: u16,
    pub(super) size: u16,
    pub(super) next_available: u16,
    pub(super) address: RingAddress,
    pub(super) features: Features,
    pub(super) memory: Arc<Memory>,
    pub(super) kick: Kick,
    pub(super) call: Option<Arc<EventFd>>,
    pub(super) error: Option<Arc<EventFd>>,
}

/// What the session may change while the queue runs.
pub(super) enum Change {
    Memory(Arc<Memory>),
    Features(Features),
    Kick(Kick),
    Call(Option<Arc<EventFd>>),
    Error(Option<Arc<EventFd>>),
    Enabled(bool),
}

pub(super) enum Order {
    Change(Change, Sender<Result<(), DeviceError>>),
    Stop(Sender<Stopped>),
}

/// How a queue ended that was told to stop.
pub(super) struct Stopped {
    /// The available index up to which chains were taken.
    next_available: u16,
    /// Whether its thread goes on for a while, with late requests.
    lingers: bool,
}

/// The session's hold on a running queue.
pub(super) struct Running {
    index: u16,
    shared: Arc<Shared>,
    orders: Sender<Order>,
    waker: Arc<dyn Wake>,
    /// Every descriptor that the thread may be signalling: those it has, and those that an order brings or takes away.
    watches: Vec<StuckWatch>,
    thread: JoinHandle<()>,
    stopping: Stopping,
}

enum Stopping {
    No,
    /// Ordered; the outcome comes here.
    Begun(Receiver<Stopped>),
    /// `None` when the thread has died.
    Done(Option<Stopped>),
}

impl Running {
    /// Starts the queue's thread; returns when it serves the ring.
    pub(super) fn start(
        shared: &Arc<Shared>,
        connection: &Arc<Connection>,
        start: QueueStart,
    ) -> Result<Self, DeviceError> {
        let index = start.index;
        let watches = [&start.call, &start.error].into_iter().flatten().cloned().map(StuckWatch::new).collect();
        let (orders, incoming) = bounded(1);
        let (ready, is_ready) = bounded(1);
        let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("vq{index} {}", shared.volume.name()))
            .spawn(move || run(theirs, connection, start, incoming, &ready))
            .map_err(|source| DeviceError::Thread { queue: index, source })?;
        match is_ready.recv() {
            Ok(Ok(waker)) => Ok(Self { index, shared, orders, waker, watches, thread, stopping: Stopping::No }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(DeviceError::QueueDied { queue: index }),
        }
    }

    /// Has the change made; returns when it is.
    pub(super) fn order(&mut self, change: Change) -> Result<(), DeviceError> {
        if let Change::Call(Some(event)) | Change::Error(Some(event)) = &change {
            self.watches.push(StuckWatch::new(Arc::clone(event)));
        }
        let (result, outcome) = bounded(1);
        self.send(Order::Change(change, result))?;
        let result = self.wait(&outcome);
        self.watches.retain(StuckWatch::is_needed);
        result?
    }

    fn send(&self, order: Order) -> Result<(), DeviceError> {
        self.orders.send(order).map_err(|_| self.died())?;
        self.waker.wake();
        Ok(())
    }

    fn died(&self) -> DeviceError {
        DeviceError::QueueDied { queue: self.index }
    }

    fn wait<T>(&mut self, outcome: &Receiver<T>) -> Result<T, DeviceError> {
        loop {
            match outcome.recv_timeout(LOOK_EVERY) {
                Ok(outcome) => return Ok(outcome),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.unstick(),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Err(self.died()),
            }
        }
    }

    /// Has the queue take no more requests, and stop when those it has are finished.
    pub(super) fn begin_stop(&mut self) -> Result<(), DeviceError> {
        if let Stopping::No = self.stopping {
            let (stopped, outcome) = bounded(1);
            self.send(Order::Stop(stopped))?;
            self.stopping = Stopping::Begun(outcome);
        }
        Ok(())
    }

    /// Stops the queue when all its requests are finished; returns the available index up to which it took them.
    pub(super) fn stop(mut self) -> Result<u16, DeviceError> {
        let index = self.index;
        let begun = self.begin_stop();
        let stopped = match std::mem::replace(&mut self.stopping, Stopping::Done(None)) {
            Stopping::No => begun.and_then(|()| Err(self.died())),
            Stopping::Begun(outcome) => self.wait(&outcome),
            Stopping::Done(stopped) => stopped.ok_or_else(|| self.died()),
        };
        match stopped {
            Ok(Stopped { next_available, lingers: true }) => {
                self.shared.late.keep(self.thread);
                Ok(next_available)
            }
            Ok(Stopped { next_available, lingers: false }) => {
                self.thread.join().map_err(|_| DeviceError::QueueDied { queue: index })?;
                Ok(next_available)
            }
            Err(error) => {
                // How it died is in the log already.
                let _ = self.thread.join();
                Err(error)
            }
        }
    }

    /// Waits this long for a stop that was begun; looks whether the thread is stuck. Whether it has stopped.
    pub(super) fn has_stopped_within(&mut self, time: Duration) -> bool {
        let Stopping::Begun(outcome) = &self.stopping else { return true };
        match outcome.recv_timeout(time) {
            Ok(stopped) => self.stopping = Stopping::Done(Some(stopped)),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                self.unstick();
                return false;
            }
            // It died, which `stop` will report.
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => self.stopping = Stopping::Done(None),
        }
        true
    }

    fn unstick(&mut self) {
        // All are looked at, so no `any`, which would stop at the first.
        let stuck = self.watches.iter_mut().filter_map(|watch| watch.look().then_some(())).count();
        if stuck != 0
            && let Err(error) = nudge(&self.thread)
        {
            tracing::error!(queue = self.index, %error, "cannot interrupt a thread that a front-end holds up");
        }
    }
}

type Ready = Sender<Result<Arc<dyn Wake>, DeviceError>>;

fn run(shared: Arc<Shared>, connection: Arc<Connection>, start: QueueStart, orders: Receiver<Order>, ready: &Ready) {
    let death = DeathNotice { connection: Arc::clone(&connection), queue: start.index };
    match Worker::new(shared, connection, start, orders) {
        Ok(worker) => {
            let waker = worker.port.waker();
            // The receiver waits for this, and holds the queue until it has ordered its stop.
            let _ = ready.send(Ok(waker));
            let lingering = worker.serve();
            // The connection is over for this thread, and must not be kept from being closed.
            drop(death);
            lingering.see_to_its_end();
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// Ends the connection if the thread panics: a guest whose queue is dead must not wait for ever.
struct DeathNotice {
    connection: Arc<Connection>,
    queue: u16,
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if thread::panicking() {
            self.connection.fail(DeviceError::QueueDied { queue: self.queue });
        }
    }
}

pub(super) struct Worker {
    index: u16,
    connection: Arc<Connection>,
    port: Port,
    queue: Queue,
    kick: Kick,
    watch: Option<WatchId>,
    call: Option<Arc<EventFd>>,
    error: Option<Arc<EventFd>>,
    orders: Receiver<Order>,
    enabled: bool,
    stop: Option<Sender<Stopped>>,
    polling: Polling,
    done: Vec<Done>,
    /// Requests answered since the polling was told.
    answered: usize,
    losses_seen: u32,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Arc<Connection>,
        start: QueueStart,
        orders: Receiver<Order>,
    ) -> Result<Self, DeviceError> {
        let QueueStart { index, size, next_available, address, features, memory, kick, call, error } = start;
        // One behind, so that the first look is at memory that was lost before.
        let losses_seen = sigbus::losses().wrapping_sub(1);
        let port = Port::open(&shared.volume).map_err(|source| DeviceError::QueueStart { queue: index, source })?;
        let parts = RingParts::locate(&memory, address, size).expect("the session has located the ring");
        let ring = Ring::new(parts, size, next_available, notification(features));
        let polling = Polling::new(shared.poll_max);
        let deadlines = shared.request_timeout.map(|timeout| {
            let late = Arc::clone(&shared.late);
            Deadlines::new(timeout, late, port.waker(), size)
        });
        let queue = Queue::new(index, shared, deadlines, ring, address, memory, features);
        let mut worker = Self {
            index,
            connection,
            port,
            queue,
            kick: Kick::None,
            watch: None,
            call,
            error,
            orders,
            enabled: true,
            stop: None,
            polling,
            done: Vec::with_capacity(usize::from(size)),
            answered: 0,
            losses_seen,
        };
        worker.set_kick(kick)?;
        Ok(worker)
    }

    /// The thread's life while the queue is started. Returns what it still has to do when the queue has stopped.
    fn serve(mut self) -> Lingering {
        // A completion may have been published without an interrupt before a restart; one too many does no harm.
        self.interrupt();
        loop {
            self.take_orders();
            if self.is_drained() {
                break;
            }
            if self.turn() {
                self.polling.worked(std::mem::take(&mut self.answered));
            } else if self.polling.look_again() {
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
        if self.queue.condition == Condition::Good {
            // Whoever serves this ring next, we or another program, finds it asking for kicks.
            let _ = self.queue.ring.ask_for_kicks();
        }
        let next_available = self.queue.ring.next_available();
        let stop = self.stop.take();
        let lingering = self.retire();
        if let Some(stop) = stop {
            // The session waits for this; if it is gone, nobody needs it.
            let _ = stop.send(Stopped { next_available, lingers: !lingering.late.is_empty() });
        }
        lingering
    }

    /// Gives back what the thread holds of the front-end's and the guest's, before anybody is told that the queue has stopped.
    fn retire(self) -> Lingering {
        if let Some(watch) = self.watch {
            self.port.unwatch(watch);
        }
        Lingering { port: self.port, late: self.queue.into_late() }
    }

    fn is_drained(&self) -> bool {
        self.stop.is_some() && self.queue.in_flight() == 0
    }

    /// One round. Whether anything moved.
    pub(super) fn turn(&mut self) -> bool {
        self.check_memory();
        let mut moved = self.fetch();
        moved |= self.queue.go_on(&self.port);
        moved |= self.port.turn(&mut self.done);
        if !self.done.is_empty() {
            // Once more: memory lost while these were served was zeros to them.
            self.check_memory();
            self.answered += self.done.len();
            self.queue.finish(&mut self.done);
        }
        moved |= self.queue.give_up(&self.port);
        if self.queue.ring.publish() {
            self.interrupt();
        }
        moved
    }

    /// See [`Port::abandon`].
    pub(super) fn abandon(&mut self) {
        self.queue.abandon();
        self.port.abandon();
    }

    fn fetches(&self) -> bool {
        self.enabled && self.stop.is_none() && self.queue.condition == Condition::Good && self.queue.has_room()
    }

    fn fetch(&mut self) -> bool {
        if !self.fetches() {
            return false;
        }
        match self.queue.fetch(&self.port) {
            Ok(any) => any,
            Err(fault) => {
                self.break_off(fault);
                true
            }
        }
    }

    fn break_off(&mut self, fault: super::ring::RingFault) {
        self.queue.break_off(fault);
        if let Some(error) = &self.error {
            let _ = error.signal();
        }
    }

    fn check_memory(&mut self) {
        let losses = sigbus::losses();
        if losses == self.losses_seen {
            return;
        }
        self.losses_seen = losses;
        if self.queue.is_lost() {
            self.queue.lose_memory();
            self.connection.fail(DeviceError::MemoryLost);
        }
    }

    fn interrupt(&self) {
        self.queue.count_notification();
        if let Some(call) = &self.call {
            // An eventfd's write fails only when the descriptor is not one, which was checked.
            let _ = call.signal();
        }
    }

    fn sleep(&mut self) {
        let timeout = match (&self.kick, self.fetches()) {
            (Kick::None, true) => Some(KICKLESS_INTERVAL),
            (Kick::None | Kick::Event(_), _) => None,
        };
        if self.fetches() {
            match self.queue.ring.ask_for_kicks() {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return self.break_off(fault),
            }
        }
        self.port.wait([timeout, self.queue.time_left()].into_iter().flatten().min());
        if self.fetches() {
            self.queue.ring.refuse_kicks();
        }
    }

    #[inline]
    fn take_orders(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop(stopped) => {
                    self.stop = Some(stopped);
                    // The front-end waits, and with it its guest: not for requests that only a limit holds back.
                    self.port.let_through();
                }
                Order::Change(change, result) => {
                    let outcome = self.change(change);
                    // The session waits for this; if it is gone, nobody needs it.
                    let _ = result.send(outcome);
                }
            }
        }
    }

    fn change(&mut self, change: Change) -> Result<(), DeviceError> {
        match change {
            Change::Memory(memory) => self.queue.set_memory(memory),
            Change::Features(features) => {
                self.queue.features = features;
                self.queue.ring.set_notification(notification(features));
            }
            Change::Kick(kick) => self.set_kick(kick)?,
            Change::Call(call) => {
                self.call = call;
                self.interrupt();
            }
            Change::Error(error) => self.error = error,
            Change::Enabled(enabled) => self.enabled = enabled,
        }
        Ok(())
    }

    fn set_kick(&mut self, kick: Kick) -> Result<(), DeviceError> {
        if let Some(watch) = self.watch.take() {
            self.port.unwatch(watch);
        }
        if let Kick::Event(event) = &kick {
            let watch = self.port.watch(event.as_fd());
            self.watch = Some(watch.map_err(|source| DeviceError::Kick { queue: self.index, source })?);
        }
        self.kick = kick;
        Ok(())
    }
}

/// A stopped queue's port, and the requests that are still under way in it.
struct Lingering {
    /// Dropped first, as that waits for what is under way.
    port: Port,
    late: FxHashMap<u32, LateRequest>,
}

impl Lingering {
    fn see_to_its_end(mut self) {
        let mut done = Vec::new();
        while !self.late.is_empty() {
            if !self.port.turn(&mut done) {
                self.port.wait(None);
            }
            for Done { tag, .. } in done.drain(..) {
                drop(self.late.remove(&tag).expect("only late requests are under way"));
            }
        }
    }
}

fn notification(features: Features) -> Notification {
    if features.event_idx() { Notification::EventIndex } else { Notification::Flags }
}
