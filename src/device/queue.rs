//! One virtqueue's work: chains in, requests to the port, answers out. Owned by the queue's thread; see `worker` for when
//! each of these is called.

use super::chain::Chain;
use super::counters::QueueCounters;
use super::deadlines::{Deadlines, Overdue};
use super::features::Features;
use super::late::{Admission, LateRequest};
use super::log_limit::QueueLogs;
use super::memory::Memory;
use super::pending::{Pending, PendingTable};
use super::request::{self, Kind, Rules, Status, Verdict};
use super::ring::{Ring, RingAddress, RingFault, RingParts};
use super::shared::Shared;
use super::tables::Tables;
use crate::volume::{Done, Port, Request, VolumeError};
use rustc_hash::FxHashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Whether chains are taken from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Good,
    /// The memory table no longer holds the ring; a later one may.
    Homeless,
    /// The guest broke it; only a new start helps.
    Broken,
}

pub(super) struct Queue {
    index: u16,
    shared: Arc<Shared>,
    pub(super) ring: Ring,
    address: RingAddress,
    /// The table that holds the ring itself; differs from the current one while homeless.
    ring_memory: Arc<Memory>,
    tables: Tables,
    pending: PendingTable,
    /// Without a time-out there are none.
    deadlines: Option<Deadlines>,
    chain: Chain,
    pub(super) features: Features,
    pub(super) condition: Condition,
    memory_lost: bool,
}

impl Queue {
    pub(super) fn new(
        index: u16,
        shared: Arc<Shared>,
        deadlines: Option<Deadlines>,
        ring: Ring,
        address: RingAddress,
        memory: Arc<Memory>,
        features: Features,
    ) -> Self {
        Self {
            index,
            shared,
            pending: PendingTable::new(ring.size()),
            deadlines,
            ring,
            address,
            ring_memory: Arc::clone(&memory),
            tables: Tables::new(memory),
            chain: Chain::default(),
            features,
            condition: Condition::Good,
            memory_lost: false,
        }
    }

    fn counters(&self) -> &QueueCounters {
        &self.shared.counters[usize::from(self.index)]
    }

    fn logs(&self) -> &QueueLogs {
        &self.shared.logs[usize::from(self.index)]
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn set_memory(&mut self, memory: Arc<Memory>) {
        let parts = RingParts::locate(&memory, self.address, self.ring.size());
        if let Some(parts) = parts {
            self.ring.move_to(parts);
            self.ring_memory = Arc::clone(&memory);
        }
        self.condition = match (self.condition, parts) {
            (Condition::Broken, _) => Condition::Broken,
            (Condition::Good | Condition::Homeless, Some(_)) => Condition::Good,
            (Condition::Good | Condition::Homeless, None) => Condition::Homeless,
        };
        self.tables.replace(memory);
    }

    /// Whether the front-end took away memory that this queue uses.
    pub(super) fn is_lost(&self) -> bool {
        self.tables.is_lost() || self.ring_memory.is_lost()
    }

    /// To be called when [`Queue::is_lost`]: no request is answered with success any more.
    pub(super) fn lose_memory(&mut self) {
        self.condition = Condition::Broken;
        self.memory_lost = true;
    }

    /// Takes what the guest has made available, at most one ringful, and submits it. Whether there was anything.
    ///
    /// # Errors
    /// When the guest has broken its ring. What was taken before is in flight all the same.
    pub(super) fn fetch(&mut self, port: &Port) -> Result<bool, RingFault> {
        let mut taken = 0;
        // Bounded, because a guest can refill its ring as fast as we answer.
        while taken < self.ring.size() && self.has_room() {
            let Some(head) = self.ring.take()? else { break };
            taken += 1;
            self.accept(head, port)?;
        }
        if taken != 0 {
            self.counters().in_flight.set(self.pending.len() as u64);
        }
        Ok(taken != 0)
    }

    fn accept(&mut self, head: u16, port: &Port) -> Result<(), RingFault> {
        self.pending.check_free(head)?;
        let status = self.chain.collect(&self.ring, self.tables.current(), head)?;
        let rules = Rules {
            // Loaded for each request, after its chain was taken: what was switched before the guest made the chain
            // available holds for it.
            capacity_bytes: self.shared.capacity_bytes(),
            writes: self.shared.writes,
            stability: self.shared.write_cache().stability(self.features),
            serial: &self.shared.serial,
            keep: self.tables.keep(),
        };
        let parsed = request::parse(&mut self.chain, &rules);
        if let Some(reason) = self.chain.broken {
            self.log_malformed(reason);
        }
        let pending = Pending::new(head, status, parsed.kind, self.tables.take());
        match parsed.verdict {
            Verdict::Answer { status, written } => self.answer(pending.with_written(written), status),
            Verdict::Submit { request, written } => {
                let mut pending = pending.with_written(written);
                pending.bytes = request.data_bytes();
                if self.deadlines.is_some() {
                    self.submit_with_deadline(head, pending, request, port);
                } else {
                    let tag = self.pending.insert(head, pending);
                    port.submit(tag, request);
                }
            }
        }
        Ok(())
    }

    fn submit_with_deadline(&mut self, head: u16, pending: Pending, request: Request, port: &Port) {
        let Some(deadlines) = &mut self.deadlines else { unreachable!("the caller has looked") };
        let wait = match deadlines.admit(&request) {
            Admission::Go => false,
            Admission::Wait => true,
            Admission::Refuse => return self.refuse(pending),
        };
        let tag = self.pending.insert(head, pending);
        if let Some(request) = deadlines.begin(tag, request, wait) {
            port.submit(tag, request);
            if port.is_holding_back() {
                deadlines.hold(tag);
            }
        }
    }

    fn refuse(&mut self, pending: Pending) {
        if let Some(left_out) = self.logs().silent.admit() {
            let (volume, queue) = (self.shared.volume.name(), self.index);
            tracing::error!(%volume, queue, left_out, "the store does not answer, and so much is late that requests get an error at once");
        }
        self.answer(pending, Status::IoError);
    }

    /// Whether one more request can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.deadlines.as_ref().is_none_or(Deadlines::has_room)
    }

