//! archvhost serves block volumes to virtual machines over vhost-user. A volume is composed of objects through a map.
//!
//! # Layers
//! Each uses only those below it (tests/layering.rs checks):
//! ```text
//!   cli → control → daemon ─┬► export → device ─┐
//!                           ├► admin ───────────┴► volume → map → task → store → units, clock, log_budget
//!                           └► config ──────────────────────────────────► store
//! ```
//! `device` knows virtio, not objects; `volume` knows ranges and buffers, not virtio; `map` knows entries, not guests;
//! `store` knows names and bytes.
//!
//! # Invariants
//! 1. A persisted map never names an object whose data is not durable.
//! 2. An object that anyone else may read is never written in place.
//! 3. When a flush completes, every write that completed before it was submitted is durable, map changes included. When
//!    only the daemon dies, every completed write is still there, flushed or not.
//! 4. At most one holder of a volume's lease changes its map or its objects.
//! 5. Every guest request is finished exactly once, with a status byte, whatever happens.
//!
//! # Reading order
//! [`units`], [`store`] (the contract), [`map`], [`volume`], [`device`], [`export`], [`daemon`].

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod device;
pub mod export;
pub mod log_budget;

pub mod map;
pub mod store;
pub mod task;
pub mod units;
pub mod volume;
