//! Name records. Each is an entry in the omap of one object, not an object of its own: a name may be given up and taken
//! again by different hosts at the same time, and an index beside the objects could lose one of them. An entry is
//! published, listed and removed as one.
//!
//! An entry's value is one byte (the format's version, which also keeps an empty record apart from an absent one) and the
//! record.

use super::compound::WriteOp;
use super::error::{Failure, INCOMPLETE};
use super::home::Home;
use super::key::{self, NAMES};
use crate::store::{Buffer, ObjectName, Op, Outcome, PublishMode, StoreError, StoreErrorKind};
use crate::units::VolumeName;

const VERSION: u8 = 1;

/// Runs an operation on a name record. Blocks.
pub(super) fn execute(home: &Home, name: &VolumeName, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>) {
    let object = ObjectName::Name(name.clone());
    match op {
        Op::Read { offset, buffer, .. } => (read(home, &object, offset, &buffer), Some(buffer)),
        Op::Stat { .. } => (record(home, &object, "look at").map(|record| Outcome::Size(len(&record))), None),
        Op::Publish { content, mode, .. } => (publish(home, &object, &content, mode), Some(content)),
        Op::Remove { .. } => (remove(home, &object), None),
        Op::Write { buffer, .. } | Op::Create { buffer, .. } => {
            (Err(unsupported(&object, "write a part of")), Some(buffer))
        }
        Op::Zero { .. } => (Err(unsupported(&object, "zero a part of")), None),
        Op::Sync { .. } | Op::SyncAll | Op::List { .. } => unreachable!("these are on no object"),
    }
}

fn unsupported(object: &ObjectName, operation: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, operation, object)
}

fn read(home: &Home, object: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
    let record = record(home, object, "read")?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(record.len());
    let present = (record.len() - start).min(buffer.len());
    buffer.copy_in(0, &record[start..start + present]);
    buffer.fill_zero(present, buffer.len() - present);
    Ok(Outcome::Done)
}

fn record(home: &Home, object: &ObjectName, operation: &'static str) -> Result<Vec<u8>, StoreError> {
    let value = home.metadata.value(NAMES, key::entry(object).as_c_str());
    let value = value.map_err(|failure| incomplete(failure).at(operation, object))?;
    match value.as_deref() {
        None => Err(StoreError::new(StoreErrorKind::NotFound, operation, object)),
        Some([VERSION, record @ ..]) => Ok(record.to_vec()),
        Some(_) => Err(StoreError::new(StoreErrorKind::Damaged, operation, object)),
    }
}

fn publish(home: &Home, object: &ObjectName, content: &Buffer, mode: PublishMode) -> Result<Outcome, StoreError> {
    let mut value = vec![VERSION];
    value.extend(content.to_vec());
    let (op, entry) = (WriteOp::new(home.metadata.library()), key::entry(object));
    let op = match mode {
        PublishMode::Exclusive => op.assert_no_entry(entry.as_c_str()),
        PublishMode::Replace => op,
    };
    match home.metadata.operate(NAMES, &op.assert_exists().set_entry(entry.as_c_str(), &value)) {
        Ok(()) => Ok(Outcome::Done),
        Err(Failure(libc::ECANCELED)) => Err(StoreError::new(StoreErrorKind::Exists, "publish", object)),
        Err(failure) => Err(incomplete(failure).at("publish", object)),
    }
}

fn remove(home: &Home, object: &ObjectName) -> Result<Outcome, StoreError> {
    let entry = key::entry(object);
    let op = WriteOp::new(home.metadata.library()).remove_entries([entry.as_c_str()].into_iter());
    home.metadata
        .operate(NAMES, &op)
        .map(|()| Outcome::Done)
        .map_err(|failure| incomplete(failure).at("remove", object))
}

/// It is the object of all names that is not there.
fn incomplete(failure: Failure) -> Failure {
    if failure == Failure(libc::ENOENT) { Failure(INCOMPLETE) } else { failure }
}

fn len(record: &[u8]) -> u64 {
    u64::try_from(record.len()).expect("a length in memory fits in 64 bits")
}
