//! The names of live objects, more of them than memory may hold: sorted runs in files that have no name, merged when they are
//! read. Sixteen bytes a name.
//!
//! A run is sorted, and has no name twice. When there are [`RUNS_MAX`] of them they are merged into one, so that reading them
//! takes as many buffers at most.

use crate::units::{BlockIndex, Epoch, VolumeId};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Files open at once, and one buffer each.
const RUNS_MAX: usize = 32;

/// Buffer of a run: large enough that a spinning disk reads more than it seeks.
const BUFFER_BYTES: usize = 128 << 10;

/// Fewest names held in memory, whatever the limit.
const NAMES_MIN: usize = 64;

/// Of a name that is sorted: volume (in the order of their coming), epoch, block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

const VOLUME_SHIFT: u32 = 96;
const EPOCH_SHIFT: u32 = 48;
const KEY_BYTES: usize = 16;

/// Collects names in any order.
#[derive(Debug)]
pub(super) struct LiveNames {
    spill_dir: PathBuf,
    places: FxHashMap<VolumeId, u32>,
    /// The volumes, by their places.
    volumes: Vec<VolumeId>,
    names: Vec<Key>,
    names_max: usize,
    runs: Vec<File>,
}

impl LiveNames {
    pub(super) fn new(memory_bytes: u64, spill_dir: &Path) -> Self {
        let names_max = usize::try_from(memory_bytes).unwrap_or(usize::MAX) / KEY_BYTES;
        Self {
            spill_dir: spill_dir.to_owned(),
            places: FxHashMap::default(),
            volumes: Vec::new(),
            names: Vec::new(),
            names_max: names_max.max(NAMES_MIN),
            runs: Vec::new(),
        }
    }

    /// # Errors
    /// When a run cannot be written.
    pub(super) fn insert(&mut self, volume: VolumeId, epoch: Epoch, block: BlockIndex) -> io::Result<()> {
        let next = u32::try_from(self.volumes.len()).expect("a store has fewer volumes");
        let place = *self.places.entry(volume).or_insert(next);
        if place == next {
            self.volumes.push(volume);
        }
        self.names.push(Key::new(place, epoch, block));
        if self.names.len() >= self.names_max { self.shrink() } else { Ok(()) }
    }

    /// Drops what is there twice; spills the rest unless half of the memory is free then.
    fn shrink(&mut self) -> io::Result<()> {
        self.names.sort_unstable();
        self.names.dedup();
        if self.names.len() <= self.names_max / 2 {
            return Ok(());
        }
        let run = write_run(&self.spill_dir, self.names.iter().copied().map(Ok))?;
        self.names.clear();
        self.runs.push(run);
        if self.runs.len() >= RUNS_MAX {
            let merged = Merge::new(std::mem::take(&mut self.runs), Vec::new())?;
            self.runs = vec![write_run(&self.spill_dir, merged)?];
        }
        Ok(())
    }

    /// The names, to be asked for in order.
    ///
    /// # Errors
    /// When a run cannot be read.
    pub(super) fn finish(mut self) -> io::Result<SortedNames> {
        self.names.sort_unstable();
        self.names.dedup();
        let mut merge = Merge::new(self.runs, self.names)?;
        let next = merge.next().transpose()?;
        Ok(SortedNames { places: self.places, volumes: self.volumes, merge, next })
    }
}

fn write_run(dir: &Path, names: impl Iterator<Item = io::Result<Key>>) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(dir)?);
    for name in names {
        writer.write_all(&name?.0.to_be_bytes())?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)
}

impl Key {
    fn new(volume: u32, epoch: Epoch, block: BlockIndex) -> Self {
        let fields = [(u64::from(volume), VOLUME_SHIFT), (epoch.0, EPOCH_SHIFT), (block.0, 0)];
        assert!(epoch <= Epoch::MAX && block.0 < 1 << EPOCH_SHIFT, "an epoch has 40 bits and a block 42");
        Self(fields.into_iter().fold(0, |key, (field, shift)| key | (u128::from(field) << shift)))
    }
}

/// All names, ascending, each once.
struct Merge {
    runs: Vec<Run>,
    /// The next name of each run, and whose it is.
    next: BinaryHeap<Reverse<(Key, usize)>>,
    last: Option<Key>,
}

