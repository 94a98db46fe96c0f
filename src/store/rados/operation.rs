//! One operation of the data path: everything that has to do with one object and needs no helper thread.
//!
//! Empty reads and writes ask for the object's length instead: RADOS takes a read of no bytes for one of all bytes.

#![allow(unsafe_code, reason = "reads go straight into a buffer's memory")]

use super::channel::Cargo;
use super::cluster::Pool;
use super::completion::{Arrival, Arrivals, Target};
use super::compound::WriteOp;
use super::error::Failure;
use super::{key, seal};
use crate::store::{Buffer, Completion, ObjectName, Op, Outcome, Persistence, StoreError, Token};
use std::sync::Arc;

pub(super) struct Operation {
    token: Token,
    object: ObjectName,
    work: Work,
}

enum Work {
    /// With a place to read to when the buffer is not in one piece.
    Read {
        offset: u64,
        buffer: Buffer,
        bounce: Vec<u8>,
    },
    Write {
        offset: u64,
        buffer: Buffer,
    },
    Create {
        offset: u64,
        buffer: Buffer,
        size: u64,
    },
    Zero {
        offset: u64,
        len: u64,
    },
    Stat,
    Remove,
}

/// What has become of an operation that came back from librados.
pub(super) enum Progress {
    Done(Completion),
    /// Its object is gone, and has still to leave the index.
    Removed(Operation),
}

impl Operation {
    /// Gives back what is not one: listings, publications, name records, and removals of metadata.
    #[expect(clippy::result_large_err, reason = "an operation is handed on, not an error")]
    pub(super) fn from_op(token: Token, op: Op) -> Result<Self, Op> {
        let is_data = matches!(op.object(), Some(ObjectName::Data { .. }));
        if matches!(op.object(), None | Some(ObjectName::Name(_))) {
            return Err(op);
        }
        let (object, work) = match op {
            Op::Read { object, offset, buffer } => (object, Work::Read { offset, buffer, bounce: Vec::new() }),
            Op::Write { object, offset, buffer, durability: _ } => (object, Work::Write { offset, buffer }),
            Op::Zero { object, offset, len, space: _ } => (object, Work::Zero { offset, len }),
            Op::Stat { object } => (object, Work::Stat),
            Op::Create { object, offset, buffer, size } if is_data => (object, Work::Create { offset, buffer, size }),
            Op::Remove { object } if is_data => (object, Work::Remove),
            other => return Err(other),
        };
        Ok(Self { token, object, work })
    }

    pub(super) fn object(&self) -> &ObjectName {
        &self.object
    }

    /// Data that it moves, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match &self.work {
            Work::Read { buffer, .. } | Work::Write { buffer, .. } | Work::Create { buffer, .. } => buffer.len(),
            _ => 0,
        }
    }

    /// Whether the object must be in its index before this starts.
    pub(super) fn is_create(&self) -> bool {
        matches!(self.work, Work::Create { .. })
    }

    /// Whether the object must leave its index after this has ended.
    pub(super) fn is_remove(&self) -> bool {
        matches!(self.work, Work::Remove)
    }

    /// Hands it to librados.
    pub(super) fn start(mut self, pool: &Pool, arrivals: &Arc<Arrivals<Cargo>>) {
        let object = key::object(&self.object);
        let object = object.as_c_str();
        let may_be_sealed = matches!(self.object, ObjectName::Journal { .. });
        let new = || WriteOp::new(pool.library());
        let op = match &mut self.work {
            Work::Read { offset, buffer, bounce } if !buffer.is_empty() => {
                let (offset, target) = (*offset, target(buffer, bounce));
                // SAFETY: the target is the buffer's only segment, or the spare memory of `bounce`, and the cargo owns both.
                return unsafe { arrivals.read(pool, object, offset, target, Cargo::One(self)) };
            }
            Work::Write { offset, buffer } if !buffer.is_empty() => {
                let op = new().assert_exists();
                let op = if may_be_sealed { op.assert_no_attribute(seal::SEALED) } else { op };
                op.write(buffer, *offset)
            }
            Work::Zero { offset, len } if *len != 0 => new().assert_exists().zero(*offset, *len),
            Work::Create { offset, buffer, size } => {
                let op = new().create_exclusive().expect_size(*size);
                if buffer.is_empty() { op } else { op.write(buffer, *offset) }
            }
            Work::Remove => new().remove(),
            Work::Read { .. } | Work::Write { .. } | Work::Zero { .. } | Work::Stat => {
                return arrivals.stat(pool, object, Cargo::One(self));
            }
        };
        arrivals.write(pool, object, &op, Cargo::One(self));
    }

    pub(super) fn arrived(mut arrival: Arrival<Self>) -> Progress {
        if arrival.cargo.is_remove() && matches!(arrival.answer, Ok(_) | Err(Failure(libc::ENOENT))) {
            return Progress::Removed(arrival.cargo);
        }
        if let (Ok(count), Work::Read { buffer, bounce, .. }) = (arrival.answer, &mut arrival.cargo.work) {
            fill(buffer, bounce, usize::try_from(count).unwrap_or(0));
        }
        let size = arrival.size;
        Progress::Done(arrival.cargo.complete(arrival.answer.map(|_| size)))
    }

    /// Its end, with the object's length if that was the question.
    pub(super) fn complete(self, answer: Result<u64, Failure>) -> Completion {
        let Self { token, object, work } = self;
        let (verb, outcome, buffer) = match work {
            Work::Read { buffer, .. } => ("read", Outcome::Done, Some(buffer)),
            Work::Write { buffer, .. } => ("write", Outcome::Changed(Persistence::Durable), Some(buffer)),
            Work::Create { buffer, .. } => ("create", Outcome::Changed(Persistence::Durable), Some(buffer)),
            Work::Zero { .. } => ("zero", Outcome::Changed(Persistence::Durable), None),
            Work::Stat => ("look at", Outcome::Size(answer.unwrap_or(0)), None),
            Work::Remove => ("remove", Outcome::Done, None),
        };
        let result: Result<Outcome, StoreError> = answer.map(|_| outcome).map_err(|failure| failure.at(verb, &object));
        Completion { token, result, buffer }
    }
}

/// Where to read to: the buffer itself if it is in one piece.
fn target(buffer: &Buffer, bounce: &mut Vec<u8>) -> Target {
    match buffer.segments() {
        [whole] => Target { base: whole.iov_base.cast(), len: whole.iov_len },
        _ => {
            bounce.reserve_exact(buffer.len());
            Target { base: bounce.as_mut_ptr(), len: buffer.len() }
        }
    }
}

/// Completes a read that brought `count` bytes: what lies behind the object's end is zeros.
fn fill(buffer: &Buffer, bounce: &mut Vec<u8>, count: usize) {
    let count = count.min(buffer.len());
    if bounce.capacity() != 0 {
        // SAFETY: librados has written the first `count` bytes, and the capacity is at least the buffer's length.
        unsafe { bounce.set_len(count) };
        buffer.copy_in(0, bounce);
    }
    buffer.fill_zero(count, buffer.len() - count);
}
