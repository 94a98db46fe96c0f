//! How many descriptors the store may keep: as many as the kernel lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is not asked for: a descriptor costs about 1.5 KiB of kernel memory.
const LIMIT_WANTED: u64 = 1 << 18;

/// Left for everything else in the process: sockets, guests' memory, libraries.
const RESERVE: u64 = 1024;

/// Objects kept open at most, whatever the limit.
const OPEN_MAX: u64 = 1 << 17;

/// Objects kept open at least; below, the limit is too low to serve anything anyway.
const OPEN_MIN: u64 = 64;

/// Raises the process's limit and says how many objects may be open at a time.
pub(super) fn raise() -> usize {
    let limit = raised().min(LIMIT_WANTED);
    let share = if limit > 4 * RESERVE { limit - RESERVE } else { limit / 2 };
    usize::try_from(share.clamp(OPEN_MIN, OPEN_MAX)).expect("bounded just now")
}

/// The limit after raising it: to more than the hard limit where we may, else to the hard limit.
fn raised() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let Some(current) = now.current else { return u64::MAX };
    let hard = now.maximum.unwrap_or(u64::MAX);
    for target in [LIMIT_WANTED, hard.min(LIMIT_WANTED)].into_iter().filter(|target| *target > current) {
        let wanted = Rlimit { current: Some(target), maximum: now.maximum.map(|hard| hard.max(target)) };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return target;
        }
    }
    current
}
