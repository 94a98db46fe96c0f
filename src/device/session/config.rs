//! Messages about the configuration space, and about the channel on which its changes are announced.

use super::super::config_space::{self, ConfigWriter};
use super::super::wire::Message;
use super::{Answer, Outcome, Session};
use vhost::vhost_user::message::{MAX_MSG_SIZE, VhostUserConfig, VhostUserConfigFlags};

impl Session {
    pub(super) fn get_config(&self, message: &Message) -> Outcome {
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

    pub(super) fn set_config(&mut self, message: &Message) -> Outcome {
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

    pub(super) fn set_backend_channel(&mut self, mut message: Message) -> Outcome {
        self.announcer.connect(message.one_fd()?);
        Ok(Answer::Acknowledge)
    }
}
