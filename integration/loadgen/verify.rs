//! The checking run: reads every block of the ledger, several at a time, and says which hold what they may not.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Fallible;
use super::args::CheckArgs;
use super::disk::{Disk, Finished, Slot};
use super::ledger::Ledger;
use super::pattern::{BLOCK_BYTES, Origin, origins};

/// How long the whole check may wait for one completion.
const WAIT_LIMIT: Duration = Duration::from_secs(20);
/// How many wrong blocks are described; more are only counted.
const DESCRIBED_MAX: usize = 10;

pub(crate) fn run(args: &CheckArgs) -> Fallible<ExitCode> {
    let mut check = Check::new(args)?;
    let blocks: Vec<u64> = check.ledger.blocks.keys().copied().collect();
    for &block in &blocks {
        let slot = check.free_slot()?;
        check.in_flight.insert(slot.number(), block);
        check.disk.read(slot, block * u64::try_from(BLOCK_BYTES)?)?;
    }
    while !check.in_flight.is_empty() {
        check.collect()?;
    }
    check.ledger.save(&args.ledger)?;
    println!("{}", json!({"checked": blocks.len(), "wrong": check.wrong, "examples": check.examples}));
    Ok(if check.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

struct Check {
    disk: Disk,
    ledger: Ledger,
    free: Vec<Slot>,
    in_flight: HashMap<usize, u64>,
    wrong: usize,
    examples: Vec<String>,
}

impl Check {
    fn new(args: &CheckArgs) -> Fallible<Self> {
        let disk = Disk::connect(&args.disk)?;
        Ok(Self {
            free: disk.slots().collect(),
            ledger: Ledger::load_or_new(&args.ledger)?,
            in_flight: HashMap::new(),
            wrong: 0,
            examples: Vec::new(),
            disk,
        })
    }

    fn free_slot(&mut self) -> Fallible<Slot> {
        while self.free.is_empty() {
            self.collect()?;
        }
        Ok(self.free.pop().expect("the loop ends with a free slot"))
    }

    /// Waits for completions and compares what they brought.
    fn collect(&mut self) -> Fallible<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        let mut finished = self.disk.finished();
        while finished.is_empty() {
            if Instant::now() > deadline {
                return Err("no read finished for 20 s".into());
            }
            self.disk.wait(Duration::from_millis(20))?;
            finished = self.disk.finished();
        }
        finished.into_iter().try_for_each(|finished| self.compare(&finished))
    }

    fn compare(&mut self, finished: &Finished) -> Fallible<()> {
        let block = self.in_flight.remove(&finished.slot.number()).expect("a slot finishes only once");
        self.free.push(finished.slot);
        if !finished.ok {
            self.note(format!("block {block}: the read failed"));
            return Ok(());
        }
        let data = self.disk.data(finished.slot)?;
        let found: Vec<Origin> = origins(&data, block).collect();
        if !self.ledger.settle(block, &found) {
            let allowed = self.ledger.blocks.get(&block).cloned().unwrap_or_default();
            self.note(format!("block {block}: may hold {allowed:?}, holds {found:?}"));
        }
        Ok(())
    }

    fn note(&mut self, what: String) {
        self.wrong += 1;
        if self.examples.len() < DESCRIBED_MAX {
            self.examples.push(what);
        }
    }
}
