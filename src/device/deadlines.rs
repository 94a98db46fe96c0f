//! When the requests of one queue are given up, for devices with a time-out; without one, none of this exists.
//!
//! ```text
//!   accepted ─┬─ touches a late change ─► waits ──ended──┐        waits ──deadline──► answered; never happens
//!             └──────────────────────────────────────────┴─► in the port ──done──► answered
//!                                                               └──deadline──► answered with an error, late ──done──► gone
//! ```
//! All have the same time, so the next deadline is the oldest request's. It is not kept exactly: when it may have come, all
//! requests are looked at, once in a time-out while the store is well. What time it is is asked once a turn, of the kernel's
//! cheapest clock, and not at all while nothing is in flight.
//!
//! A request that the volume's limits hold back has not been started: its time begins when it is. Nobody tells us when that
//! is, so while there are such we look four times in a time-out, and give what we find held back the time until the
//! next look as well: a request is never given up early, and at most a quarter late.

use super::late::{Admission, LateRequest, LateRequests};
use super::pending::head_of;
use super::private::Mover;
use crate::clock;
use crate::store::buffer::HEAP_ALIGN;
use crate::store::{Buffer, Wake};
use crate::units::ByteRange;
use crate::volume::Request;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Duration;

/// Most data of unanswered requests that a queue keeps in memory of ours: what a fast store needs under way for a gigabyte a second
/// and 30 ms. Further requests stay in the ring.
const PRIVATE_BYTES_MAX: u64 = 32 << 20;

/// Private memory comes in these, in bytes.
const PAGE: u64 = HEAP_ALIGN as u64;

/// See the module's text.
pub(super) struct Deadlines {
    timeout_ns: u64,
    late: Arc<LateRequests>,
    waker: Arc<dyn Wake>,
    /// By head.
    open: Vec<Option<Open>>,
    /// Accepted and not given to the port, because they touch late changes.
    waiting: Vec<(u32, Request)>,
    /// What `late.changes_ended` was when these were last looked at.
    changes_seen: u64,
    /// By tag.
    late_here: FxHashMap<u32, LateRequest>,
    mover: Mover,
    bytes: u64,
    count: usize,
    /// The present turn's time.
    now: Option<u64>,
    /// Before this no request's time is over.
    due: u64,
    /// The last look was put off because it came late itself.
    put_off: bool,
}

/// A request that the guest waits for.
struct Open {
    tag: u32,
    since: u64,
    bytes: u64,
    change: Option<ByteRange>,
    /// Where a read's data go at its answer.
    guest: Option<Buffer>,
}

/// A request whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) tag: u32,
    pub(super) waited: Duration,
}

impl Deadlines {
    pub(super) fn new(timeout: Duration, late: Arc<LateRequests>, waker: Arc<dyn Wake>, ring_size: u16) -> Self {
        Self {
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            late,
            waker,
            open: (0..ring_size).map(|_| None).collect(),
            waiting: Vec::new(),
            changes_seen: 0,
            late_here: FxHashMap::default(),
            mover: Mover::default(),
            bytes: 0,
            count: 0,
            now: None,
            due: u64::MAX,
            put_off: false,
        }
    }

    fn now(&mut self) -> u64 {
        *self.now.get_or_insert_with(clock::tick)
    }

    fn part(&self) -> u64 {
        self.timeout_ns / 4
    }

