//! Collection and checking on a real store in memory: what no volume names goes, what any names stays and is looked at, whoever
//! does what meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod cut_off;
mod hooks;
mod life;
mod races;
mod settle;
mod space;
mod world;
