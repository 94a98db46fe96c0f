//! What the tests of volumes, of snapshots and clones against their model, and the scenarios show on stores of one process, shown on a
//! real cluster: the same tests, with another `stores`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/cluster/mod.rs"]
mod cluster;
#[path = "../support/stores/rados.rs"]
mod stores;

#[path = "../volume/bench.rs"]
mod bench;
#[path = "../branch/promises.rs"]
mod branch;
#[path = "../volume/promises.rs"]
mod volume;

#[path = "../scenarios/branches.rs"]
mod branches;
#[path = "../scenarios/collecting.rs"]
mod collecting;
#[path = "../scenarios/lives.rs"]
mod lives;
#[path = "../scenarios/names.rs"]
mod names;
#[path = "../scenarios/removal.rs"]
mod removal;
#[path = "../scenarios/rollback.rs"]
mod rollback;
#[path = "../scenarios/scene.rs"]
mod scene;
#[path = "../scenarios/sharing.rs"]
mod sharing;
#[path = "../scenarios/sizes.rs"]
mod sizes;

/// How many random lives of volumes are lived. Each takes some ten seconds.
const LIVES: u64 = 2;
