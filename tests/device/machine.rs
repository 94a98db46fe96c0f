//! A virtual machine's half: memory shared with the device, a front-end, and rings written by hand.

#![allow(unsafe_code, reason = "shared memory is written through raw pointers")]

use super::served::{Served, eventually};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

pub(crate) const RING_SIZE: u16 = 64;
pub(crate) const RAM_BYTES: usize = 16 << 20;
/// Where tests put their data, in guest-physical addresses.
pub(crate) const DATA: u64 = 8 << 20;

pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
const NEXT: u16 = 1;

/// Bytes set aside for each queue's ring, from the start of memory on.
const QUEUE_BYTES: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
pub(crate) const VERSION_1: u64 = 1 << 32;

pub(crate) struct Ram {
    pub(crate) file: OwnedFd,
    base: *mut u8,
    pub(crate) guest_address: u64,
    len: usize,
}

impl Ram {
    pub(crate) fn new(guest_address: u64, len: usize) -> Self {
        let file = memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len as u64).unwrap();
        // SAFETY: a new mapping that aliases nothing of ours.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0) };
        Self { file, base: base.unwrap().cast(), guest_address, len }
    }

    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest_address,
            memory_size: self.len as u64,
            userspace_addr: self.base.expose_provenance() as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    fn host(&self, address: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(address - self.guest_address).unwrap();
        assert!(offset + len <= self.len);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.add(offset) }
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        // SAFETY: `host` checked the range.
        unsafe { self.host(address, bytes.len()).copy_from(bytes.as_ptr(), bytes.len()) }
    }

    pub(crate) fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: `host` checked the range.
        unsafe { self.host(address, len).copy_to(bytes.as_mut_ptr(), len) }
        bytes
    }

    fn word(&self, address: u64) -> &AtomicU16 {
        // SAFETY: `host` checked the range; mapped as long as `self`; callers use even addresses.
        unsafe { &*self.host(address, 2).cast() }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it any more.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// One queue's event descriptors and its driver's position.
pub(crate) struct Queue {
    index: u64,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
    next_descriptor: Cell<u16>,
}

pub(crate) struct Machine {
    pub(crate) frontend: Frontend,
    pub(crate) ram: Ram,
    pub(crate) queues: Vec<Queue>,
}

impl Machine {
    /// A connected front-end that has negotiated and shared its memory; no ring is set up.
    pub(crate) fn connect(served: &Served, queues: u16, features: u64) -> Self {
        Self::over(served.connect(), queues, features)
    }

    pub(crate) fn over(stream: UnixStream, queues: u16, features: u64) -> Self {
        let ram = Ram::new(0, RAM_BYTES);
        let frontend = negotiate(stream, &ram, features);
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap();
        let queues = (0..u64::from(queues))
            .map(|index| Queue { index, kick: event(), call: event(), error: event(), next_descriptor: Cell::new(0) })
            .collect();
        Self { frontend, ram, queues }
    }

    /// A machine whose rings all run.
    pub(crate) fn start(served: &Served, queues: u16) -> Self {
        let mut machine = Self::connect(served, queues, VERSION_1 | PROTOCOL_FEATURES);
        (0..usize::from(queues)).for_each(|queue| machine.start_queue(queue, 0));
        machine
    }

    /// Goes on over a new connection as QEMU does after the old one was closed: each ring from where its used index stands.
    pub(crate) fn reconnect(&mut self, stream: UnixStream) {
        self.frontend = negotiate(stream, &self.ram, VERSION_1 | PROTOCOL_FEATURES);
        let bases: Vec<u16> = (0..self.queues.len()).map(|queue| self.used_index(queue)).collect();
        bases.into_iter().enumerate().for_each(|(queue, base)| self.start_queue(queue, base));
    }

    /// Its own socket, to do on it what the library cannot.
    pub(crate) fn socket(&self) -> UnixStream {
        // SAFETY: the front-end keeps the socket open for as long as the machine lives.
        let socket = unsafe { BorrowedFd::borrow_raw(self.frontend.as_raw_fd()) };
        UnixStream::from(socket.try_clone_to_owned().unwrap())
    }

    pub(crate) fn start_queue(&mut self, index: usize, base: u16) {
        self.set_up_queue(index, base);
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    /// Everything but enabling.
    pub(crate) fn set_up_queue(&mut self, index: usize, base: u16) {
        let queue = &self.queues[index];
        self.frontend.set_vring_num(index, RING_SIZE).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_addr(index, &self.ring_address(index)).unwrap();
        self.frontend.set_vring_err(index, &queue.error).unwrap();
        self.frontend.set_vring_call(index, &queue.call).unwrap();
        self.frontend.set_vring_kick(index, &queue.kick).unwrap();
    }

    pub(crate) fn ring_address(&self, index: usize) -> VringConfigData {
        let start = self.ram.region().userspace_addr + QUEUE_BYTES * index as u64;
        VringConfigData {
            queue_max_size: RING_SIZE,
            queue_size: RING_SIZE,
            flags: 0,
            desc_table_addr: start,
            used_ring_addr: start + USED,
            avail_ring_addr: start + AVAILABLE,
            log_addr: None,
        }
    }

    /// Writes a descriptor of the queue's table.
    pub(crate) fn descriptor(&self, queue: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let place = QUEUE_BYTES * self.queues[queue].index + 16 * u64::from(index);
        self.descriptor_at(place, address, len, flags, next);
    }

    pub(crate) fn descriptor_at(&self, place: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.ram.put(place, &address.to_le_bytes());
        self.ram.put(place + 8, &len.to_le_bytes());
        self.ram.put(place + 12, &flags.to_le_bytes());
        self.ram.put(place + 14, &next.to_le_bytes());
    }

    /// Puts a chain of (address, length, flags) into free descriptors, makes it available and kicks. Returns its head.
    pub(crate) fn submit(&self, queue: usize, parts: &[(u64, u32, u16)]) -> u16 {
        let state = &self.queues[queue];
        let count = u16::try_from(parts.len()).unwrap();
        let first = state.next_descriptor.get();
        let head = if first + count > RING_SIZE { 0 } else { first };
        state.next_descriptor.set(head + count);
        for (i, (address, len, flags)) in (0..).zip(parts) {
            let next = if i + 1 < count { NEXT } else { 0 };
            self.descriptor(queue, head + i, *address, *len, flags | next, head + i + 1);
        }
        self.make_available(queue, head);
        self.kick(queue);
        head
    }

    pub(crate) fn make_available(&self, queue: usize, head: u16) {
        let start = QUEUE_BYTES * self.queues[queue].index + AVAILABLE;
        let index = self.ram.word(start + 2).load(Ordering::Relaxed);
        self.ram.put(start + 4 + 2 * u64::from(index % RING_SIZE), &head.to_le_bytes());
        self.ram.word(start + 2).store(index.wrapping_add(1), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn set_available_index(&self, queue: usize, index: u16) {
        let start = QUEUE_BYTES * self.queues[queue].index + AVAILABLE;
        self.ram.word(start + 2).store(index, Ordering::Release);
    }

    pub(crate) fn kick(&self, queue: usize) {
        self.queues[queue].kick.write(1).unwrap();
    }

    pub(crate) fn used_index(&self, queue: usize) -> u16 {
        let start = QUEUE_BYTES * self.queues[queue].index + USED;
        self.ram.word(start + 2).load(Ordering::Acquire)
    }

    /// The used entry with this index: head and length.
    pub(crate) fn used(&self, queue: usize, index: u16) -> (u32, u32) {
        let place = QUEUE_BYTES * self.queues[queue].index + USED + 4 + 8 * u64::from(index % RING_SIZE);
        let word = |at| u32::from_le_bytes(self.ram.get(at, 4).try_into().unwrap());
        (word(place), word(place + 4))
    }

    pub(crate) fn wait_used(&self, queue: usize, index: u16) {
        eventually("requests finish", || self.used_index(queue) == index);
    }

    /// Does one request with the header at DATA, its status at DATA + 16. Returns the status and the used length.
    pub(crate) fn request(&self, queue: usize, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
        self.header(kind, sector);
        let before = self.used_index(queue);
        let parts = [&[(DATA, 16, 0)], data, &[(DATA + 16, 1, WRITE)]].concat();
        let head = self.submit(queue, &parts);
        self.wait_used(queue, before.wrapping_add(1));
        let (finished, len) = self.used(queue, before);
        assert_eq!(finished, u32::from(head));
        (self.status(), len)
    }

    pub(crate) fn header(&self, kind: u32, sector: u64) {
        self.ram.put(DATA, &kind.to_le_bytes());
        self.ram.put(DATA + 4, &[0; 4]);
        self.ram.put(DATA + 8, &sector.to_le_bytes());
        self.ram.put(DATA + 16, &[0xee]);
    }

    pub(crate) fn status(&self) -> u8 {
        self.ram.get(DATA + 16, 1)[0]
    }
}

fn negotiate(stream: UnixStream, ram: &Ram, features: u64) -> Frontend {
    let mut frontend = Frontend::from_stream(stream, 64);
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    assert_eq!(offered & features, features);
    frontend.set_features(features).unwrap();
    if features & PROTOCOL_FEATURES != 0 {
        let offered = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(offered).unwrap();
        assert!(offered.contains(VhostUserProtocolFeatures::REPLY_ACK));
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    frontend.set_mem_table(&[ram.region()]).unwrap();
    frontend
}
