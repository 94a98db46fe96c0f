//! Two or more sites, each with a store of its own, and volumes on them beside models of what they hold.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking, and the test files share this one")]

use archvhost::admin::branch::{CloneRequest, Opened, SnapshotRequest, clone, snapshot};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::export::export;
use archvhost::admin::import::{ImageFormat, ImportReport, ImportRequest, import};
use archvhost::admin::increment::{StreamRequest, export_stream};
use archvhost::admin::job::Job;
use archvhost::admin::resize::{ResizeRequest, Shrink, resize};
use archvhost::admin::transfer::TransferError;
use archvhost::map::format::header::Header;
use archvhost::store::memory::MemoryStore;
use archvhost::store::{Buffer, Space, Store, io};
use archvhost::units::{ByteRange, ObjectSize, VolumeId, VolumeName, VolumeSize};
use archvhost::volume::open::{find, read_header};
use archvhost::volume::{Access, OpenOptions, Port, Request, Stability, Volume, VolumeError};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::Arc;
use tempfile::TempDir;

pub const OBJECT: u64 = 64 << 10;
pub const SECTOR: u64 = 512;

pub struct Site {
    pub store: Arc<dyn Store>,
    pub options: OpenOptions,
    _soft: TempDir,
}

/// Nothing is open but what a verb opens itself.
pub struct NothingOpen;

impl Opened for NothingOpen {
    fn open_volume(&self, _name: &VolumeName) -> Option<Arc<Volume>> {
        None
    }
}

pub fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

pub fn size(bytes: u64) -> VolumeSize {
    VolumeSize::new(bytes).unwrap()
}

pub fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// Steele, Lea, Flood (2014): SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whole sectors below `size`, up to one and a half blocks.
    pub fn range(&mut self, size: u64) -> ByteRange {
        let offset = self.below(size / SECTOR) * SECTOR;
        let longest = (size - offset).min(OBJECT * 3 / 2) / SECTOR;
        ByteRange::new(offset, (1 + self.below(longest)) * SECTOR)
    }
}

impl Site {
    pub fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let soft = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: 4096,
            lease: Default::default(),
        };
        Self { store, options, _soft: soft }
    }

    pub fn create(&self, volume: &str, bytes: u64) {
        let object_size = ObjectSize::new(OBJECT).unwrap();
        create(&self.store, &CreateRequest { name: name(volume), size: size(bytes), object_size }).unwrap();
    }

    pub fn snapshot(&self, volume: &str, snapshot_name: &str) {
        let request = SnapshotRequest { volume: name(volume), name: name(snapshot_name) };
        snapshot(&self.store, &[request], &NothingOpen, &self.options).unwrap();
    }

    pub fn clone_of(&self, source: &str, clone_name: &str) {
        let request = CloneRequest { source: name(source), name: name(clone_name), size: None };
        clone(&self.store, &request, &NothingOpen, &self.options).unwrap();
    }

    pub fn resize(&self, volume: &str, bytes: u64) {
        let request = ResizeRequest { volume: name(volume), size: size(bytes), shrink: Shrink::Allow };
        resize(&self.store, &request, &NothingOpen, &self.options, &Job::default()).unwrap();
    }

    pub fn open(&self, volume: &str) -> Disk {
        self.try_open(volume).unwrap()
    }

    pub fn try_open(&self, volume: &str) -> Result<Disk, VolumeError> {
        let volume = Volume::open(&self.store, &name(volume), &self.options)?;
        Ok(Disk { port: Port::open(&volume)?, volume })
    }

    /// Opens the volume, has something done to it, and closes it.
    pub fn with<T>(&self, volume: &str, work: impl FnOnce(&Disk) -> T) -> T {
        let disk = self.open(volume);
        let result = work(&disk);
        disk.close();
        result
    }

    /// All that the volume or snapshot holds.
    pub fn content(&self, volume: &str) -> Vec<u8> {
        let mut image = tempfile::tempfile().unwrap();
        export(&self.store, &name(volume), &self.options, image.try_clone().unwrap(), &Job::default()).unwrap();
        image.rewind().unwrap();
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub fn header(&self, volume: &str) -> Header {
        let volume = &name(volume);
        io::block_on(&self.store, None, |io| async move {
            let id = find(&io, volume).await?;
            read_header(&io, id, volume).await.map(|(header, _)| header)
        })
        .unwrap()
    }

    pub fn id(&self, volume: &str) -> VolumeId {
        self.header(volume).id
    }

    /// The stream as bytes.
    pub fn stream(&self, from: Option<&str>, to: &str, resume: Option<String>) -> Result<Vec<u8>, TransferError> {
        let mut file = tempfile::tempfile().unwrap();
        let request = StreamRequest { name: name(to), from: from.map(name), resume };
        export_stream(&self.store, &request, &self.options, file.try_clone().unwrap(), &Job::default())?;
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    pub fn import(&self, volume: &str, stream: &[u8]) -> Result<ImportReport, TransferError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stream).unwrap();
        file.rewind().unwrap();
        self.import_file(volume, file, &Job::default())
    }

    pub fn import_file(&self, volume: &str, image: File, job: &Job) -> Result<ImportReport, TransferError> {
        let request = ImportRequest {
            name: name(volume),
            size: None,
            object_size: ObjectSize::DEFAULT,
            format: ImageFormat::RawOrStream,
        };
        import(&self.store, &request, &self.options, image, job)
    }
}

pub struct Disk {
    pub volume: Arc<Volume>,
    pub port: Port,
}

impl Disk {
    pub fn request(&self, request: Request) {
        self.port.block_on(self.port.request(request)).unwrap();
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let range = ByteRange::new(offset, bytes.len() as u64);
        self.request(Request::Write { range, buffer: Buffer::copied_from(bytes), stability: Stability::Cached });
    }

    /// Something random, at a random place, on the volume and its model.
    pub fn change(&self, random: &mut Random, model: &mut [u8]) {
        let range = random.range(model.len() as u64);
        let place = len(range.offset)..len(range.offset + range.len);
        match random.below(8) {
            0 => {
                self.request(Request::WriteZeroes { range, space: Space::Free, stability: Stability::Cached });
                model[place].fill(0);
            }
            1 => {
                // A discarded range may keep what it had: whole blocks read as zeros.
                let first = range.offset.next_multiple_of(OBJECT).min(model.len() as u64 - OBJECT);
                let first = first - first % OBJECT;
                self.request(Request::Discard { range: ByteRange::new(first, OBJECT) });
                model[len(first)..len(first + OBJECT)].fill(0);
            }
            2 => {
                self.write(range.offset, &vec![0; len(range.len)]);
                model[place].fill(0);
            }
            _ => {
                let bytes: Vec<u8> = (0..range.len).map(|_| random.next().to_le_bytes()[0]).collect();
                self.write(range.offset, &bytes);
                model[place].copy_from_slice(&bytes);
            }
        }
    }

    pub fn close(self) {
        drop(self.port);
        self.volume.close().unwrap();
    }
}
