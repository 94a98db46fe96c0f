//! An independent driver's view: data written is data read, on any number of queues, with and without event indexes.

#![allow(unsafe_code, reason = "the driver takes raw iovecs and shared memory")]

use super::served::{Served, VOLUME_BYTES};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use virtio_driver::{VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags, iovec};

const RING_SIZE: u16 = 64;
const SLOT_BYTES: usize = 64 << 10;
const MEMORY_BYTES: usize = 16 * SLOT_BYTES;

/// A connected driver with memory that it may use for data.
pub(crate) struct Disk {
    transport: Box<VirtioBlkTransport>,
    pub(crate) queues: Vec<VirtioBlkQueue<'static, usize>>,
    memory: *mut u8,
}

impl Disk {
    pub(crate) fn new(served: &Served, queues: usize, extra: VirtioFeatureFlags) -> Self {
        let blk = VirtioBlkFeatureFlags::all().bits();
        let features = (VirtioFeatureFlags::VERSION_1 | extra).bits() | blk;
        let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(served.socket(), features).unwrap());
        assert_eq!(transport.get_features() & extra.bits(), extra.bits());
        let queues = VirtioBlkQueue::setup_queues(&mut *transport, queues, RING_SIZE).unwrap();
        let memory = shared_memory(&mut *transport);
        Self { transport, queues, memory }
    }

    /// Memory number `slot`, to be written before a request or read after it.
    fn slot(&mut self, slot: usize, len: usize) -> &mut [u8] {
        assert!(len <= SLOT_BYTES && slot < MEMORY_BYTES / SLOT_BYTES);
        // SAFETY: within the mapping; the device writes only while a request is out, and none is while this borrow lives.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(slot * SLOT_BYTES), len) }
    }

    pub(crate) fn slot_address(&self, slot: usize) -> *mut u8 {
        self.memory.wrapping_add(slot * SLOT_BYTES)
    }

    /// Sends what `enqueue` put into the queue and waits for `count` completions; returns (context, result) sorted.
    pub(crate) fn finish(&mut self, queue: usize, count: usize) -> Vec<(usize, i32)> {
        fence(Ordering::SeqCst);
        if self.queues[queue].avail_notif_needed() {
            self.transport.get_submission_notifier(queue).notify().unwrap();
        }
        let mut results = Vec::new();
        while results.len() < count {
            let done = self.queues[queue].completions().map(|done| (done.context, done.ret));
            results.extend(done);
            std::thread::yield_now();
        }
        results.sort_unstable();
        results
    }

    fn write(&mut self, queue: usize, offset: u64, bytes: &[u8]) {
        self.slot(0, bytes.len()).copy_from_slice(bytes);
        let place = self.slot_address(0);
        // SAFETY: the slot is shared memory and stays untouched until the request is finished.
        unsafe { self.queues[queue].write_raw(offset, place, bytes.len(), 0).unwrap() }
        assert_eq!(self.finish(queue, 1), [(0, 0)]);
    }

    fn read(&mut self, queue: usize, offset: u64, len: usize) -> Vec<u8> {
        self.slot(1, len).fill(0xa5);
        let place = self.slot_address(1);
        // SAFETY: as for writes.
        unsafe { self.queues[queue].read_raw(offset, place, len, 0).unwrap() }
        assert_eq!(self.finish(queue, 1), [(0, 0)]);
        self.slot(1, len).to_vec()
    }
}

fn shared_memory(transport: &mut VirtioBlkTransport) -> *mut u8 {
    let file = memfd_create("data", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, MEMORY_BYTES as u64).unwrap();
    // SAFETY: a new mapping that aliases nothing; it stays for the rest of the test process.
    let memory = unsafe {
        mmap(std::ptr::null_mut(), MEMORY_BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
    };
    let memory = memory.unwrap();
    transport.map_mem_region(memory.expose_provenance(), MEMORY_BYTES, file.as_raw_fd(), 0).unwrap();
    memory.cast()
}

/// Bytes that differ from place to place and from one `seed` to the next.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn data_survives_on(queues: u16, extra: VirtioFeatureFlags) {
    let served = Served::with_queues(queues);
    let mut disk = Disk::new(&served, usize::from(queues), extra);
    let lens = [512, 4096, 65536, 1536];
    let place = |round: u64| (round * 7919 * 512) % (VOLUME_BYTES - (64 << 10)) / 512 * 512;
    for turn in 0..64 {
        let (round, queue, len) = (turn as u64, turn % usize::from(queues), lens[turn % lens.len()]);
        disk.write(queue, place(round), &pattern(round, len));
        let other = (queue + 1) % usize::from(queues);
        assert_eq!(disk.read(other, place(round), len), pattern(round, len), "round {round}");
    }
}

#[test]
fn data_survives_on_one_queue() {
    data_survives_on(1, VirtioFeatureFlags::empty());
}

#[test]
fn data_survives_on_one_queue_with_event_indexes() {
    data_survives_on(1, VirtioFeatureFlags::RING_EVENT_IDX);
}

