//! What the threads of one device share: settings, and the few values that change while queues run.

use super::config_space::ConfigSource;
use super::counters::QueueCounters;
use super::features::Features;
use super::late::LateRequests;
use super::log_limit::{LogLimit, QueueLogs};
use super::options::{Serial, Writes};
use crate::units::SECTOR_BYTES;
use crate::volume::{Access, Stability, Volume};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Lives as long as the device.
pub(super) struct Shared {
    pub(super) volume: Arc<Volume>,
    pub(super) queues: u16,
    pub(super) writes: Writes,
    pub(super) poll_max: Duration,
    pub(super) request_timeout: Option<Duration>,
    pub(super) serial: Serial,
    pub(super) counters: Vec<QueueCounters>,
    pub(super) logs: Vec<QueueLogs>,
    pub(super) refusals: LogLimit,
    pub(super) late: Arc<LateRequests>,
    write_cache: WriteCache,
}

impl Shared {
    pub(super) fn new(volume: Arc<Volume>, options: &super::DeviceOptions) -> Self {
        let writes = match volume.access() {
            Access::ReadWrite => options.writes,
            Access::ReadOnly => Writes::Refused,
        };
        Self {
            queues: options.queues,
            writes,
            poll_max: options.poll_max,
            request_timeout: options.request_timeout.duration(),
            serial: options.serial.unwrap_or_else(|| Serial::of(volume.id())),
            counters: (0..options.queues).map(|_| QueueCounters::default()).collect(),
            logs: (0..options.queues).map(|_| QueueLogs::default()).collect(),
            refusals: LogLimit::default(),
            late: Arc::new(LateRequests::new(volume.name())),
            write_cache: WriteCache::default(),
            volume,
        }
    }

    /// The volume's size now, for the configuration space as for each request.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.volume.size().bytes()
    }

    pub(super) fn write_cache(&self) -> &WriteCache {
        &self.write_cache
    }

    pub(super) fn config(&self, features: Features) -> ConfigSource {
        ConfigSource {
            capacity_sectors: self.capacity_bytes() / SECTOR_BYTES,
            io_align: self.volume.io_align(),
            object_bytes: self.volume.object_size().bytes(),
            queues: self.queues,
            writeback: self.write_cache.is_on(features),
        }
    }
}

/// Whether a write may complete before it is durable (virtio 1.2, section 5.2.6.2).
///
/// What a guest chose outlives its connection and its resets: a front-end may show it the old value after a reconnect
/// without asking us, and a guest that believes its writes durable must not be wrong.
#[derive(Debug, Default)]
pub(super) struct WriteCache {
    switched_off: AtomicBool,
}

impl WriteCache {
    /// The guest wrote the `writeback` field.
    pub(super) fn choose(&self, on: bool) {
        self.switched_off.store(!on, Ordering::SeqCst);
    }

    /// The `writeback` field: off for a driver that can see it but cannot flush, also if an earlier driver, which could, had
    /// switched it on.
    pub(super) fn is_on(&self, features: Features) -> bool {
        !self.switched_off.load(Ordering::Relaxed) && (features.flush() || !features.config_wce())
    }

    /// When a write of a driver with these features may complete.
    pub(super) fn stability(&self, features: Features) -> Stability {
        if features.flush() && self.is_on(features) { Stability::Cached } else { Stability::Stable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

    const NONE: Features = Features(0);
    const FLUSH: Features = Features(1 << VIRTIO_BLK_F_FLUSH);
    const WCE: Features = Features(1 << VIRTIO_BLK_F_CONFIG_WCE);
    const BOTH: Features = Features(1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE);

    #[test]
    fn a_driver_that_cannot_flush_gets_durable_writes() {
        let cache = WriteCache::default();
        assert_eq!(cache.stability(NONE), Stability::Stable);
        assert_eq!(cache.stability(WCE), Stability::Stable);
        assert_eq!(cache.stability(FLUSH), Stability::Cached);
        assert_eq!(cache.stability(BOTH), Stability::Cached);
    }

    #[test]
    fn the_writeback_field_starts_off_only_without_flush() {
        let cache = WriteCache::default();
        assert!(!cache.is_on(WCE));
        assert!(cache.is_on(BOTH) && cache.is_on(NONE));
    }

    #[test]
    fn what_the_guest_chose_holds() {
        let cache = WriteCache::default();
        cache.choose(false);
        assert_eq!((cache.stability(BOTH), cache.is_on(BOTH)), (Stability::Stable, false));
        cache.choose(true);
        assert_eq!((cache.stability(BOTH), cache.is_on(BOTH)), (Stability::Cached, true));
    }

    #[test]
    fn a_cache_that_was_switched_on_is_off_for_a_later_driver_that_cannot_flush() {
        let cache = WriteCache::default();
        cache.choose(true);
        assert_eq!((cache.stability(WCE), cache.is_on(WCE)), (Stability::Stable, false));
    }
}
