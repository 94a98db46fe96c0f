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

mod config;
mod memory;
mod vrings;

use super::announcer::Announcer;
use super::connection::Connection;
use super::error::DeviceError;
use super::features::{Features, protocol_offered};
use super::memory::{Memory, MemoryError, REGIONS_MAX};
use super::shared::Shared;
use super::vring::Vring;
use super::wire::{self, Message, Refusal};
use super::worker::LOOK_EVERY;
use std::sync::Arc;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures, VhostUserU64};

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
        // Not before: what is done after this, the front-end would have done once more on its next connection.
        self.connection.close();
        let failure = self.connection.take_failure();
        match (failure, served) {
            (Some(failure), _) => Err(failure),
            // Whoever ended the connection knows why, and a message cut off by that is no news then.
            (None, Err(DeviceError::Socket { .. })) if self.connection.is_ended() => stopped,
            (None, Err(error)) => Err(error),
            (None, Ok(())) => stopped,
        }
    }

    fn serve_messages(&mut self) -> Result<(), DeviceError> {
        while let Some(message) = wire::receive(&self.connection)? {
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
        let connection = &self.connection;
        match answer {
            Answer::Acknowledge if needs_reply => wire::reply(connection, number, &0_u64.to_ne_bytes()),
            Answer::Acknowledge => Ok(()),
            Answer::Number(value) => wire::reply(connection, number, &value.to_ne_bytes()),
            Answer::Bytes(bytes) => wire::reply(connection, number, bytes),
        }
    }

    /// Only a message that is answered by nothing but an acknowledgement can be answered by its opposite.
    fn refuse(&self, number: u32, needs_reply: bool, message: String, reason: Refusal) -> Result<(), DeviceError> {
        if !needs_reply || has_reply_of_its_own(number) {
            return Err(DeviceError::Protocol { message, reason });
        }
        if let Some(left_out) = self.shared.refusals.admit() {
            let volume = self.shared.volume.name();
            tracing::warn!(%volume, message, reason, left_out, "refused a front-end's message");
        }
        wire::reply(&self.connection, number, &1_u64.to_ne_bytes())
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

    /// Stops every ring when its requests are finished; all are tried, the first error is returned. All are told before the
    /// first is waited for, so that none takes more requests meanwhile.
    fn stop_all(&mut self) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for vring in &mut self.vrings {
            result = result.and(vring.begin_stop());
        }
        // In turns, so that each is watched, and one that its front-end holds up is noticed while another is slow.
        let each = LOOK_EVERY / u32::from(self.shared.queues);
        let mut running = self.vrings.len();
        while running != 0 {
            running = 0;
            for vring in &mut self.vrings {
                running += usize::from(!vring.has_stopped_within(each));
            }
        }
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
