//! The soft journal: entry changes in memory that outlives the process but not the host (rule C1).
//!
//! A file on a memory file system, mapped and fully allocated in advance, so an append is four stores. Change number *s* goes to
//! slot *s* mod [`SLOTS`]; the map never lets more than [`SLOTS`] changes wait for the hard journal, so nothing that is
//! still needed is overwritten. The head carries the host's boot id: should the directory be on a disk after all, what
//! it says is not believed after a power cut. docs/map-format.md has the bytes.

#![allow(unsafe_code, reason = "a shared mapping is reached through raw pointers; each block says why it holds")]

use super::format::FormatError;
use super::format::bytes::{Reader, Writer, unseal};
use super::overlay::{GranuleRange, Granules, Step};
use crate::clock;
use crate::units::{BlockIndex, Epoch, Generation, VolumeId};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Changes that may wait for the hard journal; 256 KiB of memory a volume. At half of them the keeper is asked for a commit.
pub const SLOTS: u64 = 8192;
const SLOT_BYTES: usize = 32;
const HEAD_BYTES: usize = 4096;
const FILE_BYTES: u64 = HEAD_BYTES as u64 + SLOTS * SLOT_BYTES as u64;
const STRUCTURE: &str = "the soft journal";
const MAGIC: &[u8; 8] = b"AVHSOFT1";
/// Version 1 knows Zero and Own only.
const VERSION: u32 = 2;

/// One change of a map entry. Numbers count up over a volume's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub number: u64,
    pub block: BlockIndex,
    pub step: Step,
}

/// One volume's soft journal under one lease generation, open for appending.
#[derive(Debug)]
pub struct SoftJournal {
    base: NonNull<u8>,
    generation: Generation,
}

// SAFETY: the mapping is process-wide memory, reached only through atomics.
unsafe impl Send for SoftJournal {}
// SAFETY: as above.
unsafe impl Sync for SoftJournal {}

impl SoftJournal {
    /// Makes an empty one, in place of any left by the same generation.
    ///
    /// # Errors
    /// When the file cannot be made or memory is short.
    pub fn create(dir: &Path, volume: VolumeId, generation: Generation, granules: Granules) -> io::Result<Self> {
        let path = path(dir, volume, generation);
        let _ = fs::remove_file(&path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
        let head = head(volume, generation, granules);
        if rustix::io::pwrite(&file, &head, 0)? != head.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let len = usize::try_from(FILE_BYTES).expect("260 KiB");
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping of a file of this length; the kernel picks the place.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, generation })
    }

    /// Records the change. A slot that is only half written when the process dies does not count as a change.
    pub fn append(&self, change: Change) {
        let fields = slot(change, self.generation);
        for (field, value) in (0u64..).zip(fields) {
            let offset = HEAD_BYTES as u64 + change.number % SLOTS * SLOT_BYTES as u64 + field * 8;
            let offset = usize::try_from(offset).expect("within the file");
            // SAFETY: the offset is within the mapping and a multiple of 8; mapped memory is only reached as atomics.
            let place = unsafe { AtomicU64::from_ptr(self.base.add(offset).cast().as_ptr()) };
            place.store(value, Ordering::Release);
        }
    }

    /// What a dead process of this host left: its changes with numbers above `after`, in order up to the first gap.
    ///
    /// # Errors
    /// [`ReadError::Missing`] when there is no file; otherwise when it cannot be read or is damaged. `Ok(empty)` when it is
    /// of another boot.
    pub fn read(dir: &Path, volume: VolumeId, generation: Generation, after: u64) -> Result<Left, ReadError> {
        let bytes = match fs::read(path(dir, volume, generation)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
            Err(error) => return Err(ReadError::Io(error)),
        };
        let Some((head, slots)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(Left::default()) };
        let Some(granules) = read_head(head, volume, generation)? else { return Ok(Left::default()) };
        let mut changes: Vec<Change> = slots.chunks_exact(SLOT_BYTES).filter_map(|s| decode(s, generation)).collect();
        changes.retain(|change| change.number > after);
        changes.sort_unstable_by_key(|change| change.number);
        let unbroken = changes.iter().zip(after + 1..).take_while(|(change, number)| change.number == *number).count();
        changes.truncate(unbroken);
        Ok(Left { granules, changes })
    }

    /// Removes the journals of this and lower generations.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not be removed.
    pub fn remove_through(dir: &Path, volume: VolumeId, generation: Generation) -> io::Result<()> {
        let prefix = format!("{volume}.");
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".soft")?.parse().ok());
            if number.is_some_and(|number: u64| number <= generation.0) {
                fs::remove_file(dir.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for SoftJournal {
    fn drop(&mut self) {
        let len = usize::try_from(FILE_BYTES).expect("260 KiB");
        // SAFETY: the very mapping made in `create`; nobody else keeps a pointer into it.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), len) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped");
    }
}

/// What a dead process left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// How that process cut the blocks that it covered; `None` from a process that covered none.
    pub granules: Option<Granules>,
    pub changes: Vec<Change>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no soft journal")]
    Missing,
    #[error("cannot read the soft journal")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Format(#[from] FormatError),
}

fn path(dir: &Path, volume: VolumeId, generation: Generation) -> PathBuf {
    dir.join(format!("{volume}.{}.soft", generation.0))
}

fn head(volume: VolumeId, generation: Generation, granules: Granules) -> Vec<u8> {
    let boot = blake3::hash(clock::boot_id().as_bytes());
    let mut writer = Writer::with_capacity(HEAD_BYTES);
    writer.put(MAGIC).u32(VERSION).put(&[granules.shift(), 0]).u16(granules.count());
    writer.id(volume).u64(generation.0).u64(SLOTS).put(&boot.as_bytes()[..16]);
    writer.sealed(HEAD_BYTES)
}

/// The granules it was written with, if any; `None` when it is another boot's or was never finished.
fn read_head(bytes: &[u8], volume: VolumeId, generation: Generation) -> Result<Option<Option<Granules>>, FormatError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut reader = Reader::new(unseal(bytes, STRUCTURE)?, STRUCTURE);
    reader.magic(MAGIC)?;
    let version = reader.u32("version")?;
    reader.version(version, VERSION)?;
    let shift = reader.u8("granule size")?;
    reader.zeros(1, "padding")?;
    let granules = Granules::from_parts(shift, reader.u16("number of granules")?);
    if granules.is_none() && version == VERSION {
        return Err(reader.error("its granules make no sense"));
    }
    let found = (reader.id("volume id")?, Generation(reader.u64("generation")?), reader.u64("slots")?);
    if found != (volume, generation, SLOTS) {
        return Err(reader.error("it is another volume's"));
    }
    let same_boot = reader.take(16, "boot id")? == &blake3::hash(clock::boot_id().as_bytes()).as_bytes()[..16];
    Ok(same_boot.then_some(granules))
}

