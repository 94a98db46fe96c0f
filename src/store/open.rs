//! From a store's URL to an open store: the one place that knows all drivers.

use super::memory::MemoryStore;
use super::null::NullStore;
use super::rados::RadosOptions;
use super::{FreeLock, Store, StoreError, StoreErrorKind};
use crate::units::ByteSize;
use std::sync::Arc;

/// Settings that apply whatever the URL.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    pub cache: CacheMode,
    pub if_missing: IfMissing,
    pub method: IoMethod,
    /// What a free lock proves; `None` lets the driver judge.
    pub free_lock: Option<FreeLock>,
    /// How a Ceph cluster is reached.
    pub rados: RadosOptions,
}

/// What to do when a store is to be opened in a directory that is not there, or is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfMissing {
    /// Make a store there; the directory above must exist.
    #[default]
    Create,
    /// Say so: for commands that only look, where it is a mistyped path.
    Refuse,
}

/// How a driver that has the choice does its I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMethod {
    /// io_uring where it is allowed, threads elsewhere.
    #[default]
    Auto,
    /// Threads, for tests and for comparing.
    Threads,
}

/// Whether file data goes through the host's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// O_DIRECT, where the file system has it.
    #[default]
    None,
    /// The host's page cache; a flush writes it back.
    Writeback,
}

/// What people may write, for messages.
const KNOWN: &str = "file:DIR, rados:POOL[/NAMESPACE], memory: or null:SIZE";

/// Opens `file:DIR`, `rados:POOL[/NAMESPACE]`, `memory:` or `null:SIZE`.
///
/// # Errors
/// When the URL is not one of these, or the driver cannot open it.
pub fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| unknown(url))?;
    match scheme {
        "file" if !rest.is_empty() => super::file::open(rest.as_ref(), options),
        "rados" if !rest.is_empty() => super::rados::open(rest, options),
        "memory" if rest.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "null" => Ok(Arc::new(NullStore::new(null_size(url, rest)?))),
        _ => Err(unknown(url)),
    }
}

/// The size that a store's URL gives to volumes made in it for the occasion: `null:1TiB` says 1 TiB.
pub fn implied_volume_size(url: &str) -> Option<ByteSize> {
    url.strip_prefix("null:").and_then(|size| size.parse().ok())
}

fn null_size(url: &str, size: &str) -> Result<ByteSize, StoreError> {
    size.parse()
        .map_err(|error| StoreError::new(StoreErrorKind::Unsupported, "open", format_args!("store {url:?} ({error})")))
}

fn unknown(url: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, "open", format_args!("store {url:?} (write {KNOWN})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_is_refused_with_what_would_be() {
        for url in ["", "web", "ftp:x", "memory:x", "file:", "rados:", ":", "File:/x"] {
            let error = open(url, &StoreOptions::default()).err().expect(url);
            assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{url}");
            assert!(error.to_string().contains(KNOWN), "{error}");
        }
        let error = open("null:many", &StoreOptions::default()).err().unwrap();
        assert!(error.to_string().contains("is not a size"), "{error}");
    }

    #[test]
    fn memory_and_null_stores_open() {
        assert_eq!(open("memory:", &StoreOptions::default()).unwrap().info().url, "memory:");
        assert_eq!(open("null:1TiB", &StoreOptions::default()).unwrap().info().url, "null:1TiB");
        assert_eq!(implied_volume_size("null:1TiB"), Some(ByteSize(1 << 40)));
        assert_eq!(implied_volume_size("memory:"), None);
    }
}
