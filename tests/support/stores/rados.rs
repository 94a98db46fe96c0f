//! Where tests of volumes have their store: in a namespace of a real cluster, with the data in another pool. As file.rs beside it. The
//! program that includes it has the cluster as `crate::cluster`.

use crate::cluster::{self, Cluster, DATA_POOL, User};
use archvhost::store::Store;
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::rados::RadosOptions;
use std::sync::Arc;

/// The objects that belong to no volume: the store's own, the indexes, and the lock by which collections take turns.
const OF_THE_STORE: [&str; 2] = ["archvhost-", "ffffffffffffffffffffffffffffffff."];

/// A new, empty place for one store.
pub(crate) struct Place {
    cluster: &'static Cluster,
    namespace: String,
}

impl Place {
    /// Where there is no Ceph, no test can say anything, and the program ends.
    pub(crate) fn new() -> Self {
        Self { cluster: cluster::or_skip_all(), namespace: cluster::namespace() }
    }

    /// The store, as each process finds it that opens it.
    pub(crate) fn open(&self) -> Arc<dyn Store> {
        let rados = RadosOptions {
            conf: Some(self.cluster.conf.clone()),
            user: Some(User::Archvhost.id().to_owned()),
            data_pool: Some(DATA_POOL.to_owned()),
            ..RadosOptions::default()
        };
        open(&self.cluster.url(&self.namespace), &StoreOptions { rados, ..StoreOptions::default() }).unwrap()
    }

    /// As after a mishap.
    pub(crate) fn lose_a_data_object(&self) {
        let data = self.listed(&["-p", DATA_POOL]);
        self.cluster.rados(&self.namespace, &["-p", DATA_POOL, "rm", data.first().expect("there is one")]);
    }

    /// Objects of volumes, and their names.
    pub(crate) fn objects(&self) -> usize {
        let names = self.cluster.rados(&self.namespace, &["listomapkeys", "archvhost-names"]).lines().count();
        let metadata = self.listed(&[]);
        let of_volumes = metadata.iter().filter(|name| !OF_THE_STORE.iter().any(|start| name.starts_with(start)));
        names + of_volumes.count() + self.listed(&["-p", DATA_POOL]).len()
    }

    fn listed(&self, pool: &[&str]) -> Vec<String> {
        let listed = self.cluster.rados(&self.namespace, &[pool, &["ls"]].concat());
        listed.lines().map(str::to_owned).collect()
    }
}
