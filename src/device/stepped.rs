//! One virtqueue without a thread: whoever owns it says when it takes its turns.
//!
//! For simulations, in which time passes only where a seed says so. All that a queue's thread runs, it runs through here too,
//! but for sleeping and for the session's orders.

use super::connection::Connection;
use super::error::DeviceError;
use super::features::Features;
use super::memory::{Memory, RegionAddress};
use super::ring::{RingAddress, RingParts};
use super::worker::{Kick, QueueStart, Worker};
use super::{Device, Writes};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A guest's memory: one region, from the beginning of a file that both sides map.
#[derive(Clone)]
pub struct SteppedMemory(Arc<Memory>);

impl SteppedMemory {
    /// `guest` and `user` are the region's first bytes in the guest's and in the front-end's address space.
    ///
    /// # Errors
    /// When the file is too short or cannot be mapped.
    pub fn map(file: OwnedFd, size: u64, guest: u64, user: u64) -> Result<Self, DeviceError> {
        let address = RegionAddress { guest, user, size, file_offset: 0 };
        let memory = Memory::map(std::iter::once((address, file)));
        let refused = |reason: super::memory::MemoryError| DeviceError::Protocol {
            message: "a memory table".to_owned(),
            reason: reason.to_string(),
        };
        memory.map(|memory| Self(Arc::new(memory))).map_err(refused)
    }
}

/// Where a ring's parts lie, in the front-end's address space.
#[derive(Debug, Clone, Copy)]
pub struct SteppedRing {
    /// Entries; a power of two.
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// See the module's text.
pub struct SteppedQueue(Worker);

impl SteppedQueue {
    /// Starts the device's queue `index` on a fresh ring, with every feature negotiated that the device offers.
    ///
    /// # Errors
    /// When the memory does not hold the ring, or the volume gives no port.
    ///
    /// # Panics
    /// When the ring's size is not a power of two or the device has no such queue.
    pub fn start(device: &Device, index: u16, memory: &SteppedMemory, ring: SteppedRing) -> Result<Self, DeviceError> {
        assert!(index < device.shared.queues, "a queue of the device");
        let SteppedRing { size, descriptors, available, used } = ring;
        let address = RingAddress { descriptors, available, used };
        if RingParts::locate(&memory.0, address, size).is_none() {
            let reason = "it does not lie in the guest's memory".to_owned();
            return Err(DeviceError::Protocol { message: "a ring's address".to_owned(), reason });
        }
        let (stream, _) = UnixStream::pair().map_err(|source| DeviceError::Socket { operation: "make", source })?;
        let start = QueueStart {
            index,
            size,
            next_available: 0,
            address,
            features: Features::offered(Writes::Allowed),
            memory: Arc::clone(&memory.0),
            kick: Kick::None,
            call: None,
            error: None,
        };
        let (_, no_orders) = crossbeam_channel::bounded(0);
        let connection = Arc::new(Connection::new(stream)?);
        Worker::new(Arc::clone(&device.shared), connection, start, no_orders).map(Self)
    }

    /// Takes what the guest has made available, moves what can move, answers what is finished. Whether anything moved.
    pub fn turn(&mut self) -> bool {
        self.0.turn()
    }

    /// Drops all requests where they stand, unanswered, as the end of the process would.
    pub fn abandon(mut self) {
        self.0.abandon();
    }
}
