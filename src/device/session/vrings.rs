//! Messages about single rings. Any of them may bring what a ring was waiting for to start.

use super::super::error::DeviceError;
use super::super::event_fd::EventFd;
use super::super::ring::RingAddress;
use super::super::vring::{Surroundings, Vring};
use super::super::wire::{Message, Refusal};
use super::super::worker::Kick;
use super::{Answer, Outcome, Session};
use std::sync::Arc;
use vhost::vhost_user::message::{VhostUserU64, VhostUserVringAddr, VhostUserVringAddrFlags, VhostUserVringState};

/// In the u64 of SET_VRING_KICK, CALL and ERR: the low byte is the queue, this bit says that no descriptor comes.
const NO_FD: u64 = 1 << 8;

impl Session {
    pub(super) fn set_vring_size(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        self.vring(state.index)?.set_size(state.num)?;
        self.start_ready()
    }

    pub(super) fn set_vring_address(&mut self, message: &Message) -> Outcome {
        let sent = message.body_as::<VhostUserVringAddr>()?;
        let flags = sent.flags;
        if VhostUserVringAddrFlags::from_bits(flags).is_none() {
            return Err(format!("its flags are {flags:#x}").into());
        }
        let address = RingAddress { descriptors: sent.descriptor, available: sent.available, used: sent.used };
        self.vring(sent.index)?.set_address(address)?;
        self.start_ready()
    }

    pub(super) fn set_vring_base(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        self.vring(state.index)?.set_base(state.num)?;
        Ok(Answer::Acknowledge)
    }

    pub(super) fn get_vring_base(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        let index = state.index;
        let base = self.vring(index)?.stop()?;
        self.note_running();
        Ok(Answer::Bytes([index, u32::from(base)].map(u32::to_ne_bytes).concat()))
    }

    pub(super) fn set_vring_kick(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_kick(event.map_or(Kick::None, Kick::Event))?;
        self.start_ready()
    }

    pub(super) fn set_vring_call(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_call(event)?;
        Ok(Answer::Acknowledge)
    }

    pub(super) fn set_vring_error(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_error(event)?;
        Ok(Answer::Acknowledge)
    }

    pub(super) fn set_vring_enable(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        let enabled = match state.num {
            0 => false,
            1 => true,
            _ => return Err("a ring is enabled with 1 and disabled with 0".into()),
        };
        self.vring(state.index)?.set_enabled(enabled)?;
        self.start_ready()
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, Refusal> {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        self.vrings.get_mut(place).ok_or_else(|| format!("there is no queue {index}"))
    }

    /// The queue and the event descriptor, if one was sent, of SET_VRING_KICK, CALL or ERR.
    fn vring_event(&mut self, mut message: Message) -> Result<(&mut Vring, Option<Arc<EventFd>>), Refusal> {
        let value = message.body_as::<VhostUserU64>()?.value;
        let event = match value & NO_FD {
            0 => {
                let event = EventFd::new(message.one_fd()?).ok_or("its descriptor is not an eventfd")?;
                Some(Arc::new(event))
            }
            _ => None,
        };
        let index = u32::try_from(value & !NO_FD).unwrap_or(u32::MAX);
        Ok((self.vring(index)?, event))
    }

    /// Starts rings that are ready after a change to one of them.
    pub(super) fn start_ready(&mut self) -> Outcome {
        let all_located = self.start_rings()?;
        if all_located || self.memory.is_empty() {
            return Ok(Answer::Acknowledge);
        }
        Err("the ring does not lie in the memory".into())
    }

    pub(super) fn start_rings(&mut self) -> Result<bool, DeviceError> {
        let around = Surroundings {
            shared: &self.shared,
            connection: &self.connection,
            memory: &self.memory,
            features: self.features,
        };
        let mut all_located = true;
        for vring in &mut self.vrings {
            all_located &= vring.start_if_ready(&around)?;
        }
        self.note_running();
        Ok(all_located)
    }

    pub(super) fn note_running(&self) {
        self.announcer.set_running(self.vrings.iter().any(Vring::is_running));
    }
}
