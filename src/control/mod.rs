//! The control socket: how the command line, and other programs, talk to a running daemon.
//!
//! JSON-RPC 2.0, one message per line, over a Unix socket; docs/control-protocol.md is its manual. The server runs on
//! tokio, away from the queues' threads, and hands every request to a blocking thread. Below is [`crate::daemon`].

pub mod client;
pub mod connection;
pub mod failure;
pub mod lines;
pub mod methods;
pub mod peer;
pub mod protocol;
pub mod server;
