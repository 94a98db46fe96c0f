//! The holding run: a front-end that started its rings, read one block to show that they work, and then does nothing
//! until it is ended.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Fallible;
use super::args::DiskArgs;
use super::disk::{Disk, Finished};

/// How long the device may take for one read.
const READ_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &DiskArgs) -> Fallible<ExitCode> {
    let mut disk = Disk::connect(args)?;
    for slot in disk.slots() {
        disk.read(slot, 0)?;
        if !first_finished(&mut disk)?.ok {
            return Err("a read failed".into());
        }
    }
    println!("holding");
    loop {
        std::thread::park();
    }
}

/// A device may signal without having finished anything.
fn first_finished(disk: &mut Disk) -> Fallible<Finished> {
    let deadline = Instant::now() + READ_LIMIT;
    while Instant::now() < deadline {
        disk.wait(READ_LIMIT)?;
        if let Some(finished) = disk.finished().pop() {
            return Ok(finished);
        }
    }
    Err("a read did not finish".into())
}