#[test]
fn data_survives_on_four_queues_with_event_indexes() {
    data_survives_on(4, VirtioFeatureFlags::RING_EVENT_IDX);
}

#[test]
fn data_survives_on_sixteen_queues() {
    data_survives_on(16, VirtioFeatureFlags::RING_EVENT_IDX);
}

#[test]
fn a_full_ring_of_requests_finishes() {
    for extra in [VirtioFeatureFlags::empty(), VirtioFeatureFlags::RING_EVENT_IDX] {
        let served = Served::with_queues(1);
        let mut disk = Disk::new(&served, 1, extra);
        // Three descriptors each: 21 requests fill a ring of 64.
        for round in 0..50 {
            for i in 0..21 {
                let place = disk.slot_address(2).wrapping_add(512 * i);
                // SAFETY: shared memory, untouched until the request is finished.
                unsafe { disk.queues[0].write_raw(512 * i as u64, place, 512, i).unwrap() }
            }
            let results = disk.finish(0, 21);
            assert!(results.iter().enumerate().all(|(i, result)| *result == (i, 0)), "round {round}: {results:?}");
        }
        let statistics = served.device.statistics()[0];
        assert_eq!((statistics.writes, statistics.bytes_written, statistics.errors), (1050, 1050 * 512, 0));
    }
}

#[test]
fn odd_pieces_at_odd_addresses_are_one_request() {
    let served = Served::with_queues(1);
    let mut disk = Disk::new(&served, 1, VirtioFeatureFlags::empty());
    let (bytes, lens) = (pattern(1, 4096), [100, 412, 1, 511, 3072]);
    let mut pieces = Vec::new();
    let mut at = 0;
    for (i, len) in lens.into_iter().enumerate() {
        let start = 1000 * i + 3;
        disk.slot(2, SLOT_BYTES)[start..start + len].copy_from_slice(&bytes[at..at + len]);
        pieces.push(iovec { iov_base: disk.slot_address(2).wrapping_add(start).cast(), iov_len: len });
        at += len;
    }
    // SAFETY: the pieces lie in shared memory, untouched until the request is finished.
    unsafe { disk.queues[0].writev(512, pieces.as_ptr(), pieces.len(), 7).unwrap() }
    assert_eq!(disk.finish(0, 1), [(7, 0)]);
    assert_eq!(disk.read(0, 512, 4096), bytes);

    disk.slot(2, SLOT_BYTES).fill(0);
    // SAFETY: as above.
    unsafe { disk.queues[0].readv(512, pieces.as_ptr(), pieces.len(), 8).unwrap() }
    assert_eq!(disk.finish(0, 1), [(8, 0)]);
    assert_eq!(disk.slot(2, SLOT_BYTES)[3..103], bytes[..100]);
    assert_eq!(disk.slot(2, SLOT_BYTES)[4003..7075], bytes[1024..]);
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zeros() {
    let served = Served::with_queues(1);
    let mut disk = Disk::new(&served, 1, VirtioFeatureFlags::RING_EVENT_IDX);
    for (offset, unmap) in [(0, false), (1 << 20, true)] {
        disk.write(0, offset, &pattern(offset + 1, 16384));
        disk.queues[0].write_zeroes(offset + 4096, 8192, unmap, 0).unwrap();
        assert_eq!(disk.finish(0, 1), [(0, 0)]);
        let expected = [&pattern(offset + 1, 16384)[..4096], &[0; 8192], &pattern(offset + 1, 16384)[12288..]].concat();
        assert_eq!(disk.read(0, offset, 16384), expected);
    }
    disk.write(0, 4 << 20, &pattern(9, 65536));
    disk.queues[0].discard(4 << 20, 1 << 20, 0).unwrap();
    assert_eq!(disk.finish(0, 1), [(0, 0)]);
    assert_eq!(disk.read(0, 4 << 20, 65536), vec![0; 65536], "a whole object was discarded");
}

#[test]
fn flushes_finish_beside_writes() {
    let served = Served::with_queues(2);
    let mut disk = Disk::new(&served, 2, VirtioFeatureFlags::RING_EVENT_IDX);
    for round in 0..20_u64 {
        let place = disk.slot_address(3);
        // SAFETY: shared memory, untouched until the request is finished.
        unsafe { disk.queues[0].write_raw(round * (1 << 20), place, 4096, 0).unwrap() }
        disk.queues[1].flush(1).unwrap();
        assert_eq!(disk.finish(1, 1), [(1, 0)]);
        assert_eq!(disk.finish(0, 1), [(0, 0)]);
    }
    assert_eq!(served.device.statistics()[1].flushes, 20);
}

#[test]
fn the_configuration_tells_the_drivers_what_the_volume_is() {
    let served = Served::with_queues(3);
    let disk = Disk::new(&served, 3, VirtioFeatureFlags::empty());
    let config = disk.transport.get_config().unwrap();
    assert_eq!(config.capacity.to_native() * 512, VOLUME_BYTES);
    assert_eq!(config.num_queues.to_native(), 3);
    assert_eq!(disk.transport.max_queues(), Some(3));
}
