//! One connection of a front-end: its messages, one after the other, on the thread that called `serve`.
//!
//! Rules kept here (docs/device.md has the table of messages):
//! - An error is always told: by a reply where one was asked for, otherwise by closing the connection.
//! - A reply means done: every running queue has taken the change over before it is sent.
//! - `GET_VRING_BASE` is answered when its ring's last request is finished; when the connection ends, for whatever reason,
//!   the same is done for all rings.
//! - While all rings are stopped, nothing is written to the guest's memory, nobody is interrupted, nothing is announced.
//!
//! Not here yet, for want of their protocol features: `SET_LOG_BASE` and `SET_LOG_FD` (LOG_SHMFD), `GET_INFLIGHT_FD` and
//! `SET_INFLIGHT_FD` (INFLIGHT_SHMFD), `SET_DEVICE_STATE_FD` and `CHECK_DEVICE_STATE` (DEVICE_STATE).

use super::announcer::Announcer;
use super::config_space::{self, ConfigWriter};
use super::error::DeviceError;
use super::event_fd::EventFd;
use super::features::{Features, protocol_offered};
use super::memory::{Memory, MemoryError, REGIONS_MAX, RegionAddress};
use super::ring::RingAddress;
use super::shared::{Connection, Shared};
use super::vring::{Surroundings, Vring};
use super::wire::{self, Message, Refusal};
use super::worker::Kick;
use std::sync::Arc;
use vhost::vhost_user::message::{
    FrontendReq, MAX_MSG_SIZE, VhostUserConfig, VhostUserConfigFlags, VhostUserMemory, VhostUserMemoryRegion,
    VhostUserProtocolFeatures, VhostUserSingleMemoryRegion, VhostUserU64, VhostUserVringAddr, VhostUserVringAddrFlags,
    VhostUserVringState,
};

/// In the u64 of SET_VRING_KICK, CALL and ERR: the low byte is the queue, this bit says that no descriptor comes.
const NO_FD: u64 = 1 << 8;

/// What to do after a message was carried out.
enum Answer {
    /// Zero, if a reply was asked for.
    Acknowledge,
    Number(u64),
    Bytes(Vec<u8>),
}

/// Why a message was not carried out.
#[derive(Debug)]
enum Failure {
    /// The front-end's mistake: it is told.
    Refused(Refusal),
    /// The connection cannot go on.
    Fatal(DeviceError),
}

impl From<Refusal> for Failure {
    fn from(reason: Refusal) -> Self {
        Failure::Refused(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Failure::Refused(reason.to_owned())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Refused(error.to_string())
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Failure::Fatal(error)
    }
}

type Outcome = Result<Answer, Failure>;

pub(super) struct Session {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    announcer: Arc<Announcer>,
    features: Features,
    protocol: VhostUserProtocolFeatures,
    status: u8,
    memory: Arc<Memory>,
    vrings: Vec<Vring>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>, announcer: Arc<Announcer>) -> Self {
        let vrings = (0..shared.queues).map(Vring::new).collect();
        Self {
            shared,
            connection,
            announcer,
            features: Features::default(),
            protocol: VhostUserProtocolFeatures::empty(),
            status: 0,
            memory: Arc::new(Memory::default()),
            vrings,
        }
    }

    /// Serves messages until the connection ends, then stops all rings.
    pub(super) fn serve(mut self) -> Result<(), DeviceError> {
        let served = self.serve_messages();
        let stopped = self.stop_all();
        self.announcer.disconnect();
        let failure = self.connection.take_failure();
        match (failure, served) {
            (Some(failure), _) => Err(failure),
            // Whoever ended the connection knows why, and a socket closed under a reply is no news then.
            (None, Err(DeviceError::Socket { .. })) if self.connection.is_ended() => stopped,
            (None, Err(error)) => Err(error),
            (None, Ok(())) => stopped,
        }
    }

