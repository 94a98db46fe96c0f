//! The model: what each sector of a volume may hold. A sector is settled when only one write is possible; it is not while a
//! write is in flight, after the daemon died with one in flight, and after a discard, which may do nothing.
//!
//! Every write has a number, drawn from the clock when it is submitted; its completion draws another. So "completed before"
//! and "submitted after" are comparisons of numbers, over all volumes.

use super::captured::{Candidate, Captured};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const SECTOR_BYTES: usize = 512;

/// What is in a sector that no write, or a write of zeros, left.
pub(crate) const ZEROS: u64 = 0;

/// When a write that did not complete does so.
const NEVER: u64 = u64::MAX;

/// Orders everything that happens in a storm.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// A number greater than all that were drawn before.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a request does to its sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Write,
    Zero,
    /// Zeros, or nothing at all.
    MaybeZero,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    number: u64,
    completed: u64,
    effect: Effect,
}

impl Event {
    const UNWRITTEN: Event = Event { number: 0, completed: 0, effect: Effect::Zero };

    fn value(self) -> u64 {
        match self.effect {
            Effect::Write => self.number,
            Effect::Zero | Effect::MaybeZero => ZEROS,
        }
    }

    /// When the sector surely holds nothing older any more.
    fn supersedes_at(self) -> u64 {
        if self.effect == Effect::MaybeZero { NEVER } else { self.completed }
    }
}

/// The possible contents of a sector, oldest first.
type Events = SmallVec<[Event; 1]>;

#[derive(Debug, Default)]
pub(crate) struct Content {
    sectors: Vec<Events>,
    /// Sectors of a request in flight; no other request touches them.
    busy: Vec<bool>,
    /// While something is being captured, nothing is forgotten.
    watched: bool,
}

impl Content {
    pub(crate) fn unwritten(sectors: usize) -> Self {
        let mut content = Self::default();
        content.resize(sectors);
        content
    }

    /// Each sector may hold any of the values given for it.
    pub(crate) fn of_values(values: impl Iterator<Item = SmallVec<[u64; 1]>>) -> Self {
        let event = |value| match value {
            ZEROS => Event { number: 0, completed: NEVER, effect: Effect::Zero },
            number => Event { number, completed: NEVER, effect: Effect::Write },
        };
        let sectors: Vec<Events> = values.map(|values| values.into_iter().map(event).collect()).collect();
        Self { busy: vec![false; sectors.len()], sectors, watched: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.sectors.len()
    }

    /// What is new reads as zeros; what is cut off is gone.
    pub(crate) fn resize(&mut self, sectors: usize) {
        self.sectors.resize(sectors, smallvec![Event::UNWRITTEN]);
        self.busy.resize(sectors, false);
    }

    /// Takes the sectors for a request, unless one of them is taken.
    pub(crate) fn try_claim(&mut self, range: Range<usize>) -> bool {
        let free = self.busy.get(range.clone()).is_some_and(|busy| busy.iter().all(|busy| !busy));
        if free {
            self.busy[range].fill(true);
        }
        free
    }

    pub(crate) fn release(&mut self, range: Range<usize>) {
        self.busy[range].fill(false);
    }

    /// Whoever had requests in flight is gone; what they did stays unsure.
    pub(crate) fn release_all(&mut self) {
        self.busy.fill(false);
    }

    pub(crate) fn submit(&mut self, range: Range<usize>, number: u64, effect: Effect) {
        let event = Event { number, completed: NEVER, effect };
        self.sectors[range].iter_mut().for_each(|events| events.push(event));
    }

    /// From here on anything may have become zeros.
    pub(crate) fn doubt(&mut self, from: usize, number: u64) {
        let range = from..self.sectors.len();
        self.submit(range.clone(), number, Effect::MaybeZero);
        self.complete(range, number, number);
    }

    pub(crate) fn complete(&mut self, range: Range<usize>, number: u64, now: u64) {
        let watched = self.watched;
        for events in &mut self.sectors[range] {
            let last = events.last_mut().expect("it was submitted");
            assert_eq!(last.number, number, "a sector has one request at a time");
            last.completed = now;
            if !watched {
                forget_superseded(events);
            }
        }
    }

    /// Whether a sector may hold what was read; if so it holds only that from now on.
    pub(crate) fn settle(&mut self, sector: usize, value: u64) -> Result<(), Vec<u64>> {
        let events = &mut self.sectors[sector];
        let newest = events.iter().rposition(|event| event.supersedes_at() != NEVER).unwrap_or(0);
        if !events[newest..].iter().any(|event| event.value() == value) {
            return Err(events[newest..].iter().map(|event| event.value()).collect());
        }
        if !self.watched && events.len() > 1 {
            events.drain(..newest);
            events.retain(|event| event.value() == value);
        }
        Ok(())
    }

    /// From now on nothing is forgotten, until [`Content::captured`].
    pub(crate) fn watch(&mut self) {
        self.watched = true;
    }

    /// What a capture may hold that began after `sent` and ended before `returned`.
    pub(crate) fn captured(&mut self, sent: u64, returned: u64) -> Captured {
        self.watched = false;
        let captured = self.sectors.iter().map(|events| candidates(events, sent, returned)).collect();
        self.sectors.iter_mut().for_each(forget_superseded);
        Captured::new(captured)
    }
}

fn candidates(events: &Events, sent: u64, returned: u64) -> SmallVec<[Candidate; 1]> {
    let mut superseded = NEVER;
    let mut candidates: SmallVec<[Candidate; 1]> = SmallVec::new();
    for event in events.iter().rev() {
        if superseded < sent {
            break;
        }
        if event.number < returned {
            candidates.push(Candidate { value: event.value(), submitted: event.number, superseded });
        }
        superseded = superseded.min(event.supersedes_at());
    }
    candidates
}

fn forget_superseded(events: &mut Events) {
    if let Some(newest) = events.iter().rposition(|event| event.supersedes_at() != NEVER) {
        events.drain(..newest);
    }
}
