//! A store that does something of the test's just before an operation: a race, at exactly one place.

use archvhost::store::{
    Channel, Completion, Lease, LockMode, Op, Seized, Store, StoreError, StoreInfo, Token, Wake, WatchId,
};
use archvhost::units::VolumeId;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Matches = Box<dyn FnMut(&Op) -> bool + Send>;
type Action = Box<dyn FnOnce() + Send>;

pub(crate) struct HookedStore {
    inner: Arc<dyn Store>,
    hooks: Arc<Mutex<Vec<(Matches, Action)>>>,
}

impl HookedStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, hooks: Arc::default() }
    }

    /// Does `action` once, before the first operation that matches, on whatever thread that is.
    pub(crate) fn before(
        &self,
        matches: impl FnMut(&Op) -> bool + Send + 'static,
        action: impl FnOnce() + Send + 'static,
    ) {
        self.hooks.lock().unwrap().push((Box::new(matches), Box::new(action)));
    }

    /// Whether every hook has done its action.
    pub(crate) fn all_done(&self) -> bool {
        self.hooks.lock().unwrap().is_empty()
    }
}

/// Matches the `n`th operation, from 1, that `matches` does.
pub(crate) fn nth(n: usize, mut matches: impl FnMut(&Op) -> bool + Send + 'static) -> impl FnMut(&Op) -> bool + Send {
    let mut seen = 0;
    move |op| {
        seen += usize::from(matches(op));
        seen == n && matches(op)
    }
}

impl Store for HookedStore {
    fn info(&self) -> &StoreInfo {
        self.inner.info()
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        Ok(Box::new(HookedChannel { inner: self.inner.channel(lease)?, hooks: Arc::clone(&self.hooks) }))
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.lock(volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        self.inner.try_lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.inner.seize(volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.inner.record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.holder(volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
}

struct HookedChannel {
    inner: Box<dyn Channel>,
    hooks: Arc<Mutex<Vec<(Matches, Action)>>>,
}

impl Channel for HookedChannel {
    fn submit(&mut self, token: Token, op: Op) {
        // Taken out first: what the action does comes through here as well.
        let action = {
            let mut hooks = self.hooks.lock().unwrap();
            let found = hooks.iter_mut().position(|(matches, _)| matches(&op));
            found.map(|place| hooks.remove(place).1)
        };
        if let Some(action) = action {
            action();
        }
        self.inner.submit(token, op);
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.inner.reap(done);
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        self.inner.watch(fd)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.inner.unwatch(watch);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }
}
