//! Objects in a Ceph cluster, through librados: any host of the cluster can serve any volume.
//!
//! ```text
//!   RadosStore ── Home: connections, pools, helper threads
//!      │            ▲
//!      └ RadosChannel (a thread's) ── operation, index ──► completion ──► librados
//!             └─ blocking, names, list, tidy (helper threads) ─► compound ─┘
//! ```
//! key.rs has the layout, index.rs why there are indexes, completion.rs what librados' threads may do;
//! docs/store-drivers.md the reasons and the measurements.

mod blocking;
mod channel;
mod cluster;
mod completion;
mod compound;
mod error;
mod home;
mod index;
mod key;
mod library;
mod list;
mod lock;
mod names;
mod operation;
mod options;
mod seal;
mod setup;
mod tidy;

use super::open::StoreOptions;
use super::{Channel, FreeLock, Lease, LockMode, Seized, Store, StoreError, StoreInfo};
use crate::units::VolumeId;
use channel::RadosChannel;
use cluster::Cluster;
use home::Home;
pub use options::RadosOptions;
use options::{CONNECTIONS_DEFAULT, Place};
use std::sync::Arc;

/// BlueStore's smallest unit: what is not a multiple of it is read, changed and written by the servers.
const IO_ALIGN: u32 = 4096;

/// See the module's text.
pub struct RadosStore {
    info: StoreInfo,
    home: Arc<Home>,
}

/// Opens the store in `place`, which is `POOL` or `POOL/NAMESPACE`.
///
/// # Errors
/// When it cannot be used as one; the text says what is wrong with it, or with the way to the cluster.
pub fn open(place: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let place = Place::parse(place)?;
    let rados = &options.rados;
    let count = rados.connections.unwrap_or(CONNECTIONS_DEFAULT).max(1);
    let connect = |_| Cluster::connect(rados).map_err(|error| error.wanted_for(format_args!("store {place}")));
    let connections = (0..count).map(connect).collect::<Result<Vec<_>, _>>()?;
    let opened = setup::open_pools(&connections[0], &place, rados, options.if_missing)?;
    let info = StoreInfo {
        url: place.to_string(),
        io_align: IO_ALIGN,
        persistent: true,
        free_lock: FreeLock::ProvesTheEnd,
        method: format!("librados {}, connections: {count}", connections[0].library().version_text()),
    };
    let home = Home::new(connections, place, opened)?;
    Ok(Arc::new(RadosStore { info, home }))
}

impl Store for RadosStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        Ok(Box::new(RadosChannel::new(&self.home, lease)?))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        lock::lock(&self.home.locks, volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        lock::try_lock(&self.home.locks, volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        let seized = lock::seize(&self.home.locks, volume, from, holder)?;
        let sealed = seal::journals(&self.home, volume);
        sealed.map_err(|failure| failure.at("seal the journals of", format_args!("volume {volume}")))?;
        Ok(seized)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        lock::confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        lock::record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        lock::holder(&self.home.locks, volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        tidy::abandoned_locks(&self.home).map_err(|failure| failure.at("tidy up", "locks of volumes"))
    }
}
