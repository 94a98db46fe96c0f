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

mod announcer;
#[doc(hidden)]
pub mod bench;
mod chain;
mod config_space;
mod connection;
pub mod counters;
mod deadlines;
pub mod error;
mod event_fd;
mod features;
mod guest_bytes;
mod late;
mod log_limit;
mod memory;
mod nudge;
pub mod options;
mod pending;
mod polling;
mod private;
mod queue;
mod request;
mod ring;
mod session;
mod shared;
mod sigbus;
pub mod stepped;
mod tables;
#[cfg(test)]
mod test_guest;
mod vring;
mod wire;
mod worker;

pub use counters::QueueStatistics;
pub use error::DeviceError;
pub use options::{DeviceOptions, QUEUES_DEFAULT, QUEUES_MAX, RequestTimeout, Serial, Writes};

use crate::volume::Volume;
use announcer::Announcer;
use connection::Connection;
use session::Session;
use shared::Shared;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One virtio-blk device. Shared: `serve` runs on one thread while others read counters or stop it.
pub struct Device {
    shared: Arc<Shared>,
    announcer: Arc<Announcer>,
    life: Mutex<Life>,
}

enum Life {
    Idle,
    Connected(Arc<Connection>),
    Stopped,
}

impl Device {
    /// A device for the volume. Starts nothing.
    ///
    /// # Errors
    /// [`DeviceError::QueueCount`] when the options make no sense.
    pub fn new(volume: Arc<Volume>, options: &DeviceOptions) -> Result<Arc<Self>, DeviceError> {
        if !(1..=QUEUES_MAX).contains(&options.queues) {
            return Err(DeviceError::QueueCount(options.queues));
        }
        let shared = Arc::new(Shared::new(volume, options));
        Ok(Arc::new(Self { shared, announcer: Arc::default(), life: Mutex::new(Life::Idle) }))
    }

    /// Serves one front-end until it disconnects or [`Device::stop`] is called; blocks for that long. When it returns,
    /// with or without an error, every request that was taken has been finished, and the device can serve the next
    /// connection. The front-end sees its connection closed after that, not before. All queue threads and their ports are
    /// gone then, unless there is a time-out and requests are late ([`Device::settle`]).
    ///
    /// # Errors
    /// When the front-end broke the protocol or its memory, when a second connection is tried at the same time, or when
    /// a queue cannot be started. An orderly disconnect and a stop are `Ok`.
    pub fn serve(&self, stream: UnixStream) -> Result<(), DeviceError> {
        let connection = Arc::new(Connection::new(stream)?);
        if !self.enter(&connection)? {
            return Ok(());
        }
        let left = Left(self);
        let session = Session::new(Arc::clone(&self.shared), connection, Arc::clone(&self.announcer));
        let served = session.serve();
        drop(left);
        served
    }

    /// Whether the connection may be served; `false` when the device was stopped.
    fn enter(&self, connection: &Arc<Connection>) -> Result<bool, DeviceError> {
        let mut life = self.life();
        match *life {
            Life::Idle => {
                *life = Life::Connected(Arc::clone(connection));
                Ok(true)
            }
            Life::Connected(_) => Err(DeviceError::Busy),
            Life::Stopped => Ok(false),
        }
    }

    /// Ends the present [`Device::serve`], if any, and makes every later one return at once. Does not wait: `serve` returns
    /// when the requests in flight are finished. From any thread, as often as you like.
    pub fn stop(&self) {
        if let Life::Connected(connection) = std::mem::replace(&mut *self.life(), Life::Stopped) {
            connection.end();
        }
    }

    /// Waits until requests that were answered early have ended, and with them the threads and ports of stopped queues: until then
    /// something may still be written. To be called when `serve` has returned and before the volume is closed or served by
    /// another device. Takes as long as the store does not answer.
    pub fn settle(&self) {
        self.shared.late.settle();
    }

    /// To be called after the volume's size changed, which holds for requests already: tells the guest.
    pub fn capacity_changed(&self) {
        self.announcer.config_changed();
    }

    /// Whether a front-end is connected now.
    pub fn is_connected(&self) -> bool {
        matches!(*self.life(), Life::Connected(_))
    }

    /// The queues' numbers, by queue index.
    pub fn statistics(&self) -> Vec<QueueStatistics> {
        self.shared.counters.iter().map(counters::QueueCounters::statistics).collect()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the end of a connection, also when `serve` panics.
struct Left<'a>(&'a Device);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let mut life = self.0.life();
        match *life {
            Life::Connected(_) => *life = Life::Idle,
            Life::Idle | Life::Stopped => {}
        }
    }
}
