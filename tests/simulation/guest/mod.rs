//! The guest, and the two ways its requests reach the volume.
//!
//! ```text
//!   virtqueue:  driver ── chains in shared memory ──► device's ring, parser, worker turn ──► port ──► volume
//!   port:       ────────────────────────────────────────────────────────────────────────► port ──► volume
//! ```
//! The shorter way can ask for stable writes one by one and sees why a request failed.

mod chain;
mod memory;
mod ports;
mod queue;
mod virtqueues;

use super::daemon::Answer;
use super::plan::Way;
use super::rng::Rng;
use super::workload::Asked;
use archvhost::volume::Volume;
use ports::Ports;
use std::rc::Rc;
use std::sync::Arc;
use virtqueues::Virtqueues;

/// What outlives the daemon.
pub struct Guest {
    memory: Rc<memory::GuestMemory>,
}

impl Guest {
    pub fn new(queues: usize) -> Result<Self, String> {
        let len = virtqueues::memory_bytes(queues);
        let memory = memory::GuestMemory::new(len).map_err(|error| format!("cannot make guest memory: {error}"))?;
        Ok(Self { memory: Rc::new(memory) })
    }
}

/// The guest's connection to one life of the daemon.
pub enum Frontend {
    Ports(Ports),
    Virtqueues(Virtqueues),
}

impl Frontend {
    pub fn connect(guest: &Guest, volume: &Arc<Volume>, way: Way, queues: usize) -> Result<Self, String> {
        match way {
            Way::Ports => Ports::open(volume, queues).map(Self::Ports),
            Way::Virtqueues => Virtqueues::start(&guest.memory, volume, queues).map(Self::Virtqueues),
        }
    }

    pub fn submit(&mut self, rng: &mut Rng, queue: usize, tag: u32, asked: &Asked, content: &[u8]) {
        match self {
            Self::Ports(ports) => ports.submit(queue, tag, asked, content),
            Self::Virtqueues(virtqueues) => virtqueues.submit(rng, queue, tag, asked, content),
        }
    }

    /// One turn of a queue's thread. Whether anything moved.
    pub fn turn(&mut self, queue: usize, answers: &mut Vec<Answer>) -> Result<bool, String> {
        match self {
            Self::Ports(ports) => Ok(ports.turn(queue, answers)),
            Self::Virtqueues(virtqueues) => virtqueues.turn(queue, answers),
        }
    }

    /// The volume has another size.
    pub fn capacity_changed(&self) {
        match self {
            Self::Ports(_) => {}
            Self::Virtqueues(virtqueues) => virtqueues.capacity_changed(),
        }
    }

    /// The queues are gone, with whatever they had not answered.
    pub fn disconnect(&mut self) {
        match self {
            Self::Ports(ports) => ports.close(),
            Self::Virtqueues(virtqueues) => virtqueues.stop(),
        }
    }
}
