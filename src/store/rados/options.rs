//! What one may say about a RADOS store: its URL, and how to reach the cluster.

use crate::store::{StoreError, StoreErrorKind};
use std::fmt;
use std::path::PathBuf;

/// Connections to the cluster unless told otherwise.
pub(super) const CONNECTIONS_DEFAULT: u32 = 1;

/// How the cluster is reached, and where data goes. What is not said is left to the cluster's configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RadosOptions {
    /// The configuration file; otherwise where every Ceph program looks (`$CEPH_CONF`, `/etc/ceph/ceph.conf`).
    pub conf: Option<PathBuf>,
    /// The client's name without `client.`; otherwise `admin`.
    pub user: Option<String>,
    /// The file with the client's key.
    pub keyring: Option<PathBuf>,
    /// The pool for data objects, when it is not the store's own. Fixed when the store is made.
    pub data_pool: Option<String>,
    /// Connections to the cluster, over which channels are spread.
    pub connections: Option<u32>,
}

/// `POOL[/NAMESPACE]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pool: String,
    pub(super) namespace: String,
}

impl Place {
    /// # Errors
    /// When there is no pool's name, or a name that RADOS could not take.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let (pool, namespace) = text.split_once('/').unwrap_or((text, ""));
        let bad = pool.is_empty() || text.ends_with('/') || namespace.contains('/') || text.contains('\0');
        if bad {
            let target = format_args!("store \"rados:{text}\" (write rados:POOL or rados:POOL/NAMESPACE)");
            return Err(StoreError::new(StoreErrorKind::Unsupported, "open", target));
        }
        Ok(Self { pool: pool.to_owned(), namespace: namespace.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "rados:{}{slash}{}", self.pool, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_pool_and_perhaps_a_namespace() {
        for text in ["volumes", "volumes/berlin"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), format!("rados:{text}"));
        }
        assert_eq!(Place::parse("a/b").unwrap(), Place { pool: "a".to_owned(), namespace: "b".to_owned() });
    }

    #[test]
    fn what_names_no_pool_is_refused() {
        for text in ["", "/", "/a", "a/", "a/b/c", "a\0"] {
            assert_eq!(Place::parse(text).unwrap_err().kind(), StoreErrorKind::Unsupported, "{text:?}");
        }
    }
}
