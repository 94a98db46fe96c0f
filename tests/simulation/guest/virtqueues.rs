//! The long way: a driver's chains in shared memory, taken up by the device's own queue code.

use super::memory::{GUEST_BASE, GuestMemory, USER_BASE};
use super::queue::{Answered, GuestQueue, QUEUE_BYTES, RING_SIZE};
use crate::daemon::{Answer, Failure};
use crate::rng::Rng;
use crate::workload::Asked;
use archvhost::device::stepped::{SteppedMemory, SteppedQueue, SteppedRing};
use archvhost::device::{Device, DeviceError, DeviceOptions};
use archvhost::volume::Volume;
use std::rc::Rc;
use std::sync::Arc;

/// Both sides of a queue.
type Pair = (GuestQueue, SteppedQueue);

pub struct Virtqueues {
    memory: Rc<GuestMemory>,
    device: Arc<Device>,
    queues: Vec<Pair>,
    answered: Vec<Answered>,
}

/// Bytes of guest memory for so many queues.
pub fn memory_bytes(queues: usize) -> usize {
    queues * usize::try_from(QUEUE_BYTES).expect("a few MiB")
}

impl Virtqueues {
    pub fn start(memory: &Rc<GuestMemory>, volume: &Arc<Volume>, queues: usize) -> Result<Self, String> {
        let (device, queues) = start(memory, volume, queues).map_err(|error| error.to_string())?;
        Ok(Self { memory: Rc::clone(memory), device, queues, answered: Vec::new() })
    }

    pub fn submit(&mut self, rng: &mut Rng, queue: usize, tag: u32, asked: &Asked, content: &[u8]) {
        self.queues[queue].0.submit(&self.memory, rng, tag, asked, content);
    }

    pub fn turn(&mut self, queue: usize, answers: &mut Vec<Answer>) -> Result<bool, String> {
        let (guest, device) = &mut self.queues[queue];
        let moved = device.turn();
        guest.collect(&self.memory, &mut self.answered)?;
        answers.extend(self.answered.drain(..).map(|Answered { tag, result }| {
            let failure = |status| Failure { text: format!("status {status}"), is_damage: false };
            Answer { tag, result: result.map_err(failure) }
        }));
        Ok(moved)
    }

    pub fn capacity_changed(&self) {
        self.device.capacity_changed();
    }

    pub fn stop(&mut self) {
        self.queues.drain(..).for_each(|(_, device)| device.abandon());
    }
}

fn start(memory: &GuestMemory, volume: &Arc<Volume>, queues: usize) -> Result<(Arc<Device>, Vec<Pair>), DeviceError> {
    let count = u16::try_from(queues).expect("a few queues");
    let device = Device::new(Arc::clone(volume), &DeviceOptions { queues: count, ..DeviceOptions::default() })?;
    let size = u64::try_from(memory.len()).expect("a few MiB");
    let file = memory.file().try_clone_to_owned();
    let file = file.map_err(|source| DeviceError::Socket { operation: "share the memory of", source })?;
    let mapped = SteppedMemory::map(file, size, GUEST_BASE, USER_BASE)?;
    let queues = (0..count)
        .map(|index| {
            let guest = GuestQueue::new(memory, GUEST_BASE + u64::from(index) * QUEUE_BYTES);
            let user = |address: u64| address - GUEST_BASE + USER_BASE;
            let ring = guest.ring();
            let (descriptors, available, used) = (user(ring.descriptors), user(ring.available), user(ring.used));
            let ring = SteppedRing { size: RING_SIZE, descriptors, available, used };
            Ok((guest, SteppedQueue::start(&device, index, &mapped, ring)?))
        })
        .collect::<Result<_, DeviceError>>()?;
    Ok((device, queues))
}
