//! A store with one volume, and short words for what is done to it.

use crate::stores::Place;
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::info::info;
use archvhost::store::{Buffer, ListScope, Store, io};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume};
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) const OBJECT: u64 = 64 << 10;

pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) name: VolumeName,
    pub(crate) options: OpenOptions,
    _soft: TempDir,
    _place: Place,
}

impl Bench {
    pub(crate) fn with_size(bytes: u64) -> Self {
        let place = Place::new();
        let store = place.open();
        let soft = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        let name = VolumeName::new("web1").unwrap();
        let size = VolumeSize::new(bytes).unwrap();
        let request = CreateRequest { name: name.clone(), size, object_size: ObjectSize::new(OBJECT).unwrap() };
        create(&store, &request).unwrap();
        Self { store, name, options, _soft: soft, _place: place }
    }

    pub(crate) fn open(&self) -> (Arc<Volume>, Port) {
        let volume = Volume::open(&self.store, &self.name, &self.options).unwrap();
        let port = Port::open(&volume).unwrap();
        (volume, port)
    }

    pub(crate) fn data_objects(&self) -> usize {
        let id = info(&self.store, &self.name).unwrap().id;
        let listing = |io: io::Io| async move { io.list(ListScope::Data(id), None, 1 << 20).await };
        io::block_on(&self.store, None, listing).unwrap().len()
    }
}

/// Ends a volume as the death of its process would.
pub(crate) fn die(volume: Arc<Volume>, port: Port) {
    drop(port);
    // The keeper's thread stands for the rest of the process: it lives on, and does nothing, because nobody rings.
    let lease_holder = Arc::downgrade(&volume);
    drop(volume);
    assert!(lease_holder.strong_count() >= 1, "the keeper holds the volume");
}

pub(crate) fn write(port: &Port, offset: u64, bytes: &[u8]) {
    let range = ByteRange::new(offset, bytes.len() as u64);
    let buffer = Buffer::copied_from(bytes);
    let request = Request::Write { range, buffer, stability: Stability::Cached };
    port.block_on(port.request(request)).unwrap();
}

pub(crate) fn read(port: &Port, offset: u64, len: usize) -> Vec<u8> {
    let range = ByteRange::new(offset, len as u64);
    let buffer = Buffer::copied_from(&vec![0xEE; len]);
    port.block_on(port.request(Request::Read { range, buffer })).unwrap().unwrap().to_vec()
}

pub(crate) fn run(port: &Port, request: Request) {
    port.block_on(port.request(request)).unwrap();
}
