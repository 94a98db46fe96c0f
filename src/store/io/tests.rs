//! The façade's own promises, on the memory driver and on a channel that answers when told.

use super::{Finished, Io, RawCompletion, block_on};
use crate::store::memory::MemoryStore;
use crate::store::{
    Buffer, Channel, Completion, ListScope, ObjectName, Op, Outcome, PublishMode, Store, StoreError, StoreErrorKind,
    Token, Wake, WatchId,
};
use crate::units::VolumeName;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn name(text: &str) -> ObjectName {
    ObjectName::Name(VolumeName::new(text).unwrap())
}

/// Keeps operations until the test ends them, in the order the test likes.
#[derive(Clone, Default)]
struct Held(Rc<RefCell<HeldState>>);

#[derive(Default)]
struct HeldState {
    running: Vec<(Token, Buffer)>,
    done: VecDeque<Completion>,
}

impl Held {
    fn end(&self, index: usize) {
        let mut state = self.0.borrow_mut();
        let (token, buffer) = state.running.remove(index);
        state.done.push_back(Completion { token, result: Ok(Outcome::Done), buffer: Some(buffer) });
    }
}

impl Channel for Held {
    fn submit(&mut self, token: Token, op: Op) {
        let Op::Read { buffer, .. } = op else { panic!("only reads here") };
        self.0.borrow_mut().running.push((token, buffer));
    }
    fn kick(&mut self) {}
    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.extend(self.0.borrow_mut().done.drain(..));
    }
    fn in_flight(&self) -> usize {
        self.0.borrow().running.len()
    }
    fn watch(&mut self, _fd: BorrowedFd<'_>) -> Result<WatchId, StoreError> {
        Ok(WatchId(0))
    }
    fn unwatch(&mut self, _watch: WatchId) {}
    fn wait(&mut self, _timeout: Option<Duration>) {}
    fn waker(&self) -> Arc<dyn Wake> {
        struct Deaf;
        impl Wake for Deaf {
            fn wake(&self) {}
        }
        Arc::new(Deaf)
    }
}

fn read(text: &str) -> Op {
    Op::Read { object: name(text), offset: 0, buffer: Buffer::zeroed(8) }
}

fn poll(future: &mut (impl Future<Output = Finished> + Unpin)) -> Poll<Finished> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn completions_reach_the_future_that_asked_in_any_order() {
    let held = Held::default();
    let io = Io::new(Box::new(held.clone()));
    let (mut first, mut second) = (io.run(read("a")), io.run(read("b")));
    held.end(1);
    assert!(io.reap(&mut Vec::new()));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_ready());
    held.end(0);
    io.reap(&mut Vec::new());
    assert!(poll(&mut first).is_ready());
    assert!(!io.reap(&mut Vec::new()));
}

#[test]
fn a_dropped_futures_buffer_lives_until_its_operation_ends() {
    let held = Held::default();
    let io = Io::new(Box::new(held.clone()));
    drop(io.run(read("a")));
    assert_eq!(io.in_flight(), 1, "the driver still has the operation and its buffer");
    let mut later = io.run(read("b"));
    held.end(0);
    io.reap(&mut Vec::new());
    assert!(poll(&mut later).is_pending(), "an abandoned operation's end is nobody else's");
    held.end(0);
    io.reap(&mut Vec::new());
    assert!(poll(&mut later).is_ready());
    drop(later);
    assert!(io.inner.slots.borrow_mut().occupy() & 0xffff_ffff <= 1, "slots are used again");
}

#[test]
fn raw_completions_come_out_of_reap_with_their_token() {
    let held = Held::default();
    let io = Io::new(Box::new(held.clone()));
    io.submit_raw(u32::MAX, read("a"));
    let mut future = io.run(read("b"));
    held.end(0);
    held.end(0);
    let mut raw = Vec::new();
    assert!(io.reap(&mut raw));
    let [RawCompletion { token: u32::MAX, result: Ok(_), buffer: Some(_) }] = raw.as_slice() else {
        panic!("one raw completion expected, not {raw:?}")
    };
    assert!(poll(&mut future).is_ready());
}

#[test]
fn control_code_runs_a_future_to_its_end() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let content: Result<Vec<u8>, StoreError> = block_on(&store, None, |io| async move {
        io.publish(name("a"), b"hello", PublishMode::Exclusive).await?;
        assert_eq!(io.list(ListScope::Names, None, 10).await?, [name("a")]);
        io.read_all(name("a")).await
    });
    assert_eq!(content.unwrap(), b"hello");
    let missing = block_on(&store, None, |io| async move { io.stat(name("b")).await });
    assert_eq!(missing.unwrap_err().kind(), StoreErrorKind::NotFound);
}
