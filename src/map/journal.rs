//! The hard journal as a thing to append to and to replay. Bytes are in [`super::format::journal`].

use super::format::FormatError;
use super::format::journal::{JournalId, Record, decode_all, record_bytes};
use super::state::Pending;
use crate::store::io::Io;
use crate::store::{Buffer, Durability, ObjectName, PublishMode, StoreError, StoreErrorKind};

/// How large a journal is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalSize {
    /// For an opening, which should cost little: 32 records of the smallest size.
    Small,
    /// For a volume that is in use: 256 of them. Half trigger a checkpoint.
    Large,
}

impl JournalSize {
    const fn bytes(self) -> usize {
        match self {
            Self::Small => 128 << 10,
            Self::Large => 1 << 20,
        }
    }
}

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
    /// A new journal, durable, all zero; a small one where a full store has no space for a large one, so that the guest can
    /// go on to overwrite and discard.
    ///
    /// # Errors
    /// What the store reports; a name that exists already is a defect and an error too.
    pub async fn create(io: &Io, id: JournalId, size: JournalSize) -> Result<Self, StoreError> {
        match Self::publish(io, id, size).await {
            Err(error) if error.kind() == StoreErrorKind::NoSpace => Self::publish(io, id, JournalSize::Small).await,
            result => result,
        }
    }

    async fn publish(io: &Io, id: JournalId, size: JournalSize) -> Result<Self, StoreError> {
        let size = size.bytes();
        io.publish(name(id), &vec![0; size], PublishMode::Exclusive).await?;
        Ok(Self { id, offset: 0, sequence: 0, size })
    }

    pub fn number(&self) -> u32 {
        self.id.number
    }

    pub fn object(&self) -> ObjectName {
        name(self.id)
    }

    pub fn fit(&self, pending: &Pending) -> Fit {
        let len = record_bytes(&pending.changes, pending.ids.as_slice().len());
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
