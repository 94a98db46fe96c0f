//! Where tests of volumes have their store: in a directory. As memory.rs beside it, and what is done behind the store's back.

use archvhost::store::Store;
use archvhost::store::open::{StoreOptions, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A new, empty place for one store.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The store, as each process finds it that opens it.
    pub(crate) fn open(&self) -> Arc<dyn Store> {
        open(&format!("file:{}", self.0.path().display()), &StoreOptions::default()).unwrap()
    }

    /// As after a mishap.
    pub(crate) fn lose_a_data_object(&self) {
        let file = first_file_below(&self.0.path().join("data")).expect("there is one");
        std::fs::remove_file(file).unwrap();
    }

    /// Files of volumes, and their names; the lock by which collections take turns is none.
    pub(crate) fn objects(&self) -> usize {
        ["data", "volumes", "names"].iter().map(|part| files_below(&self.0.path().join(part))).sum()
    }
}

fn files_below(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    if dir.ends_with("f".repeat(32)) {
        return 0;
    }
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

fn first_file_below(dir: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| if path.is_dir() { first_file_below(&path) } else { Some(path) })
}
