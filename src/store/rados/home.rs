//! What all channels of a RADOS store share: the connections, the pools for blocking calls, the helper threads.

use super::cluster::{Cluster, Pool};
use super::lock::Locks;
use super::options::Place;
use super::setup::Opened;
use crate::store::StoreError;
use crate::store::helpers::Helpers;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads for calls that block: a placement group that does not answer keeps one for each call that meets it, and the volumes that
/// have nothing there are to go on.
pub(super) const THREADS_MAX: usize = 64;

pub(super) struct Home {
    /// Where names, headers, journals, segments, indexes and locks are.
    pub(super) metadata: Pool,
    /// Where data objects are.
    pub(super) data: Pool,
    pub(super) helpers: Helpers,
    pub(super) locks: Arc<Locks>,
    /// At least one; the first is also that of `metadata`.
    connections: Vec<Arc<Cluster>>,
    next: AtomicUsize,
    place: Place,
}

impl Home {
    /// # Errors
    /// When a pool or a thread cannot be had.
    pub(super) fn new(connections: Vec<Arc<Cluster>>, place: Place, opened: Opened) -> Result<Arc<Self>, StoreError> {
        let (helpers, Opened { metadata, data }) = (Helpers::new(THREADS_MAX)?, opened);
        let pool = open_pool(metadata.cluster(), metadata.name(), &place)?;
        let locks = Arc::new(Locks::new(pool, &connections[1..])?);
        Ok(Arc::new(Self { metadata, data, helpers, locks, connections, next: AtomicUsize::new(0), place }))
    }

    /// The metadata and the data pool for one thread, over one of the connections in turn.
    ///
    /// # Errors
    /// When a pool is not there any more, or librados refuses.
    pub(super) fn pools_for_a_channel(&self) -> Result<(Pool, Pool), StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let cluster = &self.connections[number];
        Ok((open_pool(cluster, self.metadata.name(), &self.place)?, open_pool(cluster, self.data.name(), &self.place)?))
    }

    /// The metadata pool for one thread alone, over the connection that blocking calls use.
    ///
    /// # Errors
    /// As [`Self::pools_for_a_channel`].
    pub(super) fn metadata_for_a_thread(&self) -> Result<Pool, StoreError> {
        open_pool(self.metadata.cluster(), self.metadata.name(), &self.place)
    }
}

fn open_pool(cluster: &Arc<Cluster>, name: &str, place: &Place) -> Result<Pool, StoreError> {
    let opened = cluster.pool(name, &place.namespace);
    opened.map_err(|failure| failure.at("open", format_args!("pool {name}")))
}
