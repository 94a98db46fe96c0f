//! Records of the hard journal, and the rule that tells a torn end from damage.

use super::bytes::{CHECKSUM_BYTES, Reader, Writer, unseal};
use super::{FormatError, overlay};
use crate::map::entry::{Entry, VolumeIds, Word};
use crate::units::{BlockIndex, Generation, VolumeId};
use std::sync::Arc;

/// Records begin and end at multiples of this, so a completed record's sectors are never written again.
pub const RECORD_ALIGN: usize = 4096;
const HEAD_BYTES: usize = 72;
const CHANGE_BYTES: usize = 16;
const STRUCTURE: &str = "the volume's journal";
const MAGIC: &[u8; 8] = b"AVHJRNL1";
/// Version 1 has no overlays.
const VERSION_PLAIN: u32 = 1;
const VERSION: u32 = 2;

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
    /// Each block's entry after the commit. Indexes point into `ids`.
    pub changes: Vec<(BlockIndex, Entry)>,
}

/// Bytes that a record takes at most.
pub fn record_bytes(changes: &[(BlockIndex, Entry)], ids: usize) -> usize {
    let overlay_bytes = |entry: &Entry| match entry {
        Entry::Overlay(overlay) => overlay::bytes_max(overlay),
        Entry::Zero | Entry::Data { .. } => 0,
    };
    let overlays: usize = changes.iter().map(|(_, entry)| overlay_bytes(entry)).sum();
    let body = changes.len() * CHANGE_BYTES + ids * 16 + overlays;
    (HEAD_BYTES + body + CHECKSUM_BYTES).next_multiple_of(RECORD_ALIGN)
}

impl Record {
    pub fn encode(&self, journal: JournalId) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).expect("a record is bounded by its journal");
        let mut body = Writer::with_capacity(self.changes.len() * CHANGE_BYTES);
        let mut overlays = Vec::new();
        for id in self.ids.as_slice() {
            body.id(*id);
        }
        for (block, entry) in &self.changes {
            body.u64(block.0).u64(entry.word(count(overlays.len())).0);
            if let Entry::Overlay(overlay) = entry {
                overlays.push(overlay);
            }
        }
        overlays.iter().for_each(|overlay| overlay::encode(overlay, &mut body));
        let body = body.into_bytes();
        let len = (HEAD_BYTES + body.len() + CHECKSUM_BYTES).next_multiple_of(RECORD_ALIGN);
        let version = if overlays.is_empty() { VERSION_PLAIN } else { VERSION };
        let mut writer = Writer::with_capacity(len);
        writer.put(MAGIC).u32(version).u32(count(len)).id(journal.volume).u64(journal.generation.0);
        writer.u32(journal.number).u32(count(overlays.len())).u64(self.sequence).u64(self.through);
        writer.u32(count(self.changes.len())).u32(count(self.ids.as_slice().len())).put(&body);
        writer.sealed(RECORD_ALIGN)
    }

    /// The record at the front of `bytes`, and its length.
    fn decode(bytes: &[u8], journal: JournalId) -> Result<(Self, usize), FormatError> {
        let mut reader = Reader::new(bytes, STRUCTURE);
        reader.magic(MAGIC)?;
        let version = reader.u32("version")?;
        reader.version(version, VERSION)?;
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
        let overlays = reader.u32("number of overlays")?;
        if version == VERSION_PLAIN && overlays != 0 {
            return Err(reader.error("a record has overlays where there are none"));
        }
        let (sequence, through) = (reader.u64("sequence")?, reader.u64("through")?);
        let (changes, ids) = (reader.u32("number of changes")?, reader.u32("number of ids")?);
        let ids = (0..ids).map(|_| reader.id("an id")).collect::<Result<Vec<_>, _>>()?;
        let ids = VolumeIds::from_vec(ids);
        let words = (0..changes).map(|_| Ok((BlockIndex(reader.u64("a block")?), Word(reader.u64("an entry")?))));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let overlays = (0..overlays).map(|_| overlay::decode(&mut reader, &ids).map(Arc::new));
        let overlays = overlays.collect::<Result<Vec<_>, _>>()?;
        let entry = |word| Entry::from_word(word, |place| overlays.get(usize::try_from(place).ok()?).map(Arc::clone));
        let changes = words.into_iter().map(|(block, word)| match entry(word)? {
            Entry::Data { volume, .. } if ids.get(volume).is_none() => Err(reader.error("an entry names no volume")),
            entry => Ok((block, entry)),
        });
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        Ok((Self { sequence, through, ids, changes }, len))
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
    use crate::map::entry::VolumeIndex;
    use crate::map::overlay::{Granules, Step};
    use crate::units::{Epoch, ObjectSize};

    const JOURNAL: JournalId = JournalId { volume: VolumeId([1; 16]), generation: Generation(2), number: 3 };

    fn record(sequence: u64, changes: u64) -> Record {
        let data = Entry::Data { volume: VolumeIndex(0), epoch: Epoch(4) };
        let granules = Granules::new(ObjectSize::DEFAULT, 4096);
        let overlay = data.after(Step::Cover { epoch: Epoch(5), absorbed: None }, granules).unwrap();
        let entry = |block| if block % 3 == 1 { overlay.clone() } else { data.clone() };
        Record {
            sequence,
            through: sequence * 10,
            ids: VolumeIds::new(JOURNAL.volume),
            changes: (0..changes).map(|block| (BlockIndex(block), entry(block))).collect(),
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
