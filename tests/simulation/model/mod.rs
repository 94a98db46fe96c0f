//! The oracle: what every sector of the volume may hold, given what the guest submitted, what completed, what a flush
//! covered, and the crashes there were.
//!
//! | after | a sector holds |
//! |---|---|
//! | a completed write | that, or what was written since or concurrently |
//! | a completed discard | what it held, or zeros |
//! | a failed write | what it held or should have got, until it is written again |
//! | death of the daemon | the same as without it; what was in flight happened or not |
//! | a power cut | the newest flushed version or any not older than that; never anything else |
//!
//! A sector is the unit: a request may be torn between sectors while it is in flight or unflushed, never within one.

pub mod clock;
pub mod cut;
mod history;
pub mod stamp;
#[cfg(test)]
mod tests;

use clock::Clock;
use cut::Cut;
pub use history::Tick;
use history::{History, NEVER, Standing, Version};
use stamp::{SECTOR_BYTES, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// What a request does to the sectors it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Write,
    Zero,
    Discard,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Failed,
    Done,
    /// Done, and durable at once.
    DoneStable,
}

#[derive(Debug, Default)]
pub struct Model {
    clock: Rc<Clock>,
    /// Sectors that anything was ever submitted for; all others are zero.
    sectors: BTreeMap<u64, History>,
    changes: BTreeMap<u64, (Effect, Range<u64>)>,
    /// When the reads in flight were submitted.
    reads: BTreeSet<Tick>,
    /// When the last change was submitted.
    last_submission: Tick,
}

impl Model {
    /// Of a volume that was never written.
    pub fn new(clock: &Rc<Clock>) -> Self {
        Self { clock: Rc::clone(clock), ..Self::default() }
    }

    /// The number of a new request that changes these sectors. A write must write [`stamp::content`] with it.
    pub fn submit(&mut self, effect: Effect, sectors: Range<u64>) -> u64 {
        let request = self.clock.request();
        let submitted = self.tick();
        self.last_submission = submitted;
        let value = if effect == Effect::Write { Value::Written(request) } else { Value::Zero };
        let version = Version { value, request, submitted, completed: NEVER, standing: Standing::Possible };
        for sector in sectors.clone() {
            self.sectors.entry(sector).or_insert_with(History::new).push(version);
        }
        self.changes.insert(request, (effect, sectors));
        request
    }

    pub fn complete(&mut self, request: u64, end: End) {
        let now = self.tick();
        let (effect, sectors) = self.changes.remove(&request).expect("a request completes once");
        let standing = match (effect, end) {
            (_, End::Failed) => Standing::Unsure,
            (Effect::Discard, End::Done | End::DoneStable) => Standing::Possible,
            (Effect::Write | Effect::Zero, End::Done) => Standing::Certain,
            (Effect::Write | Effect::Zero, End::DoneStable) => Standing::Durable,
        };
        for sector in sectors {
            self.history(sector).complete(request, now, standing);
        }
    }

    /// A read is submitted: the time to hand in with its completion.
    pub fn submit_read(&mut self) -> Tick {
        let now = self.tick();
        self.reads.insert(now);
        now
    }

    /// The read submitted then has completed.
    pub fn end_read(&mut self, submitted: Tick) {
        self.reads.remove(&submitted);
    }

    /// A flush is submitted: the time to hand in with its completion.
    pub fn tick(&mut self) -> Tick {
        self.clock.tick()
    }

    /// Whether no change was submitted since then, and none is in flight.
    pub fn is_quiet_since(&self, then: Tick) -> bool {
        self.last_submission < then && self.changes.is_empty()
    }

    /// A flush has succeeded.
    pub fn flushed(&mut self, submitted: Tick) {
        let oldest_read = self.reads.first().copied().unwrap_or(NEVER);
        let unsettled = self.sectors.values_mut().filter(|history| !history.is_settled());
        unsettled.for_each(|history| history.flush(submitted, oldest_read));
    }

    /// A capture begins: the time to hand in at its end.
    pub fn begin_cut(&mut self) -> Tick {
        self.submit_read()
    }

    /// The capture that began then has ended, or came to nothing: what it may have captured.
    pub fn end_cut(&mut self, began: Tick) -> Cut {
        self.end_read(began);
        Cut { began, ended: self.tick(), sectors: self.sectors.clone() }
    }

