//! Leases between processes that act as hosts of their own, on one store of files (rules C2, C4, C17, M12), and volumes that are
//! held without being served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collecting;
mod cut_off;
mod holding;
mod host;
mod take_over;
