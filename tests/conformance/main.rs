//! The contract of `archvhost::store`, as tests that every driver runs. `promises` has one function per promise;
//! `drivers` says which drivers there are and runs the list against each; `file_store` and `rados_store` have what only
//! one of them can get wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../support/cluster/mod.rs"]
mod cluster;
mod drivers;
mod file_store;
mod promises;
mod rados_store;
mod subject;
