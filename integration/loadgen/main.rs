//! A virtio-blk driver that writes until it is told to stop, remembers exactly which writes completed, and later checks
//! that the volume holds them. The crash tests run it against the daemon, which it can signal at a chosen moment, so
//! that "completed" means: the used ring said so before the daemon was gone.
//!
//! It speaks vhost-user through the crate `virtio-driver`, which shares no code with archvhost. Called by
//! integration/harness/loadgen.py; prints one JSON object.

mod args;
mod disk;
mod hold;
mod ledger;
mod pattern;
mod process;
mod verify;
mod write;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Write(args) => write::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Hold(args) => hold::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}
