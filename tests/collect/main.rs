//! Collection on a real store in memory: what no volume names goes, what any names stays, whoever does what meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hooks;
mod life;
mod races;
mod settle;
mod space;
mod world;