    /// A holder that was cut off at `then` has asked for this change, and everything was read since. It is not to be seen; but a
    /// power cut may take back that it was read, and the copy that was made for that.
    pub fn submit_late(&mut self, then: Tick, effect: Effect, sectors: Range<u64>) -> u64 {
        let request = self.clock.request();
        let value = if effect == Effect::Write { Value::Written(request) } else { Value::Zero };
        let now = self.tick();
        let late = Version { value, submitted: then, completed: then, ..Version::MAYBE_ZERO };
        let read = Version { submitted: now, completed: now, standing: Standing::Certain, ..Version::MAYBE_ZERO };
        for sector in sectors {
            let fresh = !self.sectors.contains_key(&sector);
            let history = self.sectors.entry(sector).or_insert_with(History::new);
            history.push(late);
            if fresh {
                history.push(read);
            }
        }
        request
    }

    /// A volume that begins as what was captured.
    pub fn captured(cut: &Cut, clock: &Rc<Clock>) -> Self {
        let history = |(sector, history): (&u64, &History)| (*sector, History::one_of(history.readable(cut.began)));
        Self { sectors: cut.sectors.iter().map(history).collect(), ..Self::new(clock) }
    }

    /// A volume that begins as this one is now.
    pub fn branched(&mut self) -> Self {
        let began = self.begin_cut();
        let cut = self.end_cut(began);
        Self::captured(&cut, &self.clock)
    }

    /// What lies from this sector on is about to go.
    pub fn begin_shrink(&mut self, end: u64) {
        let submitted = self.tick();
        for history in self.sectors.range_mut(end..).map(|(_, history)| history) {
            history.push(Version { submitted, completed: submitted, ..Version::MAYBE_ZERO });
        }
    }

    /// The volume ends before this sector now.
    pub fn truncate(&mut self, end: u64) {
        self.sectors.split_off(&end);
    }

    /// Checks what a read returned.
    ///
    /// # Errors
    /// What it should not have returned.
    pub fn check_read(&mut self, submitted: Tick, first: u64, bytes: &[u8]) -> Result<(), String> {
        for (sector, found) in (first..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
            self.check_sector(submitted, sector, found)?;
        }
        Ok(())
    }

    /// Checks a read with nothing else in flight, and takes what it found as what is there: that is returned.
    ///
    /// # Errors
    /// What it should not have returned.
    pub fn check_quiet_read(&mut self, submitted: Tick, first: u64, bytes: &[u8]) -> Result<Vec<Value>, String> {
        let mut values = Vec::new();
        for (sector, found) in (first..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
            let value = self.check_sector(submitted, sector, found)?;
            let now = self.tick();
            if let Some(history) = self.sectors.get_mut(&sector) {
                history.pin(value, now);
            }
            values.push(value);
        }
        Ok(values)
    }

    pub fn daemon_died(&mut self) {
        let now = self.tick();
        self.changes.clear();
        self.reads.clear();
        self.sectors.values_mut().for_each(|history| history.end_in_flight(now));
    }

    /// Also when another host has taken the volume over by force.
    pub fn power_failed(&mut self) {
        let now = self.tick();
        self.changes.clear();
        self.reads.clear();
        self.sectors.values_mut().for_each(|history| history.cut_power(now));
    }

    /// After a power cut, everything that was found (by quiet reads) is on the disk: it will be there the next time too.
    pub fn settle(&mut self) {
        let now = self.tick();
        self.sectors.values_mut().for_each(|history| history.flush(now, NEVER));
    }

    fn history(&mut self, sector: u64) -> &mut History {
        self.sectors.get_mut(&sector).expect("submitted before")
    }

    fn check_sector(&self, submitted: Tick, sector: u64, found: &[u8]) -> Result<Value, String> {
        let value = stamp::recognize(sector, found).map_err(|what| format!("sector {sector} holds {what}"))?;
        let zeros = History::new();
        let history = self.sectors.get(&sector).unwrap_or(&zeros);
        if history.readable(submitted).any(|allowed| allowed == value) {
            return Ok(value);
        }
        let allowed: Vec<Value> = history.readable(submitted).collect();
        let all = history.versions();
        Err(format!("sector {sector} holds {value:?}, but should hold one of {allowed:?} (versions: {all:?})"))
    }
}
