//! Where tests of volumes have their store: in memory. Modules beside this one have the same for other drivers; a test program includes
//! one of them, by path, as `stores`.

use archvhost::store::Store;
use archvhost::store::open::{StoreOptions, open};
use std::sync::Arc;

/// A new, empty place for one store.
pub(crate) struct Place;

impl Place {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn open(&self) -> Arc<dyn Store> {
        open("memory:", &StoreOptions::default()).unwrap()
    }
}
