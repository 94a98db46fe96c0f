//! The device as front-ends and guests see it: over a real Unix socket, on a volume in a memory store.
//!
//! `driver` uses an independent virtio driver (crate `virtio-driver`); `protocol` and `hostile` use the front-end half of the
//! `vhost` crate and rings written by hand, to reach what a well-behaved driver never does; `filler` keeps descriptors full; `stuck` holds the store's operations;
//! `timeouts` leaves them held past their deadlines; `reconnect` goes on where a stopped device left off; `limits` holds requests back; `resize` changes
//! the volume's size.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;
mod filler;
mod hostile;
mod limits;
mod machine;
mod messages;
mod protocol;
mod reconnect;
mod resize;
mod served;
mod stuck;
mod timeouts;