    fn serve_messages(&mut self) -> Result<(), DeviceError> {
        while let Some(message) = wire::receive(self.connection.stream())? {
            let (number, needs_reply, name) = (message.number, message.needs_reply, message.name());
            match self.handle(message) {
                Ok(answer) => self.answer(number, needs_reply, &answer)?,
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Refused(reason)) => self.refuse(number, needs_reply, name, reason)?,
            }
        }
        Ok(())
    }

    fn answer(&self, number: u32, needs_reply: bool, answer: &Answer) -> Result<(), DeviceError> {
        let stream = self.connection.stream();
        match answer {
            Answer::Acknowledge if needs_reply => wire::reply(stream, number, &0_u64.to_ne_bytes()),
            Answer::Acknowledge => Ok(()),
            Answer::Number(value) => wire::reply(stream, number, &value.to_ne_bytes()),
            Answer::Bytes(bytes) => wire::reply(stream, number, bytes),
        }
    }

    /// Only a message that is answered by nothing but an acknowledgement can be answered by its opposite.
    fn refuse(&self, number: u32, needs_reply: bool, message: String, reason: Refusal) -> Result<(), DeviceError> {
        if !needs_reply || has_reply_of_its_own(number) {
            return Err(DeviceError::Protocol { message, reason });
        }
        let volume = self.shared.volume.name();
        self.announcer.log_refusal(|left_out| {
            tracing::warn!(%volume, message, reason, left_out, "refused a front-end's message");
        });
        wire::reply(self.connection.stream(), number, &1_u64.to_ne_bytes())
    }

    fn handle(&mut self, message: Message) -> Outcome {
        let request = message.request().ok_or("there is no such message")?;
        match request {
            FrontendReq::GET_FEATURES => Ok(Answer::Number(Features::offered(self.shared.writes).0)),
            FrontendReq::SET_FEATURES => self.set_features(&message),
            FrontendReq::GET_PROTOCOL_FEATURES => Ok(Answer::Number(protocol_offered().bits())),
            FrontendReq::SET_PROTOCOL_FEATURES => self.set_protocol_features(&message),
            FrontendReq::SET_OWNER => Ok(Answer::Acknowledge),
            FrontendReq::RESET_OWNER | FrontendReq::RESET_DEVICE => self.reset(),
            FrontendReq::GET_QUEUE_NUM => Ok(Answer::Number(u64::from(self.shared.queues))),
            FrontendReq::SET_STATUS => self.set_status(&message),
            FrontendReq::GET_STATUS => Ok(Answer::Number(u64::from(self.status))),
            FrontendReq::GET_CONFIG => self.get_config(&message),
            FrontendReq::SET_CONFIG => self.set_config(&message),
            FrontendReq::SET_BACKEND_REQ_FD => self.set_backend_channel(message),
            FrontendReq::SET_MEM_TABLE => self.set_memory_table(message),
            FrontendReq::GET_MAX_MEM_SLOTS => Ok(Answer::Number(REGIONS_MAX as u64)),
            FrontendReq::ADD_MEM_REG => self.add_region(message),
            FrontendReq::REM_MEM_REG => self.remove_region(&message),
            FrontendReq::SET_VRING_NUM => self.set_vring_size(&message),
            FrontendReq::SET_VRING_ADDR => self.set_vring_address(&message),
            FrontendReq::SET_VRING_BASE => self.set_vring_base(&message),
            FrontendReq::GET_VRING_BASE => self.get_vring_base(&message),
            FrontendReq::SET_VRING_KICK => self.set_vring_kick(message),
            FrontendReq::SET_VRING_CALL => self.set_vring_call(message),
            FrontendReq::SET_VRING_ERR => self.set_vring_error(message),
            FrontendReq::SET_VRING_ENABLE => self.set_vring_enable(&message),
            FrontendReq::SET_LOG_BASE
            | FrontendReq::SET_LOG_FD
            | FrontendReq::SEND_RARP
            | FrontendReq::NET_SET_MTU
            | FrontendReq::IOTLB_MSG
            | FrontendReq::SET_VRING_ENDIAN
            | FrontendReq::CREATE_CRYPTO_SESSION
            | FrontendReq::CLOSE_CRYPTO_SESSION
            | FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::POSTCOPY_LISTEN
            | FrontendReq::POSTCOPY_END
            | FrontendReq::GET_INFLIGHT_FD
            | FrontendReq::SET_INFLIGHT_FD
            | FrontendReq::GPU_SET_SOCKET
            | FrontendReq::VRING_KICK
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::SET_DEVICE_STATE_FD
            | FrontendReq::CHECK_DEVICE_STATE
            | FrontendReq::GET_SHMEM_CONFIG => Err("its feature was not offered".into()),
        }
    }

    fn set_features(&mut self, message: &Message) -> Outcome {
        let features = Features(message.body_as::<VhostUserU64>()?.value);
        if !Features::offered(self.shared.writes).contains_all(features) {
            return Err(format!("features {:#x} were not all offered", features.0).into());
        }
        self.features = features;
        for vring in &mut self.vrings {
            vring.set_features(features)?;
            if !features.protocol_features() {
                vring.set_enabled(true)?;
            }
        }
        self.start_ready()
    }

    fn set_protocol_features(&mut self, message: &Message) -> Outcome {
        let bits = message.body_as::<VhostUserU64>()?.value;
        let known = VhostUserProtocolFeatures::from_bits(bits).filter(|bits| protocol_offered().contains(*bits));
        self.protocol = known.ok_or_else(|| format!("protocol features {bits:#x} were not all offered"))?;
        Ok(Answer::Acknowledge)
    }

    /// Back to how a connection begins, except for the memory, and for what the guest chose about its write cache.
    fn reset(&mut self) -> Outcome {
        self.stop_all()?;
        self.vrings = (0..self.shared.queues).map(Vring::new).collect();
        self.features = Features::default();
        self.status = 0;
        Ok(Answer::Acknowledge)
    }

    fn set_status(&mut self, message: &Message) -> Outcome {
        let status = message.body_as::<VhostUserU64>()?.value;
        self.status = u8::try_from(status).map_err(|_| format!("status {status:#x} has more than 8 bits"))?;
        if self.status == 0 {
            // A driver that resets its device expects that nothing happens to its memory afterwards.
            self.stop_all()?;
        }
        Ok(Answer::Acknowledge)
    }

    fn get_config(&self, message: &Message) -> Outcome {
        let (asked, room) = message.body_starts_with::<VhostUserConfig>()?;
        let (offset, size) = (asked.offset, usize::try_from(asked.size).unwrap_or(usize::MAX));
        if size > MAX_MSG_SIZE - size_of::<VhostUserConfig>() || size < room.len() {
            // An empty reply is how this message says no.
            return Ok(Answer::Bytes(Vec::new()));
        }
        let mut reply = message.body[..size_of::<VhostUserConfig>()].to_vec();
        let start = reply.len();
        reply.resize(start + size, 0);
        config_space::read(&self.shared.config(self.features).bytes(), offset, &mut reply[start..]);
        Ok(Answer::Bytes(reply))
    }

    fn set_config(&mut self, message: &Message) -> Outcome {
        let (asked, bytes) = message.body_starts_with::<VhostUserConfig>()?;
        if usize::try_from(asked.size).ok() != Some(bytes.len()) {
            return Err(message.wrong_size().into());
        }
        let flags = asked.flags;
        let writer = match VhostUserConfigFlags::from_bits(flags) {
            Some(flags) if flags.is_empty() => ConfigWriter::Guest,
            Some(VhostUserConfigFlags::WRITABLE) => ConfigWriter::Migration,
            _ => return Err(format!("its flags are {flags:#x}").into()),
        };
        if writer == ConfigWriter::Guest && !self.features.config_wce() {
            return Err("the guest did not negotiate CONFIG_WCE".into());
        }
        let on = config_space::written_writeback(writer, asked.offset, bytes);
        self.shared.write_cache().choose(on.ok_or("only the writeback field can be written, with 0 or 1")?);
        Ok(Answer::Acknowledge)
    }

    fn set_backend_channel(&mut self, mut message: Message) -> Outcome {
        self.announcer.connect(message.one_fd()?);
        Ok(Answer::Acknowledge)
    }

    fn set_memory_table(&mut self, mut message: Message) -> Outcome {
        let fds = std::mem::take(&mut message.fds);
        let (header, rest) = message.body_starts_with::<VhostUserMemory>()?;
        let count = usize::try_from(header.num_regions).unwrap_or(usize::MAX);
        if count == 0 || count != fds.len() || count.checked_mul(size_of::<VhostUserMemoryRegion>()) != Some(rest.len())
        {
            return Err("regions, descriptors and size do not agree".into());
        }
        let regions =
            rest.chunks_exact(size_of::<VhostUserMemoryRegion>()).filter_map(wire::decode).map(region_address);
        self.set_memory(Memory::map(regions.zip(fds))?)
    }

    fn add_region(&mut self, mut message: Message) -> Outcome {
        let file = message.one_fd()?;
        let region = message.body_as::<VhostUserSingleMemoryRegion>()?;
        self.set_memory(self.memory.with(region_address(*region), &file)?)
    }

    /// Some front-ends send the region's descriptor along; it is closed with the message.
    fn remove_region(&mut self, message: &Message) -> Outcome {
        let region = message.body_as::<VhostUserSingleMemoryRegion>()?;
        self.set_memory(self.memory.without(region_address(*region))?)
    }

    fn set_memory(&mut self, memory: Memory) -> Outcome {
        self.memory = Arc::new(memory);
        for vring in &mut self.vrings {
            vring.set_memory(&self.memory)?;
        }
        // Rings that waited for memory start now; those that this memory does not hold go on waiting.
        self.start_rings()?;
        Ok(Answer::Acknowledge)
    }

    fn set_vring_size(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        self.vring(state.index)?.set_size(state.num)?;
        self.start_ready()
    }

    fn set_vring_address(&mut self, message: &Message) -> Outcome {
        let sent = message.body_as::<VhostUserVringAddr>()?;
        let flags = sent.flags;
        if VhostUserVringAddrFlags::from_bits(flags).is_none() {
            return Err(format!("its flags are {flags:#x}").into());
        }
        let address = RingAddress { descriptors: sent.descriptor, available: sent.available, used: sent.used };
        self.vring(sent.index)?.set_address(address)?;
        self.start_ready()
    }

    fn set_vring_base(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        self.vring(state.index)?.set_base(state.num)?;
        Ok(Answer::Acknowledge)
    }

    fn get_vring_base(&mut self, message: &Message) -> Outcome {
        let state = message.body_as::<VhostUserVringState>()?;
        let index = state.index;
        let base = self.vring(index)?.stop()?;
        self.note_running();
        Ok(Answer::Bytes([index, u32::from(base)].map(u32::to_ne_bytes).concat()))
    }

    fn set_vring_kick(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_kick(event.map_or(Kick::None, Kick::Event))?;
        self.start_ready()
    }

    fn set_vring_call(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_call(event)?;
        Ok(Answer::Acknowledge)
    }

    fn set_vring_error(&mut self, message: Message) -> Outcome {
        let (vring, event) = self.vring_event(message)?;
        vring.set_error(event)?;
        Ok(Answer::Acknowledge)
    }

    fn set_vring_enable(&mut self, message: &Message) -> Outcome {
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
    fn start_ready(&mut self) -> Outcome {
        let all_located = self.start_rings()?;
        if all_located || self.memory.is_empty() {
            return Ok(Answer::Acknowledge);
        }
        Err("the ring does not lie in the memory".into())
    }

    fn start_rings(&mut self) -> Result<bool, DeviceError> {
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

    fn note_running(&self) {
        self.announcer.set_running(self.vrings.iter().any(Vring::is_running));
    }

    /// Stops every ring when its requests are finished; all are tried, the first error is returned.
    fn stop_all(&mut self) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for vring in &mut self.vrings {
            result = result.and(vring.stop().map(|_| ()));
        }
        self.note_running();
        result
    }
}