const KIND_SHIFT: u32 = 60;
const ABSORBED_SHIFT: u32 = 40;
const FIRST_SHIFT: u32 = 16;
const EPOCH_MASK: u64 = Epoch::MAX.0;
const KIND_ZERO: u64 = 0;
const KIND_OWN: u64 = 1;
const KIND_COVER: u64 = 5;
const KIND_FILL: u64 = 6;

/// A step in eight bytes: kind in bits 60 to 63; of a cover, the absorbed layer plus one in bits 40 to 43, or 0; then the epoch.
/// Of a fill, the first granule in bits 16 to 31 and the count below.
fn encode_step(step: Step) -> u64 {
    match step {
        Step::Zero => KIND_ZERO,
        Step::Own { epoch } => (KIND_OWN << KIND_SHIFT) | epoch.0,
        Step::Cover { epoch, absorbed } => {
            let absorbed = absorbed.map_or(0, |layer| u64::from(layer) + 1);
            (KIND_COVER << KIND_SHIFT) | (absorbed << ABSORBED_SHIFT) | epoch.0
        }
        Step::Fill(GranuleRange { first, count }) => {
            (KIND_FILL << KIND_SHIFT) | (u64::from(first) << FIRST_SHIFT) | u64::from(count)
        }
    }
}

fn decode_step(word: u64) -> Option<Step> {
    let epoch = Epoch(word & EPOCH_MASK);
    let step = match word >> KIND_SHIFT {
        KIND_ZERO => Step::Zero,
        KIND_OWN => Step::Own { epoch },
        KIND_COVER => {
            let absorbed = u8::try_from((word >> ABSORBED_SHIFT) & 0xf).ok()?;
            Step::Cover { epoch, absorbed: absorbed.checked_sub(1) }
        }
        KIND_FILL => {
            let part = |bits: u64| u16::try_from(bits & 0xffff).ok();
            Step::Fill(GranuleRange { first: part(word >> FIRST_SHIFT)?, count: part(word)? })
        }
        _ => return None,
    };
    (encode_step(step) == word).then_some(step)
}