    /// Whether there is memory for one more request.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < PRIVATE_BYTES_MAX
    }

    /// Whether the request may start.
    #[inline]
    pub(super) fn admit(&self, request: &Request) -> Admission {
        self.late.admit(place(request), &self.waker)
    }

    /// Takes a request that was admitted, and gives it back for the port, its data in private memory, or keeps it while it must wait.
    pub(super) fn begin(&mut self, tag: u32, request: Request, wait: bool) -> Option<Request> {
        let since = self.now();
        // As much as private memory takes: whole pages.
        let bytes = request.data_bytes().next_multiple_of(PAGE);
        let change = change(&request);
        let (request, guest) = self.mover.hide(request);
        if self.count == 0 {
            self.due = since.saturating_add(self.timeout_ns);
        }
        self.count += 1;
        self.bytes += bytes;
        self.open[head_of(tag)] = Some(Open { tag, since, bytes, change, guest });
        if wait {
            self.waiting.push((tag, request));
            return None;
        }
        Some(request)
    }

    /// The volume's limits hold requests back, maybe this one: its time begins later.
    pub(super) fn hold(&mut self, tag: u32) {
        let next = self.now().saturating_add(self.part());
        self.due = self.due.min(next);
        if let Some(open) = &mut self.open[head_of(tag)] {
            open.since = next;
        }
    }

    /// A request that the volume has finished in time; a read's data go to the guest now.
    pub(super) fn end(&mut self, tag: u32, data: Option<&Buffer>) {
        let open = self.close(tag);
        if let (Some(data), Some(guest)) = (data, &open.guest) {
            self.mover.copy(data, guest);
        }
    }

    fn close(&mut self, tag: u32) -> Open {
        let open = self.open[head_of(tag)].take().expect("what is in flight is open");
        self.count -= 1;
        self.bytes -= open.bytes;
        open
    }

    /// A late request has ended.
    ///
    /// # Panics
    /// When there is none with this tag: the volume reported a request twice.
    pub(super) fn end_late(&mut self, tag: u32) {
        drop(self.late_here.remove(&tag).expect("the volume finishes each request once"));
    }

    pub(super) fn is_late(&self, tag: u32) -> bool {
        self.late_here.contains_key(&tag)
    }

    /// The requests that waited for late changes and may start now.
    #[inline]
    pub(super) fn freed(&mut self) -> Vec<(u32, Request)> {
        if self.waiting.is_empty() { Vec::new() } else { self.look_at_waiting() }
    }

    #[cold]
    fn look_at_waiting(&mut self) -> Vec<(u32, Request)> {
        let ended = self.late.changes_ended();
        if std::mem::replace(&mut self.changes_seen, ended) == ended {
            return Vec::new();
        }
        let Self { waiting, late, waker, .. } = self;
        waiting.extract_if(.., |(_, request)| late.is_free(place(request), waker)).collect()
    }

    /// The requests whose time is over, if any; each is to be given to [`Deadlines::give_up`]. `held_back` says which have not been
    /// started, and is asked when that matters.
    #[inline]
    pub(super) fn overdue(&mut self, held_back: impl FnOnce() -> Vec<u32>) -> Vec<Overdue> {
        if self.count == 0 || self.now() < self.due { Vec::new() } else { self.look(held_back) }
    }

    /// The turn has ended.
    #[inline]
    pub(super) fn end_turn(&mut self) {
        self.now = None;
    }

    #[cold]
    fn look(&mut self, held_back: impl FnOnce() -> Vec<u32>) -> Vec<Overdue> {
        let (now, part) = (self.now(), self.part());
        // Who looks so late was stopped or starved itself, and the store's answers may be waiting for it: once, they
        // get that much more time.
        let came_late = now - self.due > part;
        if came_late && !std::mem::replace(&mut self.put_off, true) {
            self.due = now.saturating_add(part);
            return Vec::new();
        }
        self.put_off = false;
        let next = now.saturating_add(part);
        let held_back = held_back();
        for tag in &held_back {
            if let Some(open) = &mut self.open[head_of(*tag)] {
                open.since = next;
            }
        }
        self.look_at(now, if held_back.is_empty() { u64::MAX } else { next })
    }

    /// Looks at all that is open; the next look is no later than `latest`.
    fn look_at(&mut self, now: u64, latest: u64) -> Vec<Overdue> {
        self.due = latest;
        let mut overdue = Vec::new();
        for open in self.open.iter().flatten() {
            let end = open.since.saturating_add(self.timeout_ns);
            if end <= now {
                overdue.push(Overdue { tag: open.tag, waited: Duration::from_nanos(now - open.since) });
            } else {
                self.due = self.due.min(end);
            }
        }
        overdue
    }

    /// The request is about to be answered with an error. If it was started, it is late from now on.
    pub(super) fn give_up(&mut self, tag: u32) {
        let open = self.close(tag);
        match self.waiting.iter().position(|(waiting, _)| *waiting == tag) {
            Some(place) => drop(self.waiting.remove(place)),
            None => _ = self.late_here.insert(tag, self.late.enter(open.bytes, open.change)),
        }
    }

    /// How long the thread may sleep.
    pub(super) fn time_left(&self) -> Option<Duration> {
        (self.count != 0).then(|| Duration::from_nanos(self.due.saturating_sub(clock::tick())))
    }

    /// What is left when the queue stops.
    pub(super) fn into_late(self) -> FxHashMap<u32, LateRequest> {
        assert_eq!(self.count, 0, "a queue stops when every request is answered");
        self.late_here
    }
}

/// Where a request reads or changes something.
fn place(request: &Request) -> Option<ByteRange> {
    match request {
        Request::Read { range, .. } => Some(*range),
        Request::Write { .. } | Request::Flush | Request::Discard { .. } | Request::WriteZeroes { .. } => {
            change(request)
        }
    }
}

/// Where a request changes something.
fn change(request: &Request) -> Option<ByteRange> {
    match request {
        Request::Write { range, .. } | Request::Discard { range } | Request::WriteZeroes { range, .. } => Some(*range),
        Request::Read { .. } | Request::Flush => None,
    }
}

#[cfg(test)]
mod tests;
