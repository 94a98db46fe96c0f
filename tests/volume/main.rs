//! What a volume promises, on the memory store; tests/volumes_on_rados has the same on a cluster. Crashes and faults are the
//! simulation's business (tests/simulation).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod churn;
mod promises;
#[path = "../support/stores/memory.rs"]
mod stores;