fn slot(change: Change, generation: Generation) -> [u64; 4] {
    let fields = [change.number, change.block.0, encode_step(change.step)];
    [fields[0], fields[1], fields[2], mix(fields, generation)]
}

fn decode(slot: &[u8], generation: Generation) -> Option<Change> {
    let mut reader = Reader::new(slot, STRUCTURE);
    let mut field = || reader.u64("a slot");
    let fields = [field().ok()?, field().ok()?, field().ok()?];
    let whole = field().ok()? == mix(fields, generation);
    let [number, block, step] = fields;
    let change = Change { number, block: BlockIndex(block), step: decode_step(step)? };
    (number != 0 && whole).then_some(change)
}

/// Tells a whole slot from a half-written one. Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014),
/// the 64-bit finalizer, once per field.
fn mix(fields: [u64; 3], generation: Generation) -> u64 {
    fields.into_iter().fold(!generation.0, |state, field| {
        let mut z = (state ^ field).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: VolumeId = VolumeId([3; 16]);
    const GENERATION: Generation = Generation(5);

    fn granules() -> Granules {
        Granules::new(crate::units::ObjectSize::DEFAULT, 4096)
    }

    fn change(number: u64) -> Change {
        let step = match number % 4 {
            0 => Step::Zero,
            1 => Step::Own { epoch: Epoch(number) },
            2 => Step::Cover { epoch: Epoch(number), absorbed: (number > 3).then_some(7) },
            _ => Step::Fill(GranuleRange { first: 1, count: 1023 }),
        };
        Change { number, block: BlockIndex(number * 7), step }
    }

    #[test]
    fn changes_outlive_the_journal_that_took_them() {
        let dir = tempfile::tempdir().unwrap();
        let journal = SoftJournal::create(dir.path(), ID, GENERATION, granules()).unwrap();
        (1..=5).for_each(|number| journal.append(change(number)));
        drop(journal);
        let read = SoftJournal::read(dir.path(), ID, GENERATION, 2).unwrap();
        assert_eq!(read.granules, Some(granules()));
        assert_eq!(read.changes, [change(3), change(4), change(5)]);
    }

    #[test]
    fn changes_behind_a_gap_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let journal = SoftJournal::create(dir.path(), ID, GENERATION, granules()).unwrap();
        [1, 2, 4].into_iter().for_each(|number| journal.append(change(number)));
        assert_eq!(SoftJournal::read(dir.path(), ID, GENERATION, 0).unwrap().changes, [change(1), change(2)]);
        assert_eq!(SoftJournal::read(dir.path(), ID, GENERATION, 4).unwrap().changes, []);
    }

    #[test]
    fn old_slots_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = SoftJournal::create(dir.path(), ID, GENERATION, granules()).unwrap();
        (1..=SLOTS + 3).for_each(|number| journal.append(change(number)));
        let read = SoftJournal::read(dir.path(), ID, GENERATION, SLOTS).unwrap();
        assert_eq!(read.changes, [change(SLOTS + 1), change(SLOTS + 2), change(SLOTS + 3)]);
    }

    #[test]
    fn a_half_written_slot_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let journal = SoftJournal::create(dir.path(), ID, GENERATION, granules()).unwrap();
        journal.append(change(1));
        let path = path(dir.path(), ID, GENERATION);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEAD_BYTES + 32 + 8] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(SoftJournal::read(dir.path(), ID, GENERATION, 0).unwrap().changes, []);
    }

    #[test]
    fn another_generations_journal_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        SoftJournal::create(dir.path(), ID, GENERATION, granules()).unwrap();
        fs::rename(path(dir.path(), ID, GENERATION), path(dir.path(), ID, GENERATION.next())).unwrap();
        assert!(SoftJournal::read(dir.path(), ID, GENERATION.next(), 0).is_err());
        assert!(matches!(SoftJournal::read(dir.path(), ID, Generation(1), 0), Err(ReadError::Missing)));
    }

    #[test]
    fn removal_takes_lower_generations_only() {
        let dir = tempfile::tempdir().unwrap();
        for generation in [4, 5, 6] {
            SoftJournal::create(dir.path(), ID, Generation(generation), granules()).unwrap();
        }
        SoftJournal::remove_through(dir.path(), ID, GENERATION).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
