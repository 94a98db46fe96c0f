//! The hard journal as a thing to append to and to replay. Bytes are in [`super::format::journal`].

use super::format::FormatError;
use super::format::journal::{JournalId, Record, decode_all, record_bytes};
use super::state::Pending;
use crate::store::io::Io;
use crate::store::{Buffer, Durability, ObjectName, PublishMode, StoreError, StoreErrorKind};

/// 256 records of the smallest size; half of them trigger a checkpoint.
const JOURNAL_BYTES: usize = 1 << 20;

/// What a volume of a full store is opened with, so that its guest can read, overwrite and discard.
const JOURNAL_BYTES_MIN: usize = 64 << 10;

/// One journal, open for appending. Appends are made one at a time (rule C14): the owner awaits each.
#[derive(Debug)]
pub struct JournalWriter {
    id: JournalId,
    offset: usize,
    sequence: u64,
    size: usize,
}

/// What is known of an append's size before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// Not behind what the journal holds already; perhaps into an empty one.
    Full,
}

impl JournalWriter {
    /// A new journal, durable, all zero; a small one where a full store has no space for more.
    ///
    /// # Errors
    /// What the store reports; a name that exists already is a defect and an error too.
    pub async fn create(io: &Io, id: JournalId) -> Result<Self, StoreError> {
        let publish = |size| async move {
            io.publish(name(id), &vec![0; size], PublishMode::Exclusive).await?;
            Ok::<_, StoreError>(Self { id, offset: 0, sequence: 0, size })
        };
        match publish(JOURNAL_BYTES).await {
            Err(error) if error.kind() == StoreErrorKind::NoSpace => publish(JOURNAL_BYTES_MIN).await,
            result => result,
        }
    }

    pub fn number(&self) -> u32 {
        self.id.number
    }

    pub fn object(&self) -> ObjectName {
        name(self.id)
    }

    pub fn fit(&self, pending: &Pending) -> Fit {
        let len = record_bytes(pending.changes.len(), pending.ids.as_slice().len());
        if self.offset + len <= self.size { Fit::Fits } else { Fit::Full }
    }

    /// How full it is, in quarters.
    pub fn quarters_used(&self) -> usize {
        self.offset * 4 / self.size
    }

    /// Appends one record; durable when it returns.
    ///
    /// # Errors
    /// What the store reports; whether the record is durable is then unknown, and the journal must not be used again.
    ///
    /// # Panics
    /// When it does not fit.
    pub async fn append(&mut self, io: &Io, pending: Pending) -> Result<(), StoreError> {
        assert_eq!(self.fit(&pending), Fit::Fits, "the caller looked");
        self.sequence += 1;
        let Pending { changes, ids, through } = pending;
        let record = Record { sequence: self.sequence, through, ids, changes }.encode(self.id);
        let offset = self.offset as u64;
        self.offset += record.len();
        io.write(name(self.id), offset, Buffer::copied_from(&record), Durability::Durable).await?;
        Ok(())
    }
}

fn name(id: JournalId) -> ObjectName {
    ObjectName::Journal { volume: id.volume, generation: id.generation, number: id.number }
}

/// Why a journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
    #[error("{object}: {source}")]
    Damaged { object: ObjectName, source: FormatError },
}

/// All records of a journal.
///
/// # Errors
/// When it cannot be read, or is damaged before its end.
pub async fn read(io: &Io, id: JournalId) -> Result<Vec<Record>, ReplayError> {
    let bytes = io.read_all(name(id)).await?;
    decode_all(&bytes, id).map_err(|source| ReplayError::Damaged { object: name(id), source })
}
