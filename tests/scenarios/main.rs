//! What an administrator and a guest may do to volumes, one after the other, and what they must find: on the file store, by the
//! verbs themselves. The table in docs/testing.md says which scenario is where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod branches;
mod collecting;
mod lives;
mod names;
mod removal;
mod rollback;
mod scene;
mod sharing;
mod sizes;
#[path = "../support/stores/file.rs"]
mod stores;
