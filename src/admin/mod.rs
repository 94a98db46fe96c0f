//! What an administrator does to volumes, one file per verb. Each verb blocks, works directly on a store, and takes the
//! volume's lease where it changes anything, so a daemon that serves the volume is never disturbed.

pub mod create;
pub mod export;
pub mod import;
pub mod info;
pub mod job;
pub mod remove;
pub mod rename;
pub mod stream;
pub mod transfer;