impl Drop for Session {
    /// For a session that panics; one that ends in order has stopped its rings.
    fn drop(&mut self) {
        let _ = self.stop_all();
    }
}

fn has_reply_of_its_own(number: u32) -> bool {
    let own = [
        FrontendReq::GET_FEATURES,
        FrontendReq::GET_PROTOCOL_FEATURES,
        FrontendReq::GET_QUEUE_NUM,
        FrontendReq::GET_STATUS,
        FrontendReq::GET_CONFIG,
        FrontendReq::GET_MAX_MEM_SLOTS,
        FrontendReq::GET_VRING_BASE,
        FrontendReq::GET_INFLIGHT_FD,
        FrontendReq::GET_SHARED_OBJECT,
        FrontendReq::SET_DEVICE_STATE_FD,
        FrontendReq::CHECK_DEVICE_STATE,
        FrontendReq::GET_SHMEM_CONFIG,
        FrontendReq::CREATE_CRYPTO_SESSION,
        FrontendReq::POSTCOPY_ADVISE,
    ];
    own.iter().any(|request| u32::from(*request) == number)
}

fn region_address(region: VhostUserMemoryRegion) -> RegionAddress {
    RegionAddress {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        size: region.memory_size,
        file_offset: region.mmap_offset,
    }
}
