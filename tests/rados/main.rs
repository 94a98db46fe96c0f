//! Volumes in a real Ceph cluster, with hosts that are users of their own: what one leaves to the other, in order, dead or stopped;
//! and what is said when something is wrong with the cluster or the rights.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/cluster/mod.rs"]
mod cluster;
mod damaged;
#[path = "../support/driver/mod.rs"]
mod driver;
mod elsewhere;
mod erasure_coded;
#[path = "../program/guest.rs"]
mod guest;
mod host;
mod outage;
mod passing;
#[path = "../program/mod.rs"]
mod program;
mod quota;
mod refusals;
mod silence;
mod takeover;
