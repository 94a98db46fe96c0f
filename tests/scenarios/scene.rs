//! A store with volumes, and short words for what is done to them.

use crate::stores::Place;
use archvhost::admin::branch::{CloneRequest, Opened, SnapshotRequest};
use archvhost::admin::check::{CheckRequest, Repair};
use archvhost::admin::collect::{CollectOptions, CollectReport};
use archvhost::admin::create::CreateRequest;
use archvhost::admin::info::VolumeInfo;
use archvhost::admin::job::Job;
use archvhost::admin::resize::{ResizeRequest, Shrink};
use archvhost::admin::{branch, check, collect, create, info, remove, resize, rollback};
use archvhost::store::{Buffer, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{
    Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeError, VolumeErrorKind,
};
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const OBJECT: u64 = 4 * MIB;

pub(crate) struct Scene {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: OpenOptions,
    place: Place,
    /// In memory.
    soft: TempDir,
}

/// An open volume with one port.
pub(crate) struct Disk {
    pub(crate) volume: Arc<Volume>,
    pub(crate) port: Port,
}

/// The volumes that this process has open, for the verbs.
pub(crate) struct Here<'a>(pub(crate) &'a [&'a Disk]);

impl Opened for Here<'_> {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        self.0.iter().find(|disk| disk.volume.name() == *name).map(|disk| Arc::clone(&disk.volume))
    }
}

pub(crate) const NOTHING: Here<'static> = Here(&[]);

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

pub(crate) fn size(bytes: u64) -> VolumeSize {
    VolumeSize::new(bytes).unwrap()
}

