//! What moves between stores, and between volumes of one: differences, streams, flattening. On the memory store, against plain
//! models of the volumes; pipes are real. The stream's bytes have their own tests beside the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod diff;
mod flatten;
mod hostile;
mod interrupted;
mod scene;
mod streams;
