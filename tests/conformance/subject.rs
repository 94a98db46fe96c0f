//! What the promises are tested on: a store, and names in it that no other test uses.

use crate::cluster;
use archvhost::store::io::{Io, block_on};
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::rados::RadosOptions;
use archvhost::store::{Buffer, Durability, ObjectName, Store, StoreError};
use archvhost::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use std::future::Future;
use std::sync::Arc;

pub(crate) struct Subject {
    pub(crate) store: Arc<dyn Store>,
    /// Removed when the test is over.
    _directory: Option<tempfile::TempDir>,
}

impl Subject {
    pub(crate) fn of(store: Arc<dyn Store>) -> Self {
        Self { store, _directory: None }
    }

    pub(crate) fn file(options: &StoreOptions) -> Self {
        let directory = directory();
        let store = open(&format!("file:{}", directory.path().display()), options).unwrap();
        Self { store, _directory: Some(directory) }
    }

    /// In a namespace of its own, with its data in another pool; `None` where there is no cluster.
    pub(crate) fn rados() -> Option<Self> {
        let cluster = cluster::shared()?;
        let rados = RadosOptions {
            conf: Some(cluster.conf.clone()),
            user: Some(cluster::User::Archvhost.id().to_owned()),
            data_pool: Some(cluster::DATA_POOL.to_owned()),
            connections: Some(2),
            ..RadosOptions::default()
        };
        let url = cluster.url(&cluster::namespace());
        Some(Self::of(open(&url, &StoreOptions { rados, ..StoreOptions::default() }).unwrap()))
    }

    /// Runs a future on a channel of its own.
    pub(crate) fn run<T, F>(&self, work: impl FnOnce(Io) -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        block_on(&self.store, None, work).unwrap()
    }
}

/// A directory on the disk that the build is on: `/tmp` is often none.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

pub(crate) fn data(block: u64) -> ObjectName {
    data_of(volume(1), 1, block)
}

pub(crate) fn data_of(volume: VolumeId, epoch: u64, block: u64) -> ObjectName {
    ObjectName::Data { volume, epoch: Epoch(epoch), block: BlockIndex(block) }
}

pub(crate) fn header(volume: VolumeId, generation: u64) -> ObjectName {
    ObjectName::Header { volume, generation: Generation(generation) }
}

pub(crate) fn journal(volume: VolumeId, generation: u64, number: u32) -> ObjectName {
    ObjectName::Journal { volume, generation: Generation(generation), number }
}

pub(crate) fn segment(volume: VolumeId, generation: u64, number: u32) -> ObjectName {
    ObjectName::Segment { volume, generation: Generation(generation), number }
}

pub(crate) fn name(text: &str) -> ObjectName {
    ObjectName::Name(VolumeName::new(text).unwrap())
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed ^ u8::try_from((at ^ at >> 8) & 0xff).unwrap()).collect()
}

pub(crate) fn buffer(seed: u8, len: usize) -> Buffer {
    Buffer::copied_from(&pattern(seed, len))
}

/// A buffer whose bytes are no zeros, for reads.
pub(crate) fn dirty(len: usize) -> Buffer {
    Buffer::copied_from(&vec![0xEE; len])
}

pub(crate) async fn read(io: &Io, object: ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    Ok(io.read(object, offset, dirty(len)).await?.to_vec())
}

pub(crate) async fn write(io: &Io, object: ObjectName, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
    io.write(object, offset, Buffer::copied_from(bytes), Durability::Cached).await.map(drop)
}