enum Run {
    File(BufReader<File>),
    Memory(std::vec::IntoIter<Key>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Key>> {
        let reader = match self {
            Self::Memory(names) => return Ok(names.next()),
            Self::File(reader) => reader,
        };
        let mut bytes = [0; KEY_BYTES];
        match reader.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(Key(u128::from_be_bytes(bytes)))),
            // Runs hold whole names only: nobody else has the file.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Merge {
    fn new(files: Vec<File>, memory: Vec<Key>) -> io::Result<Self> {
        let mut runs = vec![Run::Memory(memory.into_iter())];
        for mut file in files {
            file.seek(SeekFrom::Start(0))?;
            runs.push(Run::File(BufReader::with_capacity(BUFFER_BYTES, file)));
        }
        let mut merge = Self { runs, next: BinaryHeap::new(), last: None };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(key) = self.runs[run].next()? {
            self.next.push(Reverse((key, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<Key>;

    fn next(&mut self) -> Option<io::Result<Key>> {
        while let Some(Reverse((key, run))) = self.next.pop() {
            if let Err(error) = self.advance(run) {
                return Some(Err(error));
            }
            if self.last.replace(key) != Some(key) {
                return Some(Ok(key));
            }
        }
        None
    }
}

/// Answers whether names are live, for names that ascend: by volume in the order of [`SortedNames::volumes`], then by epoch
/// and block.
pub(super) struct SortedNames {
    places: FxHashMap<VolumeId, u32>,
    volumes: Vec<VolumeId>,
    merge: Merge,
    next: Option<Key>,
}

impl SortedNames {
    /// The volumes of which there are names.
    pub(super) fn volumes(&self) -> &[VolumeId] {
        &self.volumes
    }

    /// # Errors
    /// When a run cannot be read.
    pub(super) fn contains(&mut self, volume: VolumeId, epoch: Epoch, block: BlockIndex) -> io::Result<bool> {
        let Some(place) = self.places.get(&volume) else { return Ok(false) };
        let wanted = Key::new(*place, epoch, block);
        while self.next.is_some_and(|next| next < wanted) {
            self.next = self.merge.next().transpose()?;
        }
        Ok(self.next == Some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> VolumeId {
        VolumeId([n; 16])
    }

    fn sorted(memory_bytes: u64, names: &[(u8, u64, u64)]) -> SortedNames {
        let dir = tempfile::tempdir().unwrap();
        let mut live = LiveNames::new(memory_bytes, dir.path());
        for (volume, epoch, block) in names {
            live.insert(id(*volume), Epoch(*epoch), BlockIndex(*block)).unwrap();
        }
        live.finish().unwrap()
    }

    #[test]
    fn spilled_names_are_those_that_memory_would_hold() {
        // Every third name, in an order that is not theirs, many of them twice.
        let names: Vec<_> = (0..20_000u64).map(|n| (n * 7919 % 10_000) * 3).collect();
        let names: Vec<_> =
            names.into_iter().map(|n| (u8::try_from(n % 2).unwrap(), n / 2 / 100, n / 2 % 100)).collect();
        let expected: std::collections::BTreeSet<_> = names.iter().copied().collect();
        for memory_bytes in [0, 16 << 10, 1 << 30] {
            let mut sorted = sorted(memory_bytes, &names);
            let volumes: Vec<u8> = sorted.volumes().iter().map(|id| id.0[0]).collect();
            for volume in volumes {
                for (epoch, block) in (0..160).flat_map(|epoch| (0..100).map(move |block| (epoch, block))) {
                    let live = sorted.contains(id(volume), Epoch(epoch), BlockIndex(block)).unwrap();
                    assert_eq!(live, expected.contains(&(volume, epoch, block)), "{volume} {epoch} {block}");
                }
            }
        }
    }

    #[test]
    fn the_largest_name_keeps_its_fields_apart() {
        let mut sorted = sorted(1 << 20, &[(1, Epoch::MAX.0, (1 << 42) - 1), (2, 0, 0)]);
        assert!(sorted.contains(id(1), Epoch::MAX, BlockIndex((1 << 42) - 1)).unwrap());
        assert!(sorted.contains(id(2), Epoch(0), BlockIndex(0)).unwrap());
        assert!(!sorted.contains(id(3), Epoch(0), BlockIndex(0)).unwrap());
    }

    #[test]
    fn runs_leave_no_file_with_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut live = LiveNames::new(0, dir.path());
        for block in 0..10_000 {
            live.insert(id(1), Epoch(1), BlockIndex(block)).unwrap();
        }
        assert!(!live.runs.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
