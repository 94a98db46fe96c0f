//! One function per promise of the contract in `archvhost::store`.

mod change;
mod content;
mod listing;
mod locking;
mod sleeping;
mod threads;

pub(crate) use change::*;
pub(crate) use content::*;
pub(crate) use listing::*;
pub(crate) use locking::*;
pub(crate) use sleeping::*;
pub(crate) use threads::*;
