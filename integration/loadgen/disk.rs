//! The volume as a driver sees it: queues with a fixed number of slots, each slot one 4 KiB buffer in shared memory.
//! A slot is free or in flight; a completion names its slot.

#![allow(unsafe_code, reason = "the driver crate takes buffers as raw pointers")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::Fallible;
use super::args::DiskArgs;
use super::pattern::BLOCK_BYTES;

/// One in-flight request's place: the buffer it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(usize);

impl Slot {
    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// A request that the device finished.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) slot: Slot,
    pub(crate) ok: bool,
}

pub(crate) struct Disk {
    queues: Vec<VirtioBlkQueue<'static, Slot>>,
    kicks: Vec<Box<dyn QueueNotifier>>,
    calls: Vec<Arc<EventFd>>,
    buffers: MmapRegion,
    depth: usize,
    capacity_bytes: u64,
    // Last, so that the rings outlive the queues that point into them.
    _transport: Box<VirtioBlkTransport>,
}

impl Disk {
    pub(crate) fn connect(args: &DiskArgs) -> Fallible<Self> {
        let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
        let wanted = features.bits() | (VirtioBlkFeatureFlags::MQ | VirtioBlkFeatureFlags::FLUSH).bits();
        let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(&args.socket, wanted)?);
        let slots = args.queues * args.depth;
        // Three descriptors a request: header, data, status.
        let queue_size = u16::try_from((args.depth * 3).next_power_of_two())?;
        let mut queues = VirtioBlkQueue::setup_queues(&mut *transport, args.queues, queue_size)?;
        queues.iter_mut().for_each(|queue| queue.set_used_notif_enabled(true));
        let buffers = shared_buffers(&mut *transport, slots * BLOCK_BYTES)?;
        Ok(Self {
            kicks: (0..args.queues).map(|queue| transport.get_submission_notifier(queue)).collect(),
            calls: (0..args.queues).map(|queue| transport.get_completion_fd(queue)).collect(),
            capacity_bytes: u64::from(transport.get_config()?.capacity) * 512,
            depth: args.depth,
            queues,
            buffers,
            _transport: transport,
        })
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.queues.len() * self.depth).map(Slot)
    }

    pub(crate) fn write(&mut self, slot: Slot, offset: u64, data: &[u8; BLOCK_BYTES]) -> Fallible<()> {
        self.buffers.get_slice(slot.0 * BLOCK_BYTES, BLOCK_BYTES)?.copy_from(data);
        let buffer = self.buffer(slot);
        // SAFETY: the buffer is in the mapping that `self` owns, and the slot is not used again before it finished.
        unsafe { self.queues[slot.0 / self.depth].write_raw(offset, buffer, BLOCK_BYTES, slot)? };
        self.kick(slot)
    }

    pub(crate) fn read(&mut self, slot: Slot, offset: u64) -> Fallible<()> {
        let buffer = self.buffer(slot);
        // SAFETY: as in `write`.
        unsafe { self.queues[slot.0 / self.depth].read_raw(offset, buffer, BLOCK_BYTES, slot)? };
        self.kick(slot)
    }

    /// What a finished read brought.
    pub(crate) fn data(&self, slot: Slot) -> Fallible<[u8; BLOCK_BYTES]> {
        let mut data = [0; BLOCK_BYTES];
        self.buffers.get_slice(slot.0 * BLOCK_BYTES, BLOCK_BYTES)?.copy_to(&mut data);
        Ok(data)
    }

    /// Everything that the used rings hold now.
    pub(crate) fn finished(&mut self) -> Vec<Finished> {
        let all = self.queues.iter_mut().flat_map(|queue| queue.completions());
        all.map(|done| Finished { slot: done.context, ok: done.ret == 0 }).collect()
    }

    /// Waits until a queue signals a completion, at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Fallible<()> {
        let mut fds: Vec<PollFd<'_>> =
            self.calls.iter().map(|call| PollFd::from_borrowed_fd(call.as_fd(), PollFlags::IN)).collect();
        poll(&mut fds, Some(&limit.try_into()?))?;
        let signalled = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect::<Vec<_>>();
        for (call, _) in self.calls.iter().zip(signalled).filter(|(_, signalled)| *signalled) {
            call.read()?;
        }
        Ok(())
    }

    fn kick(&mut self, slot: Slot) -> Fallible<()> {
        let queue = slot.0 / self.depth;
        if self.queues[queue].avail_notif_needed() {
            self.kicks[queue].notify()?;
        }
        Ok(())
    }

    fn buffer(&self, slot: Slot) -> *mut u8 {
        self.buffers.as_ptr().wrapping_add(slot.0 * BLOCK_BYTES)
    }
}

/// Maps `bytes` of memory that the device can reach too.
fn shared_buffers(transport: &mut VirtioBlkTransport, bytes: usize) -> Fallible<MmapRegion> {
    let file = File::from(memfd_create("loadgen-buffers", MemfdFlags::CLOEXEC)?);
    file.set_len(u64::try_from(bytes)?)?;
    let region = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), bytes)?;
    transport.map_mem_region(region.as_ptr().addr(), bytes, file.as_raw_fd(), 0)?;
    Ok(region)
}
