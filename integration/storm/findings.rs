//! What went wrong, from all threads. The storm ends soon after the first.

use std::sync::{Mutex, PoisonError};

/// More are only counted.
const KEPT_MAX: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<(usize, Vec<String>)>);

impl Findings {
    pub(crate) fn add(&self, text: String) {
        eprintln!("storm: WRONG: {text}");
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.0 += 1;
        if found.1.len() < KEPT_MAX {
            found.1.push(text);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}
