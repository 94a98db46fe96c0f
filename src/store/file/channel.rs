//! A thread's channel over its own io_uring.
//!
//! ```text
//!   submit ─ read, write ─► file known? ──yes──────────────► Move ─► done ─► reap
//!          │                    └─no──► Open ─► adopt ────────┘ ▲ short, EAGAIN: again
//!          ├ create ───────────────────► Open (exclusive) ──────┘
//!          ├ a device flush ─────────────► Fsync ─► done
//!          └ everything else, and what O_DIRECT does not take ─► helper threads ─► reap
//! ```
//! Invariants: an entry of `running` stays in place while the kernel has its buffer, its path or its scatter list (the slab
//! never grows; what finds it full waits). A registered slot's number is used only for an operation's first entry; later
//! ones name the descriptor, because the slot may have another file by then. A descriptor's file outlives its entries: the
//! operation holds it.

use super::blocking;
use super::flushes::Flushes;
use super::home::{Home, failed};
use super::hot::HotFiles;
use super::open_file::OpenFile;
use super::open_files::OpenFiles;
use super::operation::{Operation, Progress};
use super::ring::{Event, Ring};
use super::watches::Watches;
use crate::store::reply::{Reply, Returns};
use crate::store::sleep::EventWaker;
use crate::store::{Buffer, Channel, Completion, Lease, Op, Outcome, StoreError, Token, Wake, WatchId};
use rustix::io::Errno;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Operations that are with the kernel at a time; more wait here. Four queues' worth of the largest ring in use.
const RUNNING_MAX: usize = 1024;

/// Registered slots at most, and places of the hot table.
const HOT_MAX: usize = 4096;

/// Turns after which removed objects' files are looked for, when the thread never sleeps.
const TURNS_PER_SWEEP: u32 = 1024;

pub(super) struct RingChannel {
    home: Arc<Home>,
    ring: Ring,
    hot: HotFiles,
    running: Slab<Operation>,
    waiting: VecDeque<Operation>,
    flushes: Flushes,
    finished: Vec<Completion>,
    /// Operations that helper threads have.
    handed_over: usize,
    returns: Arc<Returns>,
    waker: Arc<EventWaker>,
    watches: Watches,
    /// A signal was seen while nobody slept: the next sleep is skipped.
    signalled: bool,
    removals_seen: u64,
    turns: u32,
    /// Kept so as not to allocate.
    events: Vec<Event>,
    /// The locked descriptor (also registered with the ring).
    _lease: Option<Arc<OwnedFd>>,
}

