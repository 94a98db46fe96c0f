//! One object, one file.

use super::open::StoreOptions;
use super::{Store, StoreError, StoreErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Opens the store in `directory`.
///
/// # Errors
/// When it cannot be used as one.
pub fn open(directory: &Path, _options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::new(StoreErrorKind::Unsupported, "open", directory.display()))
}
