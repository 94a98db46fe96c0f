//! An operation in flight. It takes effect piece by piece, between other operations' pieces, and ends at last.

use super::content::SECTOR;
use super::object::OpId;
use archvhost::store::{Buffer, Completion, ObjectName, Op, Outcome, Persistence, StoreError, Token};
use archvhost::units::VolumeId;

/// One thread's channel, unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub u64);

/// A process's life, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// Who submitted an operation.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub channel: ChannelId,
    pub incarnation: Incarnation,
    pub lease: Option<VolumeId>,
}

#[derive(Debug)]
pub struct Pending {
    pub id: OpId,
    pub origin: Origin,
    pub token: Token,
    pub op: Op,
    /// Not before this step.
    pub ready_at: u64,
    /// False until the channel's kick: the kernel does not know of the operation yet.
    pub started: bool,
    pub stage: Stage,
    /// Sync: the operations that it makes durable.
    pub covers: Vec<OpId>,
    /// Listing: the names that there were when it was submitted.
    pub listed: Vec<ObjectName>,
    /// What it will end with, if that is not success.
    pub failure: Option<StoreError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// This many of its sectors are done.
    Moving(usize),
    /// Its effect is complete; the completion is still under way.
    Effective,
}

impl Pending {
    /// How many sectors of its object the operation touches; zero for those that act as a whole.
    pub fn sectors(&self) -> usize {
        match self.span() {
            Some((offset, len)) => (offset + len).div_ceil(SECTOR) - offset / SECTOR,
            None => 0,
        }
    }

    /// A reader of what is only ever published sees the old or the new object, never a mixture.
    pub fn sees_one_object(&self) -> bool {
        match &self.op {
            Op::Read { object, .. } => !matches!(object, ObjectName::Data { .. } | ObjectName::Journal { .. }),
            _ => false,
        }
    }

    /// Offset and length of the bytes that move.
    pub fn span(&self) -> Option<(usize, usize)> {
        match &self.op {
            Op::Read { offset, buffer, .. } | Op::Write { offset, buffer, .. } | Op::Create { offset, buffer, .. } => {
                Some((narrow(*offset), buffer.len()))
            }
            Op::Zero { offset, len, .. } => Some((narrow(*offset), narrow(*len))),
            Op::Remove { .. }
            | Op::Sync { .. }
            | Op::SyncAll
            | Op::Publish { .. }
            | Op::Stat { .. }
            | Op::List { .. } => None,
        }
    }

    pub fn completion(self, outcome: Outcome) -> Completion {
        let result = self.failure.map_or(Ok(outcome), Err);
        Completion { token: self.token, result, buffer: buffer_of(self.op) }
    }
}

/// Offsets in a simulated object are small.
pub fn narrow(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated object is small")
}

fn buffer_of(op: Op) -> Option<Buffer> {
    match op {
        Op::Read { buffer, .. } | Op::Write { buffer, .. } | Op::Create { buffer, .. } => Some(buffer),
        Op::Publish { content, .. } => Some(content),
        Op::Zero { .. } | Op::Remove { .. } | Op::Sync { .. } | Op::SyncAll | Op::Stat { .. } | Op::List { .. } => None,
    }
}

/// A completed change that no sync has covered yet.
#[derive(Debug, Clone, Copy)]
pub struct Unsynced {
    pub persistence: Persistence,
    pub origin: Incarnation,
    /// Whether its submitter has seen the completion.
    pub reported: bool,
    pub volume: Option<VolumeId>,
    /// A sync of it failed: no later sync repairs that.
    pub spoiled: bool,
}
