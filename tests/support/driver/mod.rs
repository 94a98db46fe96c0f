//! A guest's virtio-blk driver, in this process: what tests, benchmarks and the load generator speak to a vhost-user
//! socket with. The protocol and the rings are those of the crate `virtio-driver`, which nobody here wrote; this module
//! adds guest memory, fixed request slots, and the sleeping and waking of an interrupt-driven driver.
//!
//! ```text
//! Driver::connect(socket, settings) ── queues: Vec<Queue> ── submit(slot, Request) … kick() … wait() … reap(…)
//!        └─ capacity(), is_connected()                       execute(Request): one request, start to end
//! ```
//!
//! Include it by path: `#[path = "../tests/support/driver/mod.rs"] mod driver;`
//!
//! Limits of the crate below: no indirect descriptors, GET_ID, used lengths, GET_VRING_BASE, in-flight region, dirty log;
//! it demands REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS of the device.
#![allow(dead_code, reason = "each program that includes this module uses a part of it")]
#![allow(unreachable_pub, reason = "included by path into programs whose root it is not")]

mod memory;
mod queue;

use memory::GuestMemory;
pub use queue::{Queue, Request};
use std::io;
use std::path::Path;
use std::sync::Arc;
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport,
    VirtioFeatureFlags,
};

/// How the two sides tell each other about new entries in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// EVENT_IDX: each side names the index at which it wants to be woken.
    EventIndex,
    /// The plain flag in each ring.
    Flags,
}

/// The layout of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    Split,
    Packed,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub queues: u16,
    /// Request slots of each queue: as many requests can be in flight in it.
    pub slots: u16,
    /// Size of each slot's buffer; no request transfers more.
    pub slot_bytes: usize,
    pub notification: Notification,
    pub ring: Ring,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { queues: 1, slots: 1, slot_bytes: 4096, notification: Notification::EventIndex, ring: Ring::Split }
    }
}

impl Settings {
    /// Each request takes a descriptor for its header, one for its data and one for its status.
    fn ring_size(self) -> u16 {
        (self.slots * 3).next_power_of_two().max(16)
    }

    fn features(self) -> u64 {
        let mut virtio = VirtioFeatureFlags::VERSION_1;
        virtio.set(VirtioFeatureFlags::RING_EVENT_IDX, self.notification == Notification::EventIndex);
        virtio.set(VirtioFeatureFlags::RING_PACKED, self.ring == Ring::Packed);
        let blk = VirtioBlkFeatureFlags::MQ
            | VirtioBlkFeatureFlags::FLUSH
            | VirtioBlkFeatureFlags::RO
            | VirtioBlkFeatureFlags::BLK_SIZE
            | VirtioBlkFeatureFlags::SEG_MAX
            | VirtioBlkFeatureFlags::SIZE_MAX
            | VirtioBlkFeatureFlags::TOPOLOGY
            | VirtioBlkFeatureFlags::DISCARD
            | VirtioBlkFeatureFlags::WRITE_ZEROES;
        virtio.bits() | blk.bits()
    }
}

/// The connection; the queues keep it, and with it the rings' memory, alive.
type Connection = Arc<Box<VirtioBlkTransport>>;

/// A connected device whose rings are started.
pub struct Driver {
    connection: Connection,
    /// Taken by the threads that drive them.
    pub queues: Vec<Queue>,
}

impl Driver {
    /// Connects, negotiates and starts every queue. `NotFound`, `ConnectionRefused`: nobody listens (yet).
    pub fn connect(socket: &Path, settings: Settings) -> io::Result<Driver> {
        let path = socket.to_str().ok_or_else(|| io::Error::other("the socket's path is not UTF-8"))?;
        let transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(path, settings.features())?;
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let rings = VirtioBlkQueue::setup_queues(transport.as_mut(), settings.queues.into(), settings.ring_size())?;

        let bytes_per_queue = usize::from(settings.slots) * settings.slot_bytes;
        let memory = Arc::new(GuestMemory::new(bytes_per_queue * rings.len())?);
        transport.map_mem_region(memory.address(), memory.len(), memory.raw_fd(), 0)?;

        let connection: Connection = Arc::new(transport);
        let queues = rings
            .into_iter()
            .enumerate()
            .map(|(index, ring)| Queue::new(ring, index, settings, &connection, memory.clone()))
            .collect();
        Ok(Driver { connection, queues })
    }

    /// The volume's size in bytes, asked anew each time.
    pub fn capacity(&self) -> io::Result<u64> {
        Ok(u64::from(self.connection.get_config()?.capacity) * 512)
    }

    /// Asks the device for its configuration: the crate keeps the socket to itself, and this fails once the peer is gone.
    pub fn is_connected(&self) -> bool {
        self.connection.get_config().is_ok()
    }

    /// The virtio features both sides agreed on.
    pub fn features(&self) -> u64 {
        self.connection.get_features()
    }

    pub fn config(&self) -> io::Result<VirtioBlkConfig> {
        self.connection.get_config()
    }
}
