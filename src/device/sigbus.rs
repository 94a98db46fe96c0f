//! Survives a front-end that takes memory away under us.
//!
//! Guest memory is a file that the front-end shares; if it truncates that file, touching what is gone raises SIGBUS, which
//! would kill the daemon and with it every other guest's disk. The handler here looks the faulting address up among the
//! registered guest regions, puts zero pages over the whole region, marks it lost and returns, so the interrupted access
//! goes on and reads zeros. The threads of that export see [`losses`] move and stop it; everything else goes on.
//!
//! (The kernel's own accesses, for io_uring, fail with EFAULT instead and raise no signal.)
//!
//! Everything the handler touches is an atomic in a fixed table, and it calls `mmap`, a bare system call on Linux, and
//! nothing else. A slot is guarded by a sequence number: odd while it changes. The slot of the region that faults cannot
//! change during the fault, because a region is registered before its first access and removed after its last.

#![allow(unsafe_code, reason = "signal handlers are C functions that get raw pointers")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Guest regions of the whole process at one time. A guest has two or three, plus one for each hot-plugged module; what
/// one front-end may take at most (see `memory`) leaves room for sixty others that do the same.
const SLOTS: usize = 1 << 16;

struct Slot {
    taken: AtomicBool,
    sequence: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

/// The smallest page of every system that this runs on.
const PAGE_BYTES: usize = 4096;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];
static LOSSES: AtomicU32 = AtomicU32::new(0);
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            sequence: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// Only by whoever took the slot.
    fn set(&self, start: usize, len: usize) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.len.store(len, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
        self.sequence.fetch_add(1, Ordering::SeqCst);
    }

    /// The region, unless the slot is changing, in which case it is not the one that faults.
    fn get(&self) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::SeqCst);
        let region = (self.start.load(Ordering::SeqCst), self.len.load(Ordering::SeqCst));
        (before & 1 == 0 && self.sequence.load(Ordering::SeqCst) == before).then_some(region)
    }
}

/// A region under watch, until dropped.
#[derive(Debug)]
pub(super) struct Watched(usize);

impl Watched {
    pub(super) fn is_lost(&self) -> bool {
        TABLE[self.0].lost.load(Ordering::SeqCst)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let slot = &TABLE[self.0];
        slot.set(0, 0);
        slot.taken.store(false, Ordering::SeqCst);
    }
}

/// Puts the mapped region under watch. Both numbers must be multiples of the mapping's page size.
///
/// # Errors
/// When the table is full, or the kernel refuses the signal handler.
pub(super) fn watch(start: usize, len: usize) -> io::Result<Watched> {
    install()?;
    let take = |slot: &Slot| slot.taken.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    let index = TABLE.iter().position(take);
    let index = index.ok_or_else(|| io::Error::other("too many guest memory regions in this process"))?;
    TABLE[index].set(start, len);
    Ok(Watched(index))
}

/// Grows whenever a region is lost; whoever sees it grow looks whether the region was theirs.
pub(super) fn losses() -> u32 {
    LOSSES.load(Ordering::Relaxed)
}

fn install() -> io::Result<()> {
    let installed = PREVIOUS.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid value of that C struct.
        let (mut ours, mut previous): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
        ours.sa_sigaction = handler as libc::sighandler_t;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to live structs, and the handler keeps to what a handler may do (see the module's text).
        let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut previous) };
        if result == 0 { Ok(previous) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)) }
    });
    installed.as_ref().map(|_| ()).map_err(|error| io::Error::from_raw_os_error(*error))
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler; for SIGBUS it holds the faulting address.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    let raised_by_kernel = code > 0;
    if raised_by_kernel && cover(address) {
        return;
    }
    pass_on(signal, info, context);
}

/// Covers the region that holds the address with zero pages. Whether there is one.
fn cover(address: usize) -> bool {
    for slot in &TABLE {
        let Some((start, len)) = slot.get() else { continue };
        if !(start..start.saturating_add(len)).contains(&address) {
            continue;
        }
        // Where the system does not commit so much memory, a page at a time: each further one faults again.
        if !put_zeros(start, len) && !put_zeros(address & !(PAGE_BYTES - 1), PAGE_BYTES) {
            return false;
        }
        slot.lost.store(true, Ordering::SeqCst);
        LOSSES.fetch_add(1, Ordering::SeqCst);
        return true;
    }
    false
}

/// Maps zero pages over a part of a guest region.
fn put_zeros(start: usize, len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is a guest mapping of ours that nobody unmaps during the fault; no Rust reference points into it.
    // errno may change, which the interrupted code, a plain memory access, does not look at.
    unsafe {
        libc::mmap(std::ptr::with_exposed_provenance_mut(start), len, protection, flags, -1, 0) != libc::MAP_FAILED
    }
}

/// A SIGBUS that is none of ours: does what would have been done without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get().and_then(|installed| installed.as_ref().ok());
    match previous.map(|action| (action.sa_sigaction, action.sa_flags & libc::SA_SIGINFO != 0)) {
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => die(signal),
        Some((handler, true)) => {
            // SAFETY: installed with SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        Some((handler, false)) => {
            // SAFETY: installed without SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Ends the process by this very signal, so that it leaves the core that a SIGBUS leaves.
fn die(signal: libc::c_int) {
    // SAFETY: both are async-signal-safe; the signal is delivered when the handler returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
