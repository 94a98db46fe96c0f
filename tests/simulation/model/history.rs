//! What one sector may hold: the versions written to it, with the times that order them.
//!
//! Version *u* is surely newer than *v* when *u* was submitted after *v* had completed. A read may return any version that no
//! surely newer one had replaced before the read began; a power cut may leave any version that no surely newer *flushed*
//! one had replaced.

use super::stamp::Value;

/// The model's clock: a number that grows with every event.
pub type Tick = u64;

pub const NEVER: Tick = Tick::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub value: Value,
    /// The request that wrote it.
    pub request: u64,
    pub submitted: Tick,
    pub completed: Tick,
    pub standing: Standing,
}

/// How sure it is that the version took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may or may not have: in flight, or a discard.
    Possible,
    /// It failed: old or new, and which of them may change until it is written again. No flush makes it durable.
    Unsure,
    /// It did; a flush submitted later makes it durable.
    Certain,
    /// It did, durably.
    Durable,
}

/// What an unknown past left.
const UNKNOWN: Version = Version::MAYBE_ZERO;

impl Version {
    /// Zeros, perhaps.
    pub const MAYBE_ZERO: Version =
        Version { value: Value::Zero, request: 0, submitted: 0, completed: 0, standing: Standing::Possible };
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History(Vec<Version>);

impl History {
    /// Zeros since ever.
    pub fn new() -> Self {
        Self::of(Value::Zero, 0)
    }

    /// Exactly this value, durably.
    pub fn of(value: Value, now: Tick) -> Self {
        Self(vec![Version { value, request: 0, submitted: now, completed: now, standing: Standing::Durable }])
    }

    pub fn push(&mut self, version: Version) {
        self.0.push(version);
    }

    /// The request's version has completed; `standing` says with what certainty.
    pub fn complete(&mut self, request: u64, now: Tick, standing: Standing) {
        for version in self.0.iter_mut().filter(|version| version.request == request && version.completed == NEVER) {
            version.completed = now;
            version.standing = standing;
        }
    }

    /// A flush submitted at `before` has completed. What was replaced before `oldest_read` is forgotten: no read that is in
    /// flight can have seen it.
    pub fn flush(&mut self, before: Tick, oldest_read: Tick) {
        for version in &mut self.0 {
            if version.standing == Standing::Certain && version.completed < before {
                version.standing = Standing::Durable;
            }
        }
        self.forget_what_cannot_come_back(oldest_read);
    }

    /// What a read that began at `began` may return.
    pub fn readable(&self, began: Tick) -> impl Iterator<Item = Value> + '_ {
        let replaces = move |u: &Version, v: &Version| {
            matches!(u.standing, Standing::Certain | Standing::Durable)
                && u.submitted > v.completed
                && u.completed < began
        };
        self.0.iter().filter(move |v| !self.0.iter().any(|u| replaces(u, v))).map(|v| v.value)
    }

    /// One of these values, and nobody knows which.
    pub fn one_of(values: impl IntoIterator<Item = Value>) -> Self {
        let mut distinct: Vec<Value> = Vec::new();
        for value in values {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        match distinct[..] {
            [only] => Self::of(only, 0),
            _ => Self(distinct.into_iter().map(|value| Version { value, ..UNKNOWN }).collect()),
        }
    }

    /// Whether a reader of the instant just behind `instant` may have found the value.
    pub fn may_hold(&self, value: Value, instant: Tick) -> bool {
        let replaces = |u: &Version, v: &Version| {
            matches!(u.standing, Standing::Certain | Standing::Durable)
                && u.submitted > v.completed
                && u.completed <= instant
        };
        let there = self.0.iter().filter(|v| v.value == value && v.submitted <= instant);
        there.into_iter().any(|v| !self.0.iter().any(|u| replaces(u, v)))
    }

    /// The power has failed: any version may be what is left that a durable one did not replace.
    pub fn cut_power(&mut self, now: Tick) {
        self.forget_what_cannot_come_back(NEVER);
        for version in &mut self.0 {
            version.completed = version.completed.min(now);
            if version.standing != Standing::Durable {
                version.standing = Standing::Possible;
            }
        }
    }

    /// The daemon has died and its last I/O has ended: what was in flight happened or not.
    pub fn end_in_flight(&mut self, now: Tick) {
        self.0.iter_mut().for_each(|version| version.completed = version.completed.min(now));
    }

    /// A read with nothing in flight has found `value`: that is the newest version, by whatever way it came about.
    pub fn pin(&mut self, value: Value, now: Tick) {
        let unsure = |version: &Version| version.standing == Standing::Unsure && version.value == value;
        if self.is_settled() || self.0.iter().any(unsure) {
            return;
        }
        self.push(Version { value, request: 0, submitted: now, completed: now, standing: Standing::Certain });
    }

    /// Whether nothing but one durable version is left.
    pub fn is_settled(&self) -> bool {
        matches!(self.0[..], [Version { standing: Standing::Durable, .. }])
    }

    pub fn versions(&self) -> &[Version] {
        &self.0
    }

    fn forget_what_cannot_come_back(&mut self, oldest_read: Tick) {
        let replacing = self.0.iter().filter(|v| v.standing == Standing::Durable && v.completed < oldest_read);
        if let Some(newest) = replacing.map(|v| v.submitted).max() {
            self.0.retain(|version| version.completed >= newest);
        }
    }
}
