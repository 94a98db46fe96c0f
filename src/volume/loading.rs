//! Leaves that a port is loading: of all its tasks that want one, one reads the page and the others wait.
//!
//! A page of overlays may be a megabyte, and a guest may ask for thousands of its blocks at once. All of them end as the one reading
//! did: a page that cannot be read costs its disk's patience once. Ports do not wait for each other.

use super::VolumeError;
use rustc_hash::FxHashMap;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Loads(RefCell<FxHashMap<u64, Rc<Pending>>>);

#[derive(Debug, Default)]
struct Pending {
    ended: Notify,
    failure: OnceCell<VolumeError>,
}

/// Being the one who loads; the others look again when it is dropped.
#[derive(Debug)]
pub(super) struct Load<'a> {
    loads: &'a Loads,
    leaf: u64,
}

impl Loads {
    /// `None` when somebody loads the leaf already.
    pub(super) fn begin(&self, leaf: u64) -> Option<Load<'_>> {
        let mut loads = self.0.borrow_mut();
        if loads.contains_key(&leaf) {
            return None;
        }
        loads.insert(leaf, Rc::default());
        Some(Load { loads: self, leaf })
    }

    /// Waits until nobody loads the leaf.
    ///
    /// # Errors
    /// That of the one who loaded it.
    pub(super) async fn ended(&self, leaf: u64) -> Result<(), VolumeError> {
        let Some(pending) = self.0.borrow().get(&leaf).map(Rc::clone) else { return Ok(()) };
        // On one thread nothing comes between the look and this.
        pending.ended.notified().await;
        pending.failure.get().cloned().map_or(Ok(()), Err)
    }
}

impl Load<'_> {
    /// The others get this error.
    pub(super) fn fail(self, error: &VolumeError) {
        if let Some(pending) = self.loads.0.borrow().get(&self.leaf) {
            let _only_once = pending.failure.set(error.clone());
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.loads.0.borrow_mut().remove(&self.leaf) {
            pending.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeErrorKind;
    use futures_util::FutureExt;

    #[test]
    fn of_two_one_loads_and_the_other_waits_until_it_has_ended_or_given_up() {
        let loads = Loads::default();
        let load = loads.begin(7).unwrap();
        assert!(loads.begin(7).is_none());
        assert!(loads.begin(8).is_some());
        let mut waiting = Box::pin(loads.ended(7));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(load);
        assert!(waiting.now_or_never().unwrap().is_ok());
        assert!(loads.ended(7).now_or_never().is_some());
        assert!(loads.begin(7).is_some());
    }

    #[test]
    fn who_waits_gets_the_error_of_the_one_who_loads() {
        let loads = Loads::default();
        let load = loads.begin(7).unwrap();
        let mut waiting = Box::pin(loads.ended(7));
        assert!(waiting.as_mut().now_or_never().is_none());
        load.fail(&VolumeError::new(VolumeErrorKind::Damaged, "rotten".to_owned()));
        assert_eq!(waiting.now_or_never().unwrap().unwrap_err().kind(), VolumeErrorKind::Damaged);
    }
}
