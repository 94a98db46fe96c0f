//! Records of the hard journal, and the rule that tells a torn end from damage.

use super::FormatError;
use super::bytes::{CHECKSUM_BYTES, Reader, Writer, unseal};
use crate::map::entry::{Entry, VolumeIds, VolumeIndex, Word};
use crate::units::{BlockIndex, Generation, VolumeId};

/// Records begin and end at multiples of this, so a completed record's sectors are never written again.
pub const RECORD_ALIGN: usize = 4096;
const HEAD_BYTES: usize = 72;
const CHANGE_BYTES: usize = 16;
const STRUCTURE: &str = "the volume's journal";
const MAGIC: &[u8; 8] = b"AVHJRNL1";
const VERSION: u32 = 1;

/// Which journal a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalId {
    pub volume: VolumeId,
    pub generation: Generation,
    pub number: u32,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts from 1 within the journal.
    pub sequence: u64,
    /// Number of the last change that it, with all before it, contains.
    pub through: u64,
    pub ids: VolumeIds,
    /// Indexes point into `ids`.
    pub changes: Vec<(BlockIndex, Word)>,
}

/// Bytes that a record of so many changes and ids takes.
pub fn record_bytes(changes: usize, ids: usize) -> usize {
    (HEAD_BYTES + changes * CHANGE_BYTES + ids * 16 + CHECKSUM_BYTES).next_multiple_of(RECORD_ALIGN)
}

impl Record {
    pub fn encode(&self, journal: JournalId) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).expect("a record is bounded by its journal");
        let len = record_bytes(self.changes.len(), self.ids.as_slice().len());
        let mut writer = Writer::with_capacity(len);
        writer.put(MAGIC).u32(VERSION).u32(count(len)).id(journal.volume).u64(journal.generation.0);
        writer.u32(journal.number).u32(0).u64(self.sequence).u64(self.through);
        writer.u32(count(self.changes.len())).u32(count(self.ids.as_slice().len()));
        for id in self.ids.as_slice() {
            writer.id(*id);
        }
        for (block, word) in &self.changes {
            writer.u64(block.0).u64(word.0);
        }
        writer.sealed(RECORD_ALIGN)
    }

    /// The record at the front of `bytes`, and its length.
    fn decode(bytes: &[u8], journal: JournalId) -> Result<(Self, usize), FormatError> {
        let mut reader = Reader::new(bytes, STRUCTURE);
        reader.magic(MAGIC)?;
        let version = reader.u32("version")?;
        reader.version(version)?;
        let len = usize::try_from(reader.u32("length of a record")?).unwrap_or(usize::MAX);
        let whole = bytes.get(..len).filter(|_| len % RECORD_ALIGN == 0);
        let body = unseal(whole.ok_or_else(|| reader.error("a record's length is wrong"))?, STRUCTURE)?;
        let mut reader = Reader::new(body.get(16..).unwrap_or(&[]), STRUCTURE);
        let volume = reader.id("volume id")?;
        let generation = Generation(reader.u64("generation")?);
        let number = reader.u32("journal number")?;
        if (JournalId { volume, generation, number }) != journal {
            return Err(reader.error("a record belongs to another journal"));
        }
        reader.zeros(4, "padding")?;
        let (sequence, through) = (reader.u64("sequence")?, reader.u64("through")?);
        let (changes, ids) = (reader.u32("number of changes")?, reader.u32("number of ids")?);
        let ids = (0..ids).map(|_| reader.id("an id")).collect::<Result<Vec<_>, _>>()?;
        let ids = VolumeIds::from_vec(ids);
        let changes = (0..changes).map(|_| decode_change(&mut reader, &ids)).collect::<Result<Vec<_>, _>>()?;
        Ok((Self { sequence, through, ids, changes }, len))
    }
}

fn decode_change(reader: &mut Reader<'_>, ids: &VolumeIds) -> Result<(BlockIndex, Word), FormatError> {
    let block = BlockIndex(reader.u64("a block")?);
    let word = Word(reader.u64("an entry")?);
    match Entry::from_word(word)? {
        Entry::Data { volume, .. } if ids.get(volume).is_none() => Err(reader.error("an entry names no volume")),
        Entry::Zero | Entry::Data { volume: VolumeIndex(_), .. } => Ok((block, word)),
    }
}

