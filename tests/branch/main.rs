//! Snapshots and clones against a plain model, on the memory store; tests/volumes_on_rados has the same on a cluster. Crashes are the
//! simulation's business (tests/simulation).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod promises;
#[path = "../support/stores/memory.rs"]
mod stores;

/// How many random lives of volumes are lived.
const LIVES: u64 = 6;
