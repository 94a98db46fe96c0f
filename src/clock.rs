//! What time it is, and which boot and process this is.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time that only ever goes forward, from some moment on. Tests have clocks of their own, so that nothing that is measured
/// depends on how busy the machine is.
pub trait Monotonic: Send + Sync {
    fn now(&self) -> Duration;
}

/// The kernel's monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Monotonic for SystemClock {
    fn now(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }
}

/// Seconds since 1970, for people; nothing depends on its order.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When this process started, in clock ticks after boot; 0 where /proc is missing.
pub fn process_start_ticks() -> u64 {
    start_ticks_of(std::process::id()).unwrap_or(0)
}

/// When a process started, in clock ticks after boot (proc(5), stat, field 22); `None` when there is none of that number.
pub fn start_ticks_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether no process of this number that started then lives any more. Where `/proc` hides other users' processes, only the number counts.
pub fn is_process_gone(pid: u32, started: u64) -> bool {
    match start_ticks_of(pid) {
        Some(ticks) => ticks != started,
        None => {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
        }
    }
}

/// Names the set of processes among which this one's number means something.
pub fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

/// The time of the kernel's last tick, in nanoseconds: changes every few milliseconds. The cheapest clock there is.
pub fn tick() -> u64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse))
}

/// Nanoseconds since the host booted, its sleep included. A few tens of nanoseconds, or more on a virtual machine: no system call.
pub fn boottime_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_and_a_boot() {
        assert_ne!(process_start_ticks(), 0);
        assert_eq!(boot_id().len(), 36);
        assert!(boottime_ns() > 0 && !pid_namespace().is_empty());
        assert_eq!(start_ticks_of(u32::MAX), None);
        assert!(unix_seconds() > 1_700_000_000);
    }
}
