//! A single-threaded executor: the slow paths of a request are small tasks that wait on their thread's channel.
//!
//! Tasks stay on the thread that spawned them and are run, first come first served, by [`Executor::run_ready`]. A waker
//! may be called from any thread; it queues the task and ends the owner's sleep. Order depends on nothing but the order
//! of wake-ups, so a simulation that controls those replays exactly.

use crate::store::Wake;
use async_task::Task;
use slab::Slab;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

type Runnable = async_task::Runnable;

/// Tasks run in one [`Executor::run_ready`] before the caller gets to look at its rings again.
const RUN_MAX: usize = 256;

/// Cheap to clone; all clones are one executor.
#[derive(Clone)]
pub struct Executor {
    queue: Arc<Queue>,
    /// Spawned and not finished.
    tasks: Rc<RefCell<Slab<Task<()>>>>,
}

struct Queue {
    ready: Mutex<VecDeque<Runnable>>,
    owner: ThreadId,
    wake: Arc<dyn Wake>,
}

impl Executor {
    /// An executor for the calling thread; `wake` ends that thread's sleep.
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        let queue = Queue { ready: Mutex::new(VecDeque::new()), owner: thread::current().id(), wake };
        Self { queue: Arc::new(queue), tasks: Rc::default() }
    }

    /// Queues the task; it begins at the next [`Executor::run_ready`].
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let key = self.tasks.borrow().vacant_key();
        let tasks = Rc::downgrade(&self.tasks);
        let counted = async move {
            task.await;
            if let Some(tasks) = tasks.upgrade() {
                tasks.borrow_mut().remove(key).detach();
            }
        };
        let queue = Arc::clone(&self.queue);
        let (runnable, handle) = async_task::spawn_local(counted, move |runnable| queue.push(runnable));
        self.tasks.borrow_mut().insert(handle);
        runnable.schedule();
    }

    /// Drops every task where it stands, as the end of its process would. For simulations: tasks keep alive what wakes them,
    /// so nothing else would ever free them.
    pub fn abandon(&self) {
        let tasks = self.tasks.take();
        drop(tasks);
        while self.run_ready() {}
    }

    /// Runs tasks that are ready. Returns whether any ran.
    pub fn run_ready(&self) -> bool {
        let mut ran = 0;
        while ran < RUN_MAX {
            let Some(runnable) = self.queue.pop() else { break };
            runnable.run();
            ran += 1;
        }
        ran != 0
    }

    /// Whether a task is ready to run.
    pub fn has_ready(&self) -> bool {
        !self.queue.lock().is_empty()
    }

    /// Tasks spawned and not finished.
    pub fn alive(&self) -> usize {
        self.tasks.borrow().len()
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Runnable>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, runnable: Runnable) {
        self.lock().push_back(runnable);
        if thread::current().id() != self.owner {
            self.wake.wake();
        }
    }

    fn pop(&self) -> Option<Runnable> {
        self.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct NoWake;
    impl Wake for NoWake {
        fn wake(&self) {}
    }

    #[test]
    fn an_abandoned_task_is_dropped_where_it_stands() {
        let executor = Executor::new(Arc::new(NoWake));
        let held = Rc::new(());
        let in_task = Rc::clone(&held);
        executor.spawn(async move {
            std::future::pending::<()>().await;
            drop(in_task);
        });
        executor.run_ready();
        assert_eq!(Rc::strong_count(&held), 2);
        executor.abandon();
        assert_eq!((Rc::strong_count(&held), executor.alive()), (1, 0));
    }

    #[test]
    fn tasks_run_in_the_order_they_became_ready() {
        let executor = Executor::new(Arc::new(NoWake));
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..3 {
            let order = Rc::clone(&order);
            executor.spawn(async move { order.borrow_mut().push(number) });
        }
        assert_eq!(executor.alive(), 3);
        assert!(executor.run_ready());
        assert_eq!(*order.borrow(), [0, 1, 2]);
        assert_eq!(executor.alive(), 0);
        assert!(!executor.run_ready());
    }
}
