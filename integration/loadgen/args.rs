//! The command line of the load generator.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "loadgen", about = "Writes to a vhost-user-blk volume and checks that completed writes stay")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write random blocks for a time, and record in the ledger what each block may hold.
    Write(WriteArgs),
    /// Read every block of the ledger and compare. Exit code 1 when one holds anything it may not.
    Verify(CheckArgs),
    /// Start the rings and do nothing, for ever.
    Hold(DiskArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiskArgs {
    /// The vhost-user socket.
    #[arg(long)]
    pub(crate) socket: String,
    #[arg(long, default_value_t = 1)]
    pub(crate) queues: usize,
    /// Requests in flight per queue.
    #[arg(long, default_value_t = 16)]
    pub(crate) depth: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    /// The file that remembers what each block may hold.
    #[arg(long)]
    pub(crate) ledger: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    /// The file that remembers what each block may hold; created when missing.
    #[arg(long)]
    pub(crate) ledger: PathBuf,
    /// Writes go to this many blocks of 4 KiB, spread evenly over the volume.
    #[arg(long, default_value_t = 4096)]
    pub(crate) blocks: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write for this long, then wait for what is in flight, or send the signal.
    #[arg(long)]
    pub(crate) for_ms: u64,
    /// Signal this process at the end, wait until it is gone, and count what it completed until then.
    #[arg(long, requires = "signal")]
    pub(crate) pid: Option<i32>,
    #[arg(long, requires = "pid")]
    pub(crate) signal: Option<Signal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Signal {
    Kill,
    Term,
}