/// What a verb refuses with.
pub(crate) fn refusal<T>(result: Result<T, VolumeError>) -> VolumeErrorKind {
    match result {
        Err(error) => error.kind(),
        Ok(_) => panic!("it was not refused"),
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (place, soft) = (Place::new(), tempfile::tempdir_in("/dev/shm").unwrap());
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 4 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        Self { store: place.open(), options, place, soft }
    }

    /// The same store as another process finds it, all that was open here being closed.
    pub(crate) fn restarted(self) -> Self {
        let Self { store, options, place, soft } = self;
        drop(store);
        Self { store: place.open(), options, place, soft }
    }

    pub(crate) fn create(&self, text: &str, bytes: u64) -> VolumeInfo {
        self.try_create(text, bytes).unwrap()
    }

    pub(crate) fn try_create(&self, text: &str, bytes: u64) -> Result<VolumeInfo, VolumeError> {
        let object_size = ObjectSize::new(OBJECT).unwrap();
        create::create(&self.store, &CreateRequest { name: name(text), size: size(bytes), object_size })
    }

    pub(crate) fn open(&self, text: &str) -> Disk {
        self.try_open(text, Access::ReadWrite).unwrap()
    }

    pub(crate) fn open_read_only(&self, text: &str) -> Disk {
        self.try_open(text, Access::ReadOnly).unwrap()
    }

    pub(crate) fn try_open(&self, text: &str, access: Access) -> Result<Disk, VolumeError> {
        let options = OpenOptions { access, ..self.options.clone() };
        let volume = Volume::open(&self.store, &name(text), &options)?;
        let port = Port::open(&volume)?;
        Ok(Disk { volume, port })
    }

    /// The volume's bytes, read for the occasion.
    pub(crate) fn read(&self, text: &str, offset: u64, len: u64) -> Vec<u8> {
        let disk = self.open_read_only(text);
        let bytes = disk.read(offset, len);
        disk.close();
        bytes
    }

    /// Written for the occasion.
    pub(crate) fn write(&self, text: &str, offset: u64, bytes: &[u8]) {
        let disk = self.open(text);
        disk.write(offset, bytes);
        disk.close();
    }

    pub(crate) fn snapshot(&self, volume: &str, snapshot: &str, opened: &Here<'_>) -> VolumeInfo {
        self.try_snapshot(volume, snapshot, opened).unwrap()
    }

    pub(crate) fn try_snapshot(
        &self,
        volume: &str,
        snapshot: &str,
        opened: &Here<'_>,
    ) -> Result<VolumeInfo, VolumeError> {
        let requests = [SnapshotRequest { volume: name(volume), name: name(snapshot) }];
        let mut report = branch::snapshot(&self.store, &requests, opened, &self.options)?;
        Ok(report.volumes.remove(0))
    }

    pub(crate) fn clone(&self, source: &str, clone: &str) -> VolumeInfo {
        self.try_clone(source, clone, None, &NOTHING).unwrap()
    }

    pub(crate) fn try_clone(
        &self,
        source: &str,
        clone: &str,
        bytes: Option<u64>,
        opened: &Here<'_>,
    ) -> Result<VolumeInfo, VolumeError> {
        let request = CloneRequest { source: name(source), name: name(clone), size: bytes.map(size) };
        Ok(branch::clone(&self.store, &request, opened, &self.options)?.volumes.remove(0))
    }

    pub(crate) fn roll_back(&self, volume: &str, snapshot: &str) -> Result<VolumeInfo, VolumeError> {
        rollback::rollback(&self.store, &name(volume), &name(snapshot), &self.options)
    }

    pub(crate) fn resize(
        &self,
        volume: &str,
        bytes: u64,
        shrink: Shrink,
        opened: &Here<'_>,
    ) -> Result<VolumeInfo, VolumeError> {
        let request = ResizeRequest { volume: name(volume), size: size(bytes), shrink };
        resize::resize(&self.store, &request, opened, &self.options, &Job::default())
    }

    pub(crate) fn info(&self, text: &str) -> Result<VolumeInfo, VolumeError> {
        info::info(&self.store, &name(text))
    }

    pub(crate) fn remove(&self, text: &str) -> Result<(), VolumeError> {
        remove::remove(&self.store, &name(text), &Job::default()).map(|removal| {
            assert_ne!(removal, remove::Removal::Interrupted);
        })
    }

    pub(crate) fn collect(&self, opened: &Here<'_>) -> CollectReport {
        let options = CollectOptions { dry_run: false, memory_bytes: 1 << 20, spill_dir: self.soft.path().to_owned() };
        collect::collect(&self.store, opened, &options, &Job::default()).unwrap()
    }

    /// What `check` finds, in its words.
    pub(crate) fn findings(&self, opened: &Here<'_>) -> Vec<String> {
        let request = CheckRequest { volumes: Vec::new(), repair: Repair::Nothing };
        let report = check::check(&self.store, &request, opened, &Job::default()).unwrap();
        report.findings.into_iter().map(|finding| finding.text).collect()
    }

    /// As after a mishap.
    pub(crate) fn lose_a_data_object(&self) {
        self.place.lose_a_data_object();
    }

    /// Objects of volumes, and their names, in the store as it is seen from outside.
    pub(crate) fn objects(&self) -> usize {
        self.place.objects()
    }
}

impl Disk {
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.try_write(offset, bytes).unwrap();
    }

    pub(crate) fn try_write(&self, offset: u64, bytes: &[u8]) -> Result<(), VolumeError> {
        let range = ByteRange::new(offset, bytes.len() as u64);
        let buffer = Buffer::copied_from(bytes);
        let request = Request::Write { range, buffer, stability: Stability::Cached };
        self.port.block_on(self.port.request(request)).map(|_| ())
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        self.try_read(offset, len).unwrap()
    }

    pub(crate) fn try_read(&self, offset: u64, len: u64) -> Result<Vec<u8>, VolumeError> {
        let buffer = Buffer::zeroed(usize::try_from(len).unwrap());
        let request = Request::Read { range: ByteRange::new(offset, len), buffer };
        Ok(self.port.block_on(self.port.request(request))?.unwrap().to_vec())
    }

    pub(crate) fn run(&self, request: Request) {
        self.port.block_on(self.port.request(request)).unwrap();
    }

    pub(crate) fn close(self) {
        let Self { volume, port } = self;
        drop(port);
        volume.close().unwrap();
    }
}

/// Bytes that are another for each `seed`, and none of them zero.
pub(crate) fn bytes(seed: u8, len: u64) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 509 + u64::from(seed) * 31) % 255).unwrap() + 1).collect()
}