impl RingChannel {
    /// # Errors
    /// When there is no io_uring here, or the kernel refuses what it takes.
    pub(super) fn new(home: &Arc<Home>, lease: Option<&Lease>, hot: usize) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let waker = Arc::new(EventWaker::new().map_err(io::Error::other)?);
        let places = hot.clamp(16, HOT_MAX).next_power_of_two() / 2;
        let slots = u32::try_from(places).expect("at most HOT_MAX");
        ring.reserve_files(slots + 1)?;
        let lease = lease.and_then(|lease| lease.locked.clone());
        if let Some(locked) = &lease
            && !ring.set_file(slots, locked.as_raw_fd())
        {
            return Err(io::Error::other("the kernel does not take the lease's lock into the ring"));
        }
        let watches = Watches::new(&mut ring, &waker);
        home.add_channel(&waker);
        Ok(Self {
            home: Arc::clone(home),
            ring,
            hot: HotFiles::new(places),
            running: Slab::with_capacity(RUNNING_MAX),
            waiting: VecDeque::new(),
            flushes: Flushes::default(),
            finished: Vec::new(),
            handed_over: 0,
            returns: Returns::new(Arc::clone(&waker)),
            waker,
            watches,
            signalled: false,
            removals_seen: home.removals(),
            turns: 0,
            events: Vec::new(),
            _lease: lease,
        })
    }

    fn hand_over(&mut self, token: Token, op: Op) {
        self.handed_over += 1;
        blocking::start(&self.home, op, Reply::new(&self.returns, token));
    }

    fn admit(&mut self, operation: Operation) {
        if self.running.len() < RUNNING_MAX {
            self.start(operation);
        } else {
            self.waiting.push_back(operation);
        }
    }

    fn start(&mut self, mut operation: Operation) {
        if operation.is_create() {
            return self.run(operation, None);
        }
        let mut slot = None;
        if let Some(found) = self.hot.get(operation.object(), &mut self.ring) {
            slot = found.slot;
            operation.set_file(found.file);
        } else if let Some(file) = self.home.open_files.get(operation.object()) {
            self.keep_hot(&file);
            operation.set_file(file);
        }
        self.run(operation, slot);
    }

    fn keep_hot(&mut self, file: &Arc<OpenFile>) {
        if OpenFiles::is_cacheable(&file.name) {
            let old = self.hot.offer(file, &mut self.ring);
            self.home.retire(old);
        }
    }

    /// Gives the operation a place and its first entry to the ring.
    fn run(&mut self, operation: Operation, slot: Option<u32>) {
        if operation.needs_helper(&self.home) {
            let (token, op) = operation.into_op();
            return self.hand_over(token, op);
        }
        let key = self.running.insert(operation);
        let entry = self.running[key].entry(&self.home, slot).user_data(key_data(key));
        self.push(entry);
    }

    #[allow(unsafe_code, reason = "the entry points into an operation in `running`")]
    fn push(&mut self, entry: io_uring::squeue::Entry) {
        // SAFETY: the entry points to memory that its operation's buffer keeps, and into the operation itself, which stays in
        // its place in the slab (whose capacity is never exceeded) until `event` takes it out at its completion.
        unsafe { self.ring.push(entry) }
    }

    fn event(&mut self, event: Event) {
        let key = usize::try_from(event.user_data).expect("keys of operations are small");
        match self.running[key].completed(&self.home, event.result) {
            Progress::Again => {
                let entry = self.running[key].entry(&self.home, None).user_data(event.user_data);
                self.push(entry);
            }
            Progress::Opened(file) => {
                self.keep_hot(&file);
                let mut operation = self.running.remove(key);
                operation.set_file(file);
                self.run(operation, None);
            }
            Progress::Helper => {
                let (token, op) = self.running.remove(key).into_op();
                self.hand_over(token, op);
            }
            Progress::Settle => {
                let operation = self.running.remove(key);
                self.handed_over += 1;
                let reply = Reply::new(&self.returns, operation.token());
                operation.settle(&self.home, reply);
            }
            Progress::Done(result) => self.finish(key, result),
        }
    }

    fn finish(&mut self, key: usize, result: Result<Outcome, StoreError>) {
        let (token, buffer): (Token, Buffer) = self.running.remove(key).into_parts();
        self.finished.push(Completion { token, result, buffer: Some(buffer) });
    }

    /// Handles all completions that have arrived. Returns whether a signal was among them.
    fn turn(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        self.ring.collect(&mut events);
        let mut signal = false;
        for event in events.drain(..) {
            if Watches::owns(event.user_data) {
                signal |= self.watches.event(event, &mut self.ring, &self.waker);
            } else if Flushes::owns(event.user_data) {
                self.finished.push(self.flushes.event(event));
            } else {
                self.event(event);
            }
        }
        self.events = events;
        self.handed_over -= self.returns.collect(&mut self.finished);
        while self.running.len() < RUNNING_MAX
            && let Some(operation) = self.waiting.pop_front()
        {
            self.start(operation);
        }
        signal
    }

    fn sweep(&mut self) {
        let removals = self.home.removals();
        if removals != self.removals_seen {
            self.removals_seen = removals;
            let gone = self.hot.sweep(&mut self.ring);
            self.home.retire(gone);
        }
    }
}

fn key_data(key: usize) -> u64 {
    u64::try_from(key).expect("at most RUNNING_MAX")
}

impl Channel for RingChannel {
    fn submit(&mut self, token: Token, op: Op) {
        match Operation::from_op(token, op) {
            Ok(operation) => self.admit(operation),
            Err(Op::Sync { objects }) if objects.is_empty() => self.flushes.start(&self.home, token, &mut self.ring),
            Err(Op::Stat { object }) if self.home.surely_lacks(&object) => {
                let result = Err(failed(Errno::NOENT, "look at", &object));
                self.finished.push(Completion { token, result, buffer: None });
            }
            Err(other) => self.hand_over(token, other),
        }
    }

    fn kick(&mut self) {
        self.ring.submit();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_PER_SWEEP) {
            self.sweep();
        }
        self.signalled |= self.turn();
        self.ring.submit();
        done.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.waiting.len() + self.flushes.len() + self.handed_over + self.finished.len()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.watches.watch(fd, &mut self.ring)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.watches.unwatch(watch, &mut self.ring);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.sweep();
        let skip = std::mem::take(&mut self.signalled) || !self.finished.is_empty() || self.returns.any();
        if skip {
            self.ring.submit();
        } else {
            self.ring.wait(timeout);
            // A signal seen here has ended this sleep, which is all it is for.
            self.turn();
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }
}

impl Drop for RingChannel {
    /// Buffers go back to their owners only when nothing can touch them any more.
    fn drop(&mut self) {
        while self.running.len() + self.waiting.len() + self.flushes.len() + self.handed_over != 0 {
            self.finished.clear();
            self.wait(None);
            self.turn();
        }
        self.ring.release_files();
    }
}