/// All records of a journal that were appended whole, in order.
///
/// # Errors
/// When a record is bad and a valid later one proves that it had been durable: data would be lost silently. The text
/// names the byte.
pub fn decode_all(bytes: &[u8], journal: JournalId) -> Result<Vec<Record>, FormatError> {
    let mut records: Vec<Record> = Vec::new();
    let mut offset = 0;
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        let expected = records.len() as u64 + 1;
        match Record::decode(rest, journal) {
            Ok((record, len)) if record.sequence == expected => {
                records.push(record);
                offset += len;
            }
            Ok(_) | Err(_) => {
                refuse_later_records(bytes, offset, journal, expected)?;
                break;
            }
        }
    }
    Ok(records)
}

/// Bytes that lie behind a bad record must not hold a valid one of a higher sequence.
fn refuse_later_records(bytes: &[u8], bad: usize, journal: JournalId, expected: u64) -> Result<(), FormatError> {
    let later = (bad..bytes.len()).step_by(RECORD_ALIGN).filter_map(|offset| bytes.get(offset..));
    let valid = later.filter_map(|rest| Record::decode(rest, journal).ok()).any(|(r, _)| r.sequence >= expected);
    if valid {
        let problem = format!("record {expected} at byte {bad} is bad although a later one is whole");
        return Err(FormatError::new(STRUCTURE, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Epoch;

    const JOURNAL: JournalId = JournalId { volume: VolumeId([1; 16]), generation: Generation(2), number: 3 };

    fn record(sequence: u64, changes: u64) -> Record {
        let word = Entry::Data { volume: VolumeIndex(0), epoch: Epoch(4) }.word();
        Record {
            sequence,
            through: sequence * 10,
            ids: VolumeIds::new(JOURNAL.volume),
            changes: (0..changes).map(|block| (BlockIndex(block), word)).collect(),
        }
    }

    fn journal(records: &[Record]) -> Vec<u8> {
        let mut bytes: Vec<u8> = records.iter().flat_map(|record| record.encode(JOURNAL)).collect();
        bytes.resize(64 << 10, 0);
        bytes
    }

    #[test]
    fn records_survive_their_bytes_in_order() {
        let records = [record(1, 3), record(2, 600), record(3, 0)];
        assert_eq!(decode_all(&journal(&records), JOURNAL), Ok(records.to_vec()));
    }

    #[test]
    fn an_empty_journal_has_no_records() {
        assert_eq!(decode_all(&journal(&[]), JOURNAL), Ok(Vec::new()));
        assert_eq!(decode_all(&[], JOURNAL), Ok(Vec::new()));
    }

    #[test]
    fn a_torn_last_record_ends_the_journal() {
        let mut bytes = journal(&[record(1, 3), record(2, 600)]);
        bytes[4096 + 5000] ^= 1;
        assert_eq!(decode_all(&bytes, JOURNAL), Ok(vec![record(1, 3)]));
    }

    #[test]
    fn damage_before_a_whole_record_is_refused() {
        for byte in [4096, 4096 + 48, 4096 + 4095] {
            let mut bytes = journal(&[record(1, 3), record(2, 3), record(3, 3)]);
            bytes[byte] ^= 1;
            let error = decode_all(&bytes, JOURNAL).unwrap_err();
            assert!(error.to_string().contains("record 2 at byte 4096"), "{error}");
        }
    }

    #[test]
    fn records_of_another_journal_are_not_replayed() {
        let other = JournalId { number: 4, ..JOURNAL };
        let mut bytes = record(1, 3).encode(other);
        bytes.resize(8192, 0);
        assert_eq!(decode_all(&bytes, JOURNAL), Ok(Vec::new()));
    }

    #[test]
    fn a_record_of_an_older_run_behind_the_end_is_not_replayed() {
        let bytes = journal(&[record(1, 3), record(1, 3)]);
        assert_eq!(decode_all(&bytes, JOURNAL), Ok(vec![record(1, 3)]));
    }
}
