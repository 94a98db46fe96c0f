//! What a snapshot must hold: every write that completed before the command was sent, none that was submitted after it returned,
//! and of those in between a set without gaps: if a write is in it, so is every write that completed before that one was
//! submitted, also to another volume of the same group. Once read, a snapshot must read the same for ever.

use super::content::Content;
use smallvec::{SmallVec, smallvec};

/// Something that a sector may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) value: u64,
    pub(crate) submitted: u64,
    /// When something newer had certainly replaced it.
    pub(crate) superseded: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Captured {
    candidates: Vec<SmallVec<[Candidate; 1]>>,
    /// What was read the first time.
    known: Option<Vec<u64>>,
}

/// The moment of a capture, narrowed down by what was found in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// It was after the submission of all that is in it …
    after: u64,
    /// … and before the completion of the first that replaced something in it.
    before: u64,
}

impl Moment {
    pub(crate) const ANY: Moment = Moment { after: 0, before: u64::MAX };

    pub(crate) fn and(self, other: Moment) -> Moment {
        Moment { after: self.after.max(other.after), before: self.before.min(other.before) }
    }

    pub(crate) fn is_possible(self) -> bool {
        self.after < self.before
    }
}

/// How many wrong sectors of one reading are described.
const DESCRIBED_MAX: usize = 5;

impl Captured {
    pub(crate) fn new(candidates: Vec<SmallVec<[Candidate; 1]>>) -> Self {
        Self { candidates, known: None }
    }

    /// Compares a reading; returns when the capture was, or what is wrong.
    pub(crate) fn compare(&mut self, values: &[u64]) -> Result<Moment, Vec<String>> {
        if values.len() != self.candidates.len() {
            return Err(vec![format!("it has {} sectors instead of {}", values.len(), self.candidates.len())]);
        }
        let mut wrong = Vec::new();
        let mut moment = Moment::ANY;
        for (sector, &value) in values.iter().enumerate() {
            match (self.moment_of(sector, value), self.known.as_ref().map(|known| known[sector])) {
                (_, Some(known)) if known != value => {
                    wrong.push(format!("sector {sector} held {known}, holds {value}"))
                }
                (None, _) => {
                    wrong.push(format!("sector {sector} may hold {:?}, holds {value}", self.candidates[sector]))
                }
                (Some(found), _) => moment = moment.and(found),
            }
        }
        if !wrong.is_empty() {
            wrong.insert(0, format!("{} sectors are wrong", wrong.len()));
            wrong.truncate(DESCRIBED_MAX + 1);
            return Err(wrong);
        }
        if !moment.is_possible() {
            return Err(vec![format!("it is of no one moment: {moment:?}")]);
        }
        self.known.get_or_insert_with(|| values.to_vec());
        Ok(moment)
    }

    fn moment_of(&self, sector: usize, value: u64) -> Option<Moment> {
        let fitting = self.candidates[sector].iter().filter(|candidate| candidate.value == value);
        fitting
            .map(|candidate| (candidate.submitted, candidate.superseded))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .map(|(after, before)| Moment { after, before })
    }

    /// What was read, when that was done.
    pub(crate) fn known(&self) -> Option<&[u64]> {
        self.known.as_deref()
    }

    /// What a clone of it may hold.
    pub(crate) fn to_content(&self) -> Content {
        match &self.known {
            Some(known) => Content::of_values(known.iter().map(|&value| smallvec![value])),
            None => Content::of_values(
                self.candidates.iter().map(|all| all.iter().rev().map(|candidate| candidate.value).collect()),
            ),
        }
    }
}
