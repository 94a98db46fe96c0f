//! The map of a volume: which object holds each block.
//!
//! On disk it is a tree of immutable pages under a header, with two journals of later changes (docs/map-format.md); in memory
//! it is a bounded set of leaves. This layer knows entries and their order of becoming durable; it knows nothing of
//! requests, and of I/O only how to read and write its own pages.
//!
//! Reading order: [`entry`], [`overlay`], [`format`], [`leaf`], [`state`], [`tree`], [`scan`], [`compare`], [`walk`], [`soft_journal`].

pub mod compare;
pub mod entry;
pub mod format;
pub mod journal;
pub mod leaf;
pub mod overlay;
pub mod scan;
pub mod soft_journal;
pub mod state;
pub mod tree;
pub mod walk;

pub use entry::Entry;
pub use leaf::WorkerLeaves;
pub use state::Map;
