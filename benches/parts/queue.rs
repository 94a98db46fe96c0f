//! A queue with everything below it: 32 reads from the available ring through a volume in a store that keeps nothing, and back to
//! the used ring; without a time-out and with one, which moves the data through memory of ours.

use super::guest::{AVAILABLE, BATCH, DESCRIPTORS, Guest, MEMORY_BYTES, RING_SIZE, USED};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::device::stepped::{SteppedMemory, SteppedQueue, SteppedRing};
use archvhost::device::{Device, DeviceOptions, RequestTimeout};
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume};
use criterion::{Criterion, Throughput};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// All of the guest's requests lie in the first block.
const VOLUME_BYTES: u64 = 64 << 20;

pub(crate) fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(BATCH.into()));
    let minute = RequestTimeout::After(Duration::from_secs(60));
    for (name, request_timeout) in [("without a time-out", RequestTimeout::Never), ("with a time-out", minute)] {
        group.bench_function(name, |bencher| {
            let soft_journals = tempfile::tempdir().expect("a directory for soft journals");
            let volume = volume(soft_journals.path());
            let options = DeviceOptions { queues: 1, request_timeout, ..DeviceOptions::default() };
            let device = Device::new(Arc::clone(&volume), &options).expect("a device");
            let mut guest = Guest::new();
            let mut queue = start(&device, &guest);
            bencher.iter(|| {
                guest.submit();
                let until = guest.available();
                while guest.used() != until {
                    queue.turn();
                }
            });
            drop(queue);
            volume.close().expect("an orderly end");
        });
    }
    group.finish();
}

fn volume(soft_journal_dir: &Path) -> Arc<Volume> {
    let store: Arc<dyn Store> = open("null:1GiB", &StoreOptions::default()).expect("a store");
    let name = VolumeName::new("bench").expect("a name");
    let size = VolumeSize::new(VOLUME_BYTES).expect("a size");
    create(&store, &CreateRequest { name: name.clone(), size, object_size: ObjectSize::DEFAULT }).expect("a volume");
    let options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: soft_journal_dir.to_owned(),
        cache_bytes: 16 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    let volume = Volume::open(&store, &name, &options).expect("an open volume");
    // So that the reads ask the store.
    let port = Port::open(&volume).expect("a port");
    let len = ObjectSize::DEFAULT.bytes();
    let buffer = Buffer::zeroed(usize::try_from(len).expect("fits"));
    let request = Request::Write { range: ByteRange::new(0, len), buffer, stability: Stability::Cached };
    let writer = port.clone();
    port.block_on(async move { writer.request(request).await }).expect("a write");
    volume
}

fn start(device: &Device, guest: &Guest) -> SteppedQueue {
    let memory = SteppedMemory::map(guest.file(), MEMORY_BYTES, 0, 0).expect("the file can be mapped");
    let ring = SteppedRing { size: RING_SIZE, descriptors: DESCRIPTORS, available: AVAILABLE, used: USED };
    SteppedQueue::start(device, 0, &memory, ring).expect("the ring lies in memory")
}
