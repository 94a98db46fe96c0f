//! Watches of lock objects: how it shows from other hosts that a lock's holder lives.
//!
//! Whoever has a lock, and whoever is about to take one, watches its object. The cluster tells watchers of every notification, and
//! forgets a watch when its client has been silent for [`TIMEOUT`]. The library renews watches in threads of its own and answers from
//! there; a process that is stopped, dead or cut off from the cluster does neither. A watch that was forgotten meanwhile is begun anew as
//! soon as the library says so, for as long as its owner has the lock: most owners never ask.
//!
//! ```text
//!   who asks ── notify ──► cluster ──► each watcher: answers with its lock's cookie
//!            ◄── all cookies, and the clients that did not answer
//! ```

#![allow(unsafe_code, reason = "callbacks from librados; every block below says what they require")]

use super::calls::Place;
use crate::store::helpers::Helpers;
use crate::store::rados::error::{BLOCKLISTED, Failure};
use libc::c_int;
use std::ffi::{CStr, CString, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// A third of the time in which a volume must be taken over; longer than a cluster's hiccup.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Between attempts to watch anew.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// Ends with its drop, which may block.
pub(super) struct Watch {
    state: Arc<State>,
}

/// `None` once it has ended: whoever renews keeps nothing of the store beyond that.
type State = Mutex<Option<Begun>>;

struct Begun {
    told: Arc<Told>,
    /// The library's name for it; `None` while there is none.
    handle: Option<u64>,
}

/// What callbacks know.
struct Told {
    place: Arc<Place>,
    cookie: CString,
    /// The cluster has forgotten the watch, or the library is not sure of it.
    failed: AtomicBool,
    watch: Weak<State>,
    renewals: Arc<Helpers>,
}

impl Watch {
    /// Should it fail later, one of the threads `renewals` watches anew.
    ///
    /// # Errors
    /// What the cluster reports.
    pub(super) fn new(place: &Arc<Place>, cookie: &CStr, renewals: &Arc<Helpers>) -> Result<Self, Failure> {
        let state = Arc::<State>::default();
        let told = Told {
            place: Arc::clone(place),
            cookie: cookie.to_owned(),
            failed: AtomicBool::new(false),
            watch: Arc::downgrade(&state),
            renewals: Arc::clone(renewals),
        };
        // Locked before it begins: who is told at once that it failed finds it here.
        let mut begun = locked(&state);
        begun.insert(Begun { told: Arc::new(told), handle: None }).begin()?;
        drop(begun);
        Ok(Self { state })
    }

    /// Watches anew if the watch has failed: the cluster was not reachable for longer than it counts.
    ///
    /// # Errors
    /// What the cluster reports.
    pub(super) fn renew(&self) -> Result<(), Failure> {
        renew(&self.state)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Waits for a renewal that is under way.
        if let Some(mut begun) = locked(&self.state).take() {
            begun.end();
        }
    }
}

fn locked(state: &State) -> MutexGuard<'_, Option<Begun>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state is locked all the time: of two that renew, one would forget the other's watch.
fn renew(state: &State) -> Result<(), Failure> {
    let mut state = locked(state);
    let Some(begun) = state.as_mut() else { return Ok(()) };
    if !begun.told.failed.swap(false, Ordering::AcqRel) {
        return Ok(());
    }
    begun.end();
    begun.begin().inspect_err(|_| begun.told.failed.store(true, Ordering::Release))
}

/// Until it is renewed, or ended, or there is nothing any more to be watched, or by nobody of us.
fn renew_patiently(watch: &Weak<State>) {
    let mut told = false;
    while let Some(state) = watch.upgrade() {
        match renew(&state) {
            // What that means for the lease its owner learns when it next confirms it.
            Ok(()) | Err(Failure(libc::ENOENT | BLOCKLISTED)) => return,
            Err(_) if told => {}
            Err(failure) => tracing::warn!(?failure, "others do not see that a volume's lock is ours; trying again"),
        }
        told = true;
        drop(state);
        thread::sleep(RENEWAL_PAUSE);
    }
}

impl Begun {
    fn begin(&mut self) -> Result<(), Failure> {
        let argument = Arc::as_ptr(&self.told).cast_mut().cast::<c_void>();
        // SAFETY: the argument is what both callbacks take it for, and outlives the watch, which ends before `told` does.
        self.handle = Some(unsafe { self.told.place.watch(TIMEOUT, (called, failed), argument) }?);
        Ok(())
    }

    fn end(&mut self) {
        if let Some(handle) = self.handle.take() {
            // SAFETY: a watch of this place; taken out, so ended once.
            unsafe { self.told.place.unwatch(handle) }
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.end();
    }
}

unsafe extern "C" fn called(
    argument: *mut c_void,
    notification: u64,
    watch: u64,
    _from: u64,
    _message: *mut c_void,
    _len: usize,
) {
    // SAFETY: what `begin` gave, which lives as long as the watch.
    let told = unsafe { &*argument.cast::<Told>() };
    told.place.answer(notification, watch, &told.cookie);
}

unsafe extern "C" fn failed(argument: *mut c_void, _watch: u64, _error: c_int) {
    // SAFETY: as above.
    let told = unsafe { &*argument.cast::<Told>() };
    told.failed.store(true, Ordering::Release);
    let watch = told.watch.clone();
    // This is a thread of the library, which may not wait for the cluster.
    told.renewals.run(move || renew_patiently(&watch));
}
