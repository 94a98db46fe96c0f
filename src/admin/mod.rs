//! What an administrator does to volumes, one file per verb. Each verb blocks, works directly on a store, and takes the
//! volume's lease where it changes anything, so a daemon that serves the volume is never disturbed.

pub mod branch;
pub mod check;
pub mod collect;
pub mod create;
pub mod diff;
pub mod export;
pub mod flatten;
pub mod freeze;
pub mod import;
pub mod increment;
pub mod info;
pub mod job;
pub mod limit;
pub mod remove;
pub mod rename;
pub mod resize;
pub mod rollback;
pub mod stream;
mod survey;
pub mod transfer;
pub mod tree;
