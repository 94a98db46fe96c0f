//! Time as all models of a run count it, and the numbers of requests: no two volumes ever write the same bytes.

use super::history::Tick;
use std::cell::Cell;

#[derive(Debug, Default)]
pub struct Clock {
    now: Cell<Tick>,
    requests: Cell<u64>,
}

impl Clock {
    /// A moment of its own, later than all before it.
    pub fn tick(&self) -> Tick {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }

    /// A number for a request.
    pub fn request(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }
}
