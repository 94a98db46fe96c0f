//! A thread's access to an open volume: its channel to the store, its tasks, its cached view of the map.

use super::{Done, Request, Volume, VolumeError};
use crate::store::{StoreError, Wake, WatchId};
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Belongs to the thread that opened it. Cheap to clone; all clones are one port.
#[derive(Clone)]
pub struct Port {
    _private: Rc<()>,
}

impl Port {
    /// A port for the calling thread.
    ///
    /// # Errors
    /// When the store gives no channel.
    pub fn open(_volume: &Arc<Volume>) -> Result<Self, VolumeError> {
        todo!()
    }

    pub fn volume(&self) -> &Arc<Volume> {
        todo!()
    }

    /// Takes a request; exactly one [`Done`] with this tag will follow from [`Port::turn`].
    pub fn submit(&self, _tag: u32, _request: Request) {
        todo!()
    }

    /// Hands new operations to the kernel, collects completions, runs tasks, appends what is finished. Never blocks.
    /// Returns whether anything moved.
    pub fn turn(&self, _done: &mut Vec<Done>) -> bool {
        todo!()
    }

    /// Requests submitted and not yet reported as done.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// See [`crate::store::Channel::watch`].
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    pub fn watch(&self, _fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        todo!()
    }

    pub fn unwatch(&self, _watch: WatchId) {
        todo!()
    }

    /// Sleeps until there is something for [`Port::turn`], a watched descriptor is signalled, the waker is called, or the
    /// time is over.
    pub fn wait(&self, _timeout: Option<Duration>) {
        todo!()
    }

    pub fn waker(&self) -> Arc<dyn Wake> {
        todo!()
    }

    /// One request, as a future; for control-side code. Returns the request's buffer.
    pub async fn request(&self, _request: Request) -> Result<Option<crate::store::Buffer>, VolumeError> {
        todo!()
    }

    /// Runs this thread's tasks until the future is ready.
    pub fn block_on<T>(&self, _future: impl Future<Output = T>) -> T {
        todo!()
    }
}
