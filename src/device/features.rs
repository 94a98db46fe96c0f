//! Which virtio and vhost-user features are offered, and what a negotiated set means.
//!
//! Not offered yet: `LOG_ALL` with `LOG_SHMFD`, `INFLIGHT_SHMFD`, `DEVICE_STATE`. Their bits belong in [`Features::offered`] and
//! [`protocol_offered`], their messages in `session`.

use super::options::Writes;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio_bindings::virtio_blk as blk;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// "The front-end understands protocol features" (vhost-user, "Feature negotiation"); bit 30 of the virtio features.
const VHOST_USER_F_PROTOCOL_FEATURES: u32 = 30;

const ALWAYS: [u32; 13] = [
    blk::VIRTIO_BLK_F_SIZE_MAX,
    blk::VIRTIO_BLK_F_SEG_MAX,
    blk::VIRTIO_BLK_F_BLK_SIZE,
    blk::VIRTIO_BLK_F_TOPOLOGY,
    blk::VIRTIO_BLK_F_FLUSH,
    blk::VIRTIO_BLK_F_CONFIG_WCE,
    blk::VIRTIO_BLK_F_MQ,
    blk::VIRTIO_BLK_F_DISCARD,
    blk::VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    VHOST_USER_F_PROTOCOL_FEATURES,
];

/// A set of virtio feature bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Features(pub(super) u64);

impl Features {
    pub(super) fn offered(writes: Writes) -> Self {
        let always = ALWAYS.iter().fold(0, |bits, bit| bits | 1 << bit);
        match writes {
            Writes::Allowed => Self(always),
            Writes::Refused => Self(always | 1 << blk::VIRTIO_BLK_F_RO),
        }
    }

    pub(super) fn contains_all(self, other: Features) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) fn event_idx(self) -> bool {
        self.has(VIRTIO_RING_F_EVENT_IDX)
    }

    /// Without it all rings are enabled from the start and `SET_VRING_ENABLE` is not needed.
    pub(super) fn protocol_features(self) -> bool {
        self.has(VHOST_USER_F_PROTOCOL_FEATURES)
    }

    pub(super) fn config_wce(self) -> bool {
        self.has(blk::VIRTIO_BLK_F_CONFIG_WCE)
    }

    pub(super) fn flush(self) -> bool {
        self.has(blk::VIRTIO_BLK_F_FLUSH)
    }

    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// The protocol features of vhost-user that we act on.
pub(super) fn protocol_offered() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::STATUS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_devices_say_so_and_others_do_not() {
        let read_only = 1 << blk::VIRTIO_BLK_F_RO;
        assert_eq!(Features::offered(Writes::Refused).0 & read_only, read_only);
        assert_eq!(Features::offered(Writes::Allowed).0 & read_only, 0);
    }

    #[test]
    fn flush_is_offered_whenever_the_write_cache_can_be_switched() {
        let offered = Features::offered(Writes::Allowed);
        assert!(offered.config_wce() && offered.flush());
    }

    #[test]
    fn a_bit_that_is_not_offered_is_noticed() {
        let offered = Features::offered(Writes::Allowed);
        assert!(offered.contains_all(Features(1 << VIRTIO_F_VERSION_1)));
        assert!(!offered.contains_all(Features(1 << 26)), "LOG_ALL");
    }
}
