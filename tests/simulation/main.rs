//! Crash tests of the whole volume on a simulated store.

#![allow(unreachable_pub, reason = "in a test's own modules `pub` means: for the rest of the simulation")]

mod rng;
mod world;
