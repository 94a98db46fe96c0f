//! From a store's URL to an open store: the one place that knows all drivers.
use super::{Store, StoreError};
use std::sync::Arc;

/// Settings that apply whatever the URL.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    pub cache: CacheMode,
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

/// Opens `file:DIR`, `memory:` or `null:SIZE`.
///
/// # Errors
/// When the URL is not one of these, or the driver cannot open it.
pub fn open(_url: &str, _options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    todo!()
}
