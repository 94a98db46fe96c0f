//! What the front-end has said about one virtqueue, and the queue's thread while it is started.
//!
//! A ring has two states that do not depend on each other (vhost-user, "Ring states"): *started* from the moment that it has a
//! size, an address and a kick, until `GET_VRING_BASE`; *enabled* as `SET_VRING_ENABLE` says. A thread exists while the ring
//! is started, was enabled once, and the memory holds it. It looks at the ring at once, not only at the first kick: a kick
//! that was sent before we watched for it must not hang the guest.

use super::connection::Connection;
use super::error::DeviceError;
use super::event_fd::EventFd;
use super::features::Features;
use super::memory::Memory;
use super::ring::{RING_SIZE_MAX, RingAddress, RingParts};
use super::shared::Shared;
use super::wire::Refusal;
use super::worker::{Change, Kick, QueueStart, Running};
use std::sync::Arc;
use std::time::Duration;

/// What a vring needs to know to start.
pub(super) struct Surroundings<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) connection: &'a Arc<Connection>,
    pub(super) memory: &'a Arc<Memory>,
    pub(super) features: Features,
}

#[derive(Default)]
pub(super) struct Vring {
    index: u16,
    size: Option<u16>,
    base: u16,
    address: Option<RingAddress>,
    kick: Option<Kick>,
    call: Option<Arc<EventFd>>,
    error: Option<Arc<EventFd>>,
    enabled: bool,
    running: Option<Running>,
}

impl Vring {
    pub(super) fn new(index: u16) -> Self {
        Self { index, ..Self::default() }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn set_size(&mut self, size: u32) -> Result<(), Refusal> {
        let size = u16::try_from(size).ok().filter(|size| size.is_power_of_two() && *size <= RING_SIZE_MAX);
        let size = size.ok_or("a ring's size is a power of two, at most 32768")?;
        self.unless_running(self.size == Some(size))?;
        self.size = Some(size);
        Ok(())
    }

    /// Repeated on running rings to switch logging, in which case nothing moves.
    pub(super) fn set_address(&mut self, address: RingAddress) -> Result<(), Refusal> {
        let aligned = address.descriptors.is_multiple_of(16)
            && address.available.is_multiple_of(2)
            && address.used.is_multiple_of(4);
        if !aligned {
            return Err("a ring's address is not aligned".to_owned());
        }
        self.unless_running(self.address == Some(address))?;
        self.address = Some(address);
        Ok(())
    }

    pub(super) fn set_base(&mut self, base: u32) -> Result<(), Refusal> {
        let base = u16::try_from(base).map_err(|_| "a split ring's index has 16 bits")?;
        self.unless_running(false)?;
        self.base = base;
        Ok(())
    }

    /// A running ring may be told again what it knows, and nothing else.
    fn unless_running(&self, same: bool) -> Result<(), Refusal> {
        if self.is_running() && !same { Err("the ring is running".to_owned()) } else { Ok(()) }
    }

    pub(super) fn set_kick(&mut self, kick: Kick) -> Result<(), DeviceError> {
        self.kick = Some(kick.clone());
        self.order(Change::Kick(kick))
    }

    pub(super) fn set_call(&mut self, call: Option<Arc<EventFd>>) -> Result<(), DeviceError> {
        self.call.clone_from(&call);
        self.order(Change::Call(call))
    }

    pub(super) fn set_error(&mut self, error: Option<Arc<EventFd>>) -> Result<(), DeviceError> {
        self.error.clone_from(&error);
        self.order(Change::Error(error))
    }

    pub(super) fn set_enabled(&mut self, enabled: bool) -> Result<(), DeviceError> {
        self.enabled = enabled;
        self.order(Change::Enabled(enabled))
    }

    pub(super) fn set_memory(&mut self, memory: &Arc<Memory>) -> Result<(), DeviceError> {
        self.order(Change::Memory(Arc::clone(memory)))
    }

    pub(super) fn set_features(&mut self, features: Features) -> Result<(), DeviceError> {
        self.order(Change::Features(features))
    }

    fn order(&mut self, change: Change) -> Result<(), DeviceError> {
        self.running.as_mut().map_or(Ok(()), |running| running.order(change))
    }

    /// Starts the ring if it has all it needs and does not run yet. `Ok(false)` when memory holds no such ring.
    pub(super) fn start_if_ready(&mut self, around: &Surroundings<'_>) -> Result<bool, DeviceError> {
        let (Some(size), Some(address), Some(kick)) = (self.size, self.address, &self.kick) else { return Ok(true) };
        if self.is_running() || !self.enabled {
            return Ok(true);
        }
        if RingParts::locate(around.memory, address, size).is_none() {
            return Ok(false);
        }
        let start = QueueStart {
            index: self.index,
            size,
            next_available: self.base,
            address,
            features: around.features,
            memory: Arc::clone(around.memory),
            kick: kick.clone(),
            call: self.call.clone(),
            error: self.error.clone(),
        };
        self.running = Some(Running::start(around.shared, around.connection, start)?);
        Ok(true)
    }

    /// Has the ring take no more; [`Vring::stop`] waits for it.
    pub(super) fn begin_stop(&mut self) -> Result<(), DeviceError> {
        self.running.as_mut().map_or(Ok(()), Running::begin_stop)
    }

    /// Waits this long for a stop that was begun. Whether it is through.
    pub(super) fn has_stopped_within(&mut self, time: Duration) -> bool {
        self.running.as_mut().is_none_or(|running| running.has_stopped_within(time))
    }

    /// Stops the ring when all its requests are finished. Returns the available index at which it will go on. A new start
    /// needs a new kick descriptor.
    pub(super) fn stop(&mut self) -> Result<u16, DeviceError> {
        self.kick = None;
        if let Some(running) = self.running.take() {
            self.base = running.stop()?;
        }
        Ok(self.base)
    }
}
