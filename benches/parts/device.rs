//! The ring machinery: 32 reads from the available ring to the used ring, with nothing in between; ours, and the same work
//! through the crate `virtio-queue`.

use super::guest::{AVAILABLE, BATCH, DATA_BYTES, DESCRIPTORS, Guest, MEMORY_BYTES, RING_SIZE, USED};
use archvhost::device::bench::{BareRing, Layout};
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

pub(crate) fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(BATCH.into()));
    group.bench_function("ours: take, collect, push", |bencher| {
        let mut guest = Guest::new();
        let mut ring = ours(&guest);
        bencher.iter(|| {
            guest.submit();
            assert_eq!(ring.serve(|pieces| _ = black_box(pieces)), BATCH);
        });
    });
    group.bench_function("ours: take, collect, parse, push", |bencher| {
        let mut guest = Guest::new();
        let mut ring = ours(&guest);
        bencher.iter(|| {
            guest.submit();
            assert_eq!(ring.serve_parsed(|request| drop(black_box(request))), BATCH);
        });
    });
    group.bench_function("virtio-queue: iter, collect, add_used", |bencher| {
        let mut theirs = Theirs::new();
        bencher.iter(|| theirs.serve());
    });
    group.finish();
}

fn ours(guest: &Guest) -> BareRing {
    let layout = Layout {
        memory_bytes: MEMORY_BYTES,
        ring_size: RING_SIZE,
        descriptors: DESCRIPTORS,
        available: AVAILABLE,
        used: USED,
    };
    BareRing::new(guest.file(), layout)
}

/// The crate's queue over the guest's memory.
struct Theirs {
    guest: Guest,
    queue: Queue,
    pieces: Vec<(*mut u8, usize)>,
    heads: Vec<(u16, GuestAddress)>,
}

impl Theirs {
    fn new() -> Theirs {
        let mut queue = Queue::new(RING_SIZE).expect("a power of two");
        queue.set_desc_table_address(Some(0), Some(0));
        queue.set_avail_ring_address(Some(0x1000), Some(0));
        queue.set_used_ring_address(Some(0x2000), Some(0));
        queue.set_event_idx(true);
        queue.set_size(RING_SIZE);
        queue.set_ready(true);
        Theirs { guest: Guest::new(), queue, pieces: Vec::new(), heads: Vec::new() }
    }

    fn serve(&mut self) {
        self.guest.submit();
        let memory = &self.guest.memory;
        self.heads.clear();
        for chain in self.queue.iter(memory).expect("the queue is ready") {
            let head = chain.head_index();
            self.pieces.clear();
            let mut status = GuestAddress(0);
            for descriptor in chain {
                let len = usize::try_from(descriptor.len()).expect("fits");
                let slices = GuestMemory::get_slices(memory, descriptor.addr(), len, vm_memory::Permissions::No);
                for slice in slices.expect("inside the guest's memory") {
                    let slice = slice.expect("inside the guest's memory");
                    self.pieces.push((slice.ptr_guard_mut().as_ptr(), slice.len()));
                }
                status = descriptor.addr();
            }
            black_box(&self.pieces);
            self.heads.push((head, status));
        }
        assert_eq!(self.heads.len(), usize::from(BATCH));
        for (head, status) in &self.heads {
            memory.write_obj(0_u8, *status).expect("inside the guest's memory");
            self.queue.add_used(memory, *head, DATA_BYTES + 1).expect("the queue is ready");
        }
        black_box(self.queue.needs_notification(memory).expect("the queue is ready"));
    }
}