    /// Starts what waited for late requests that have ended. Whether there was anything.
    pub(super) fn go_on(&mut self, port: &Port) -> bool {
        let Some(deadlines) = &mut self.deadlines else { return false };
        let freed = deadlines.freed();
        let any = !freed.is_empty();
        for (tag, request) in freed {
            port.submit(tag, request);
            if port.is_holding_back() {
                deadlines.hold(tag);
            }
        }
        any
    }

    /// Answers the requests whose time is over with an error. Whether there were any.
    pub(super) fn give_up(&mut self, port: &Port) -> bool {
        let Some(deadlines) = &mut self.deadlines else { return false };
        let overdue = deadlines.overdue(|| port.held_back());
        deadlines.end_turn();
        for Overdue { tag, waited } in &overdue {
            self.give_up_one(*tag, *waited);
        }
        if !overdue.is_empty() {
            self.counters().in_flight.set(self.pending.len() as u64);
        }
        !overdue.is_empty()
    }

    fn give_up_one(&mut self, tag: u32, waited: Duration) {
        let Some(deadlines) = &mut self.deadlines else { unreachable!("a deadline was met") };
        let pending = self.pending.remove(tag).expect("what is open is in flight");
        // Before the answer: whoever has seen it finds the late request in the device's list.
        deadlines.give_up(tag);
        self.pending.retire_tag(tag, |tag| deadlines.is_late(tag));
        if let Some(left_out) = self.logs().silent.admit() {
            let (volume, queue) = (self.shared.volume.name(), self.index);
            let (request, waited_s) = (pending.kind, waited.as_secs_f32());
            tracing::error!(%volume, queue, ?request, waited_s, left_out, "the store does not answer: a request got an I/O error, and may still happen");
        }
        self.answer(pending, Status::IoError);
    }

    /// How long the thread may sleep, at most.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.deadlines.as_ref().and_then(Deadlines::time_left)
    }

    /// Ends the queue, which has answered everything; what the guest gave is let go. The requests that are late stay.
    pub(super) fn into_late(self) -> FxHashMap<u32, LateRequest> {
        self.deadlines.map(Deadlines::into_late).unwrap_or_default()
    }

    /// Answers what the volume has finished.
    pub(super) fn finish(&mut self, done: &mut Vec<Done>) {
        for Done { tag, result, buffer } in done.drain(..) {
            let Some(pending) = self.pending.remove(tag) else {
                drop(buffer);
                self.deadlines.as_mut().expect("the volume finishes each request once").end_late(tag);
                continue;
            };
            if let Some(deadlines) = &mut self.deadlines {
                deadlines.end(tag, buffer.as_ref().filter(|_| result.is_ok()));
            }
            drop(buffer);
            let status = match result {
                // Which requests touched the memory that is gone is not known.
                Ok(()) if self.memory_lost => Status::IoError,
                Ok(()) => Status::Ok,
                Err(error) => self.failed(&error),
            };
            self.answer(pending, status);
        }
        self.counters().in_flight.set(self.pending.len() as u64);
    }

    fn answer(&mut self, pending: Pending, status: Status) {
        let (kind, bytes, table) = (pending.kind, pending.bytes, pending.table);
        pending.finish(&mut self.ring, status);
        self.tables.release(table);
        self.count(kind, bytes, status);
    }

    fn count(&self, kind: Kind, bytes: u64, status: Status) {
        let counters = self.counters();
        match kind {
            Kind::Read => counters.reads.add(1),
            Kind::Write => counters.writes.add(1),
            Kind::Flush => counters.flushes.add(1),
            Kind::Discard => counters.discards.add(1),
            Kind::Other => counters.others.add(1),
        }
        match (status, kind) {
            (Status::Ok, Kind::Read) => counters.bytes_read.add(bytes),
            (Status::Ok, Kind::Write) => counters.bytes_written.add(bytes),
            (Status::Ok, Kind::Flush | Kind::Discard | Kind::Other) => {}
            (Status::IoError | Status::Unsupported, _) => counters.errors.add(1),
        }
    }

    fn failed(&self, error: &VolumeError) -> Status {
        if let Some(left_out) = self.logs().failed.admit() {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            let (volume, queue) = (self.shared.volume.name(), self.index);
            tracing::error!(%volume, queue, %error, cause, left_out, "a guest's request failed");
        }
        Status::IoError
    }

    fn log_malformed(&self, reason: &'static str) {
        if let Some(left_out) = self.logs().malformed.admit() {
            let (volume, queue) = (self.shared.volume.name(), self.index);
            tracing::warn!(%volume, queue, reason, left_out, "a guest's request is malformed");
        }
    }

    /// Gives the ring up until it is started anew.
    pub(super) fn break_off(&mut self, fault: RingFault) {
        self.condition = Condition::Broken;
        if let Some(left_out) = self.logs().broken.admit() {
            let (volume, queue) = (self.shared.volume.name(), self.index);
            tracing::error!(%volume, queue, %fault, left_out, "the guest broke its ring, which is stopped");
        }
    }

    /// See [`PendingTable::abandon`].
    pub(super) fn abandon(&mut self) {
        self.pending.abandon();
    }

    pub(super) fn count_notification(&self) {
        self.counters().notifications.add(1);
    }
}
