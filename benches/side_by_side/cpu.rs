//! CPU time of a process: all its threads, the ended ones and io_uring's workers too, to the nanosecond.
//! (`/proc/PID/stat` counts in ticks of 10 ms; `/proc/PID/task/*/schedstat` forgets threads that ended.)
#![allow(unsafe_code, reason = "the clock of another process has no safe wrapper")]

use std::io;
use std::time::Duration;

/// The CPU clock of a process.
#[derive(Clone, Copy)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub(crate) fn of_process(pid: u32) -> io::Result<CpuClock> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        let mut clock = 0;
        // SAFETY: `clock` is valid for writing.
        match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
            0 => Ok(CpuClock(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    pub(crate) fn of_self() -> CpuClock {
        CpuClock(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    pub(crate) fn now(self) -> io::Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for writing.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
        Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).map_err(io::Error::other)?))
    }
}
