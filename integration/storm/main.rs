//! The storm: verified load on several volumes while they are captured, cloned, rolled back, resized, flattened, renamed, compared,
//! collected and removed, all at random from a seed, by the real program; and, if asked, while the daemon is killed now and
//! then. A model knows what every sector of every volume and snapshot must hold.
//!
//! ```text
//!   load ──── a thread a queue: random requests; what is read is compared at once
//!   storm ─── one verb after another through the control socket; what was captured is read back and compared
//!   sweeper ─ `gc` and `check` in a loop beside it
//!   content ─ what a sector may hold            captured ─ what a snapshot must hold
//! ```
//! At the end everything is read once more, `check` must find nothing, and when all is removed and collected nothing may be
//! left in the store. Called by integration/storm/test_storm.py; prints one JSON object. Exit code 1: something was wrong.

mod captured;
mod content;
mod daemon;
#[path = "../../tests/support/driver/mod.rs"]
mod driver;
mod findings;
mod load;
#[path = "../loadgen/pattern.rs"]
mod pattern;
mod reading;
mod storm;
mod sweeper;
mod verbs;

use clap::Parser;
use daemon::Place;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "storm", about = "Snapshots, clones and collections under verified load")]
pub(crate) struct Args {
    /// The archvhost program
    #[arg(long)]
    program: PathBuf,
    /// An empty directory for sockets, the log, and the store if it is not elsewhere
    #[arg(long)]
    dir: PathBuf,
    /// An empty store. The program finds in its environment how to reach it; whoever says this looks what is left in it at the end
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// An empty directory on a memory file system
    #[arg(long)]
    soft_journals: PathBuf,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kill the daemon in the middle of one verb in so many; 0: never
    #[arg(long, default_value_t = 0)]
    kill_one_in: u64,
    /// Leave these out, to see which of them a failure needs: snapshot, clone, rollback, gc, check …
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// Print each verb as it is begun
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let place = Place { program: args.program, dir: args.dir, store: args.store, soft_journals: args.soft_journals };
    let plan = storm::Plan {
        duration: Duration::from_secs(args.seconds),
        seed: args.seed,
        kill_one_in: args.kill_one_in,
        skip: args.skip,
        verbose: args.verbose,
    };
    match storm::run(&place, &plan) {
        Ok(report) => {
            println!("{report}");
            if report["wrong"] == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::from(2)
        }
    }
}
