//! Runs one future on a channel of its own: for control-side code, which may block.

use super::Io;
use crate::store::{Lease, Store, StoreError, Wake};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

/// Opens a channel for the calling thread, runs the future that `work` makes until it is ready, and closes the channel
/// after every operation that the future left behind has ended.
///
/// # Errors
/// When the store gives no channel, and whatever the future returns.
pub fn block_on<T, E, F>(store: &Arc<dyn Store>, lease: Option<&Lease>, work: impl FnOnce(Io) -> F) -> Result<T, E>
where
    E: From<StoreError>,
    F: Future<Output = Result<T, E>>,
{
    let io = Io::new(store.channel(lease)?);
    let result = drive(&io, work(io.clone()));
    while io.in_flight() != 0 {
        io.wait(None);
        io.reap(&mut Vec::new());
    }
    result
}

fn drive<F: Future>(io: &Io, future: F) -> F::Output {
    let flag = Arc::new(Flag { woken: AtomicBool::new(true), owner: thread::current().id(), wake: io.waker() });
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut raw = Vec::new();
    loop {
        if flag.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(output) = future.as_mut().poll(&mut context)
        {
            return output;
        }
        if !flag.woken.load(Ordering::SeqCst) {
            io.wait(None);
        }
        io.reap(&mut raw);
        raw.clear();
    }
}

/// Says that the future wants to be polled.
struct Flag {
    woken: AtomicBool,
    owner: ThreadId,
    wake: Arc<dyn Wake>,
}

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if thread::current().id() != self.owner {
            self.wake.wake();
        }
    }
}
