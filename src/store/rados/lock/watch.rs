//! Watches of lock objects: how it shows from other hosts that a lock's holder lives.
//!
//! Whoever has a lock, and whoever is about to take one, watches its object. The cluster tells watchers of every notification, and
//! forgets a watch when its client has been silent for [`TIMEOUT`]. The library renews watches in threads of its own and answers from
//! there; a process that is stopped, dead or cut off from the cluster does neither.
//!
//! ```text
//!   who asks ── notify ──► cluster ──► each watcher: answers with its lock's cookie
//!            ◄── all cookies, and the clients that did not answer
//! ```

#![allow(unsafe_code, reason = "callbacks from librados; every block below says what they require")]

use super::calls::Place;
use crate::store::rados::error::Failure;
use libc::c_int;
use std::ffi::{CStr, CString, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A third of the time in which a volume must be taken over; longer than a cluster's hiccup.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Ends with its drop, which may block.
pub(super) struct Watch {
    told: Arc<Told>,
    /// The library's name for it; `None` while there is none.
    handle: Mutex<Option<u64>>,
}

/// What callbacks know.
struct Told {
    place: Arc<Place>,
    cookie: CString,
    /// The cluster has forgotten the watch, or the library is not sure of it.
    failed: AtomicBool,
}

impl Watch {
    /// # Errors
    /// What the cluster reports.
    pub(super) fn new(place: &Arc<Place>, cookie: &CStr) -> Result<Self, Failure> {
        let told = Told { place: Arc::clone(place), cookie: cookie.to_owned(), failed: AtomicBool::new(false) };
        let watch = Self { told: Arc::new(told), handle: Mutex::new(None) };
        watch.begin(&mut watch.locked())?;
        Ok(watch)
    }

    /// Watches anew if the watch has failed: the cluster was not reachable for longer than it counts.
    ///
    /// # Errors
    /// What the cluster reports.
    pub(super) fn renew(&self) -> Result<(), Failure> {
        if !self.told.failed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Held all the time: of two that renew, one would forget the other's watch.
        let mut handle = self.locked();
        self.end(&mut handle);
        self.begin(&mut handle).inspect_err(|_| self.told.failed.store(true, Ordering::Release))
    }

    fn locked(&self) -> MutexGuard<'_, Option<u64>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, handle: &mut Option<u64>) -> Result<(), Failure> {
        let argument = Arc::as_ptr(&self.told).cast_mut().cast::<c_void>();
        // SAFETY: the argument is what both callbacks take it for, and outlives the watch, which ends before `told` does.
        *handle = Some(unsafe { self.told.place.watch(TIMEOUT, (called, failed), argument) }?);
        Ok(())
    }

    fn end(&self, handle: &mut Option<u64>) {
        if let Some(handle) = handle.take() {
            // SAFETY: a watch of this place; taken out, so ended once.
            unsafe { self.told.place.unwatch(handle) }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(&mut self.locked());
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
}
