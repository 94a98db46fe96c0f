//! Gets a thread out of a system call that blocks, so that it looks again at what it waits for.
//!
//! A signal whose handler does nothing. It is SIGURG, because without a handler that is ignored: one sent by mistake from
//! outside does no harm. System calls that it interrupts are started anew by the kernel, or end with EINTR, which
//! everything here bears anyway, since any thread may be the one that gets the process's other signals.

#![allow(unsafe_code, reason = "signals are sent and handled by C functions")]

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::thread::JoinHandle;

/// Interrupts whatever system call the thread is in.
///
/// # Errors
/// When the kernel refuses the handler.
pub(super) fn nudge<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    install()?;
    // SAFETY: the thread is not joined yet, for its handle is here, so its number is valid even if it has ended.
    let refused = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGURG) };
    if refused == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(refused)) }
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid value of that C struct.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = on_nudge;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: `action` is a live struct, and a handler that does nothing keeps to what a handler may do.
        let result = unsafe { libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)) }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_nudge(_: libc::c_int) {}
