//! A virtio-blk device served over vhost-user: what a front-end connects to, what a guest's driver talks to.
//!
//! ```text
//!   front-end ──messages──► session (thread of serve()) ──commands──► worker (one thread per virtqueue)
//!   guest ─────virtqueue in shared memory─────────────────────────►  ring → request → volume::Port
//! ```
//!
//! This layer knows virtio and vhost-user, not objects: below it is [`crate::volume`]. The guest and the front-end are
//! taken as hostile; docs/device.md lists what each gets for what it does wrong.
//!
//! The export layer makes a [`Device`] per served volume, accepts connections and calls [`Device::serve`] for each, one
//! after the other.

pub mod counters;
pub mod error;
pub mod options;

pub use counters::QueueStatistics;
pub use error::DeviceError;
pub use options::{DeviceOptions, QUEUES_MAX, Serial, Writes};

use crate::volume::Volume;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// One virtio-blk device. Shared: `serve` runs on one thread while others read counters or stop it.
pub struct Device {
    _private: (),
}

impl Device {
    /// A device for the volume. Starts nothing.
    ///
    /// # Errors
    /// [`DeviceError::QueueCount`] when the options make no sense.
    pub fn new(_volume: Arc<Volume>, _options: DeviceOptions) -> Result<Arc<Self>, DeviceError> {
        todo!()
    }

    /// Serves one front-end until it disconnects or [`Device::stop`] is called; blocks for that long. When it returns,
    /// with or without an error, every request that was taken has been finished, all queue threads and their ports are
    /// gone, and the device can serve the next connection.
    ///
    /// # Errors
    /// When the front-end broke the protocol or its memory, when a second connection is tried at the same time, or when
    /// a queue cannot be started. An orderly disconnect and a stop are `Ok`.
    pub fn serve(&self, _stream: UnixStream) -> Result<(), DeviceError> {
        todo!()
    }

    /// Ends the present [`Device::serve`], if any, and makes every later one return at once. Does not wait: `serve` returns
    /// when the requests in flight are finished. From any thread, as often as you like.
    pub fn stop(&self) {
        todo!()
    }

    /// To be called after the volume's size changed: tells the guest.
    pub fn capacity_changed(&self) {
        todo!()
    }

    /// Whether a front-end is connected now.
    pub fn is_connected(&self) -> bool {
        todo!()
    }

    /// The queues' numbers, by queue index.
    pub fn statistics(&self) -> Vec<QueueStatistics> {
        todo!()
    }
}
