//! The writing run: keeps every slot busy with a write to a random block, one write per block at a time, until the time
//! is over; then drains, or signals the daemon and counts what it completed before it was gone.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Fallible;
use super::args::{Signal, WriteArgs};
use super::disk::{Disk, Slot};
use super::ledger::Ledger;
use super::pattern::{BLOCK_BYTES, fill, mix};
use super::process::Process;

/// How long the device may take for what is in flight at the end of a run.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How often the clock is looked at while nothing completes.
const WAIT_MAX: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &WriteArgs) -> Fallible<ExitCode> {
    let mut load = Load::new(args)?;
    let deadline = Instant::now() + Duration::from_millis(args.for_ms);
    load.keep_busy(|| Ok(Instant::now() >= deadline))?;
    let exit_ms = match (args.pid, args.signal) {
        (Some(pid), Some(signal)) => Some(load.outlive(&Process::open(pid)?, signal)?),
        _ => {
            load.drain()?;
            None
        }
    };
    load.ledger.save(&args.ledger)?;
    println!(
        "{}",
        json!({"completed": load.completed, "failed": load.failed, "in_flight": load.in_flight.len(), "exit_ms": exit_ms})
    );
    Ok(ExitCode::SUCCESS)
}

struct Load {
    disk: Disk,
    ledger: Ledger,
    free: Vec<Slot>,
    in_flight: HashMap<usize, (u64, u64)>,
    busy_blocks: HashSet<u64>,
    blocks: u64,
    stride: u64,
    random: u64,
    completed: u64,
    failed: u64,
}

impl Load {
    fn new(args: &WriteArgs) -> Fallible<Self> {
        let disk = Disk::connect(&args.disk)?;
        let blocks_there = disk.capacity_bytes() / u64::try_from(BLOCK_BYTES)?;
        let blocks = args.blocks.min(blocks_there);
        if blocks <= u64::try_from(disk.slots().count())? {
            return Err("more blocks than slots are needed, since a block has one write at a time".into());
        }
        Ok(Self {
            free: disk.slots().collect(),
            ledger: Ledger::load_or_new(&args.ledger)?,
            in_flight: HashMap::new(),
            busy_blocks: HashSet::new(),
            stride: blocks_there / blocks,
            random: mix(args.seed),
            completed: 0,
            failed: 0,
            disk,
            blocks,
        })
    }

    fn keep_busy(&mut self, mut until: impl FnMut() -> Fallible<bool>) -> Fallible<()> {
        while !until()? {
            self.submit_to_free_slots()?;
            self.disk.wait(WAIT_MAX)?;
            self.collect();
        }
        Ok(())
    }

    /// Signals the daemon and goes on writing until it is gone; returns the milliseconds that took. What the used rings
    /// hold then is all that it ever completed.
    fn outlive(&mut self, process: &Process, signal: Signal) -> Fallible<u128> {
        let started = Instant::now();
        process.signal(signal)?;
        self.keep_busy(|| process.is_gone(started))?;
        let taken = started.elapsed();
        self.collect();
        Ok(taken.as_millis())
    }

    fn submit_to_free_slots(&mut self) -> Fallible<()> {
        while let Some(slot) = self.free.pop() {
            let block = self.pick_block();
            let write = self.ledger.submit(block);
            let mut data = [0; BLOCK_BYTES];
            fill(&mut data, block, write);
            self.busy_blocks.insert(block);
            self.in_flight.insert(slot.number(), (block, write));
            self.disk.write(slot, block * u64::try_from(BLOCK_BYTES)?, &data)?;
        }
        Ok(())
    }

    fn pick_block(&mut self) -> u64 {
        loop {
            self.random = mix(self.random);
            let block = self.random % self.blocks * self.stride;
            if !self.busy_blocks.contains(&block) {
                return block;
            }
        }
    }

    /// Enters what completed into the ledger. A failed write leaves its block as it may be: old, new, or both.
    fn collect(&mut self) {
        for finished in self.disk.finished() {
            let (block, write) = self.in_flight.remove(&finished.slot.number()).expect("a slot finishes only once");
            self.busy_blocks.remove(&block);
            self.free.push(finished.slot);
            if finished.ok {
                self.ledger.complete(block, write);
                self.completed += 1;
            } else {
                self.failed += 1;
            }
        }
    }

    fn drain(&mut self) -> Fallible<()> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while !self.in_flight.is_empty() {
            if Instant::now() > deadline {
                return Err(format!("{} requests did not finish within 20 s", self.in_flight.len()).into());
            }
            self.disk.wait(WAIT_MAX)?;
            self.collect();
        }
        Ok(())
    }
}
