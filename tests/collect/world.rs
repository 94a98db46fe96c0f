//! Volumes in a store in memory, each beside a plain model of its content.

use crate::hooks::HookedStore;
use archvhost::admin::branch::{CloneRequest, Opened, SnapshotRequest, clone, snapshot};
use archvhost::admin::collect::{CollectOptions, CollectReport, collect};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::job::Job;
use archvhost::admin::remove::{Removal, remove};
use archvhost::map::format::header::Header;
use archvhost::store::memory::MemoryStore;
use archvhost::store::{Buffer, ListScope, ObjectName, PublishMode, Space, Store, StoreError, io};
use archvhost::units::{ByteRange, Generation, ObjectSize, VolumeId, VolumeName, VolumeSize};
use archvhost::volume::{Access, OpenOptions, Port, Request, Stability, Volume, VolumeError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

pub(crate) const OBJECT: u64 = 64 << 10;
pub(crate) const BLOCKS: u64 = 6;

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

/// A volume with its model. Open for writing, or not open.
pub(crate) struct Disk {
    pub(crate) open: Option<(Arc<Volume>, Port)>,
    pub(crate) model: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hooks: Arc<HookedStore>,
    pub(crate) options: OpenOptions,
    pub(crate) disks: BTreeMap<VolumeName, Disk>,
    pub(crate) snapshots: BTreeMap<VolumeName, Vec<u8>>,
    pub(crate) dir: TempDir,
}

/// The volumes of a world that are open, for verbs that run while the world is borrowed.
#[derive(Default)]
pub(crate) struct OpenVolumes(pub(crate) Mutex<BTreeMap<VolumeName, Arc<Volume>>>);

impl Opened for OpenVolumes {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        self.0.lock().unwrap().get(name).map(Arc::clone)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let hooks = Arc::new(HookedStore::new(Arc::new(MemoryStore::new())));
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: dir.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: 4096,
            lease: Default::default(),
        };
        let store: Arc<dyn Store> = Arc::<HookedStore>::clone(&hooks);
        Self { store, hooks, options, disks: BTreeMap::new(), snapshots: BTreeMap::new(), dir }
    }

    pub(crate) fn create(&mut self, text: &str) {
        let size = VolumeSize::new(BLOCKS * OBJECT).unwrap();
        let request = CreateRequest { name: name(text), size, object_size: ObjectSize::new(OBJECT).unwrap() };
        create(&self.store, &request).unwrap();
        self.open(text, vec![0; usize::try_from(BLOCKS * OBJECT).unwrap()]);
    }

    pub(crate) fn open(&mut self, text: &str, model: Vec<u8>) {
        let volume = Volume::open(&self.store, &name(text), &self.options).unwrap();
        let port = Port::open(&volume).unwrap();
        self.disks.insert(name(text), Disk { open: Some((volume, port)), model });
    }

    pub(crate) fn close(&mut self, text: &str) {
        if let Some((volume, port)) = self.disks.get_mut(&name(text)).unwrap().open.take() {
            drop(port);
            volume.close().unwrap();
        }
    }

    pub(crate) fn volume(&self, text: &str) -> Arc<Volume> {
        Arc::clone(&self.disks[&name(text)].open.as_ref().unwrap().0)
    }

    pub(crate) fn opened(&self) -> OpenVolumes {
        let open = |(name, disk): (&VolumeName, &Disk)| Some((name.clone(), Arc::clone(&disk.open.as_ref()?.0)));
        OpenVolumes(Mutex::new(self.disks.iter().filter_map(open).collect()))
    }

    pub(crate) fn snapshot(&mut self, volume: &str, text: &str) {
        take_snapshot(&self.store, &self.opened(), &self.options, volume, text);
        self.snapshots.insert(name(text), self.disks[&name(volume)].model.clone());
    }

    pub(crate) fn clone_of(&mut self, source: &str, text: &str) {
        make_clone(&self.store, &self.opened(), &self.options, source, text);
        let model = self.snapshots.get(&name(source)).unwrap_or_else(|| &self.disks[&name(source)].model);
        self.open(text, model.clone());
    }

    /// Fills a whole block with a byte.
    pub(crate) fn fill(&mut self, text: &str, block: u64, byte: u8) {
        self.write(text, block * OBJECT, &vec![byte; usize::try_from(OBJECT).unwrap()]);
    }

    pub(crate) fn write(&mut self, text: &str, offset: u64, bytes: &[u8]) {
        let disk = self.disks.get_mut(&name(text)).unwrap();
        write(&disk.open.as_ref().unwrap().1, offset, bytes);
        let at = usize::try_from(offset).unwrap();
        disk.model[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes a whole block read as zeros.
    pub(crate) fn zero(&mut self, text: &str, block: u64) {
        let disk = self.disks.get_mut(&name(text)).unwrap();
        let range = ByteRange::new(block * OBJECT, OBJECT);
        let zeroes = Request::WriteZeroes { range, space: Space::Free, stability: Stability::Cached };
        request(&disk.open.as_ref().unwrap().1, zeroes);
        let at = usize::try_from(range.offset).unwrap();
        disk.model[at..at + usize::try_from(OBJECT).unwrap()].fill(0);
    }

    pub(crate) fn remove(&mut self, text: &str) {
        assert_ne!(self.removal(text), Removal::Interrupted);
    }

    pub(crate) fn removal(&mut self, text: &str) -> Removal {
        if self.disks.contains_key(&name(text)) {
            self.close(text);
        }
        let removal = remove(&self.store, &name(text), &Job::default()).unwrap();
        self.disks.remove(&name(text));
        self.snapshots.remove(&name(text));
        removal
    }

    pub(crate) fn collect_options(&self) -> CollectOptions {
        CollectOptions { dry_run: false, memory_bytes: 1 << 20, spill_dir: self.dir.path().join("spill") }
    }

    pub(crate) fn try_collect(&self) -> Result<CollectReport, VolumeError> {
        collect(&self.store, &self.opened(), &self.collect_options(), &Job::default())
    }

    pub(crate) fn collect(&self) -> CollectReport {
        self.try_collect().unwrap()
    }

    /// Every volume and snapshot has what its model has.
    pub(crate) fn verify(&self) {
        let closed =
            |(name, disk): (&VolumeName, &Disk)| disk.open.is_none().then(|| (name.clone(), disk.model.clone()));
        for (name, disk) in &self.disks {
            if let Some((_, port)) = &disk.open {
                assert_same(name, &read(port, 0, disk.model.len()), &disk.model);
            }
        }
        let snapshots = self.snapshots.clone();
        for (name, model) in self.disks.iter().filter_map(closed).chain(snapshots) {
            let options = OpenOptions { access: Access::ReadOnly, ..self.options.clone() };
            let volume = Volume::open(&self.store, &name, &options).unwrap();
            let port = Port::open(&volume).unwrap();
            assert_same(&name, &read(&port, 0, model.len()), &model);
        }
    }

    pub(crate) fn list(&self, scope: ListScope) -> Vec<ObjectName> {
        list(&self.store, scope)
    }

    pub(crate) fn id(&self, text: &str) -> VolumeId {
        archvhost::admin::info::info(&self.store, &name(text)).unwrap().id
    }

    pub(crate) fn objects(&self, id: VolumeId) -> usize {
        self.list(ListScope::Data(id)).len()
    }

    pub(crate) fn segments(&self, id: VolumeId) -> usize {
        let segment = |name: &ObjectName| matches!(name, ObjectName::Segment { .. });
        self.list(ListScope::Metadata(id)).into_iter().filter(segment).count()
    }

    /// Everything in the store that belongs to these volumes, and all names, with their bytes.
    pub(crate) fn contents(&self, ids: &[VolumeId]) -> BTreeMap<ObjectName, Vec<u8>> {
        let scopes = ids.iter().flat_map(|id| [ListScope::Metadata(*id), ListScope::Data(*id)]);
        let names = scopes.chain([ListScope::Names]).flat_map(|scope| self.list(scope));
        names.map(|name| (name.clone(), self.bytes(&name))).collect()
    }

    pub(crate) fn bytes(&self, object: &ObjectName) -> Vec<u8> {
        io::block_on(&self.store, None, |io| async move { io.read_all(object.clone()).await }).unwrap()
    }

    pub(crate) fn put(&self, object: &ObjectName, bytes: &[u8]) {
        let publish = |io: io::Io| async move { io.publish(object.clone(), bytes, PublishMode::Replace).await };
        io::block_on(&self.store, None, publish).unwrap();
    }

    pub(crate) fn take_away(&self, object: &ObjectName) {
        io::block_on(&self.store, None, |io| async move { io.remove(object.clone()).await }).unwrap();
    }

    pub(crate) fn header(&self, id: VolumeId, generation: u64) -> Header {
        Header::decode(&self.bytes(&ObjectName::Header { volume: id, generation: Generation(generation) })).unwrap()
    }

    pub(crate) fn put_header(&self, header: &Header) {
        let object = ObjectName::Header { volume: header.id, generation: header.generation };
        self.put(&object, &header.encode());
    }
}

pub(crate) fn list(store: &Arc<dyn Store>, scope: ListScope) -> Vec<ObjectName> {
    let listed: Result<_, StoreError> =
        io::block_on(store, None, |io| async move { io.list(scope, None, 1_000_000).await });
    listed.unwrap()
}

pub(crate) fn take_snapshot(
    store: &Arc<dyn Store>,
    opened: &dyn Opened,
    options: &OpenOptions,
    volume: &str,
    text: &str,
) {
    let request = SnapshotRequest { volume: name(volume), name: name(text) };
    snapshot(store, &[request], opened, options).unwrap();
}

pub(crate) fn make_clone(store: &Arc<dyn Store>, opened: &dyn Opened, options: &OpenOptions, source: &str, text: &str) {
    let request = CloneRequest { source: name(source), name: name(text), size: None };
    clone(store, &request, opened, options).unwrap();
}

fn assert_same(name: &VolumeName, found: &[u8], expected: &[u8]) {
    let differs = (0..expected.len()).find(|at| found[*at] != expected[*at]);
    assert!(differs.is_none(), "{name} differs from its model at byte {}", differs.unwrap_or_default());
}

pub(crate) fn request(port: &Port, request: Request) -> Option<Buffer> {
    port.block_on(port.request(request)).unwrap()
}

pub(crate) fn read(port: &Port, offset: u64, len: usize) -> Vec<u8> {
    let range = ByteRange::new(offset, len as u64);
    request(port, Request::Read { range, buffer: Buffer::zeroed(len) }).unwrap().to_vec()
}

pub(crate) fn write(port: &Port, offset: u64, bytes: &[u8]) {
    let range = ByteRange::new(offset, bytes.len() as u64);
    request(port, Request::Write { range, buffer: Buffer::copied_from(bytes), stability: Stability::Cached });
}

pub(crate) fn discard(port: &Port, offset: u64, len: u64) {
    request(port, Request::Discard { range: ByteRange::new(offset, len) });
}
