//! The reserve: space that is kept back, so that a full store is no trap.
//!
//! Removing a volume needs a little space before it frees any: a lock's record, a header that says *removed*. On a file system
//! without a free block neither could be written. So a store has [`PIECES`] small files in `reserve/`, each with a block of its
//! own. An operation that frees space, or takes no more than it gives back, writes *into* one and gives it its new name:
//! no block is free at any moment, so no guest that waits for one can be quicker. Where even that needs a new block (copy on
//! write, a directory that must grow) pieces are removed, one after the other, and it is tried in the usual way.
//!
//! ```text
//!   .new.X ─written─► reserve/N ─[`spend`]─► DIR/.new.Y ─► DIR/header.G
//!                         ▲                                     │
//!                         └──── [`refill`] ◄── space returns ◄──┘
//! ```
//! Who may: publications and locks whose caller says so ([`Room::Reserve`](crate::store::Room)). Nothing else, above all no
//! guest's write, and nothing that makes a volume or opens one. A piece is whole before it has its name, and never written under it.
//!
//! Pieces are not synced: what a power cut takes is made again at the next opening.

use super::home::Home;
use super::layout::Directory;
use super::publish::{self, Origin};
use super::{lock, setup};
use crate::store::{StoreError, WHOLE_STORE};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A removal takes two for a moment; the rest is for processes that die, and for guests that are quicker than a refill.
const PIECES: usize = 16;

/// A header or a lock's record fits in.
const PIECE_BYTES: usize = 4096;

/// What a process knows of its store's reserve.
#[derive(Default)]
pub(super) struct Reserve {
    /// Pieces are missing.
    short: AtomicBool,
}

/// An error that may be for lack of space.
pub(super) trait LacksSpace {
    fn lacks_space(&self) -> bool;
}

impl LacksSpace for Errno {
    fn lacks_space(&self) -> bool {
        matches!(*self, Errno::NOSPC | Errno::DQUOT)
    }
}

impl LacksSpace for StoreError {
    fn lacks_space(&self) -> bool {
        self.kind() == crate::store::StoreErrorKind::NoSpace
    }
}

/// Has ready what freeing space will need: the reserve, and the lock for work on the whole store. What a full store does not
/// let us make is made at a later opening.
pub(super) fn prepare(home: &Home) {
    let directories = home.make_directories(Directory::Reserve).map_err(Box::from);
    let lock = lock::make_ready(home, WHOLE_STORE).map_err(Box::<dyn std::error::Error>::from);
    if let Err(error) = directories.and(lock) {
        tracing::debug!(%error, "the store's reserve is not complete");
    }
    publish::tidy(home, Directory::Reserve);
    home.reserve.short.store(true, Ordering::Release);
    refill(home);
}

/// Does something that frees space, or takes no more than it gives back: first in the usual way, then with the reserve.
///
/// # Errors
/// The last attempt's; for lack of space when the reserve is used up, too.
pub(super) fn spend<T, E: LacksSpace>(home: &Home, mut attempt: impl FnMut(Origin) -> Result<T, E>) -> Result<T, E> {
    let mut result = attempt(Origin::New);
    for origin in [Origin::Reserve].into_iter().chain(std::iter::repeat_n(Origin::New, PIECES)) {
        match &result {
            Err(error) if error.lacks_space() => {}
            _ => return result,
        }
        home.reserve.short.store(true, Ordering::Release);
        if let Origin::New = origin
            && !give_up_one(home)
        {
            return result;
        }
        result = attempt(origin);
    }
    result
}

/// Gives a piece the name of a temporary file.
///
/// # Errors
/// [`Errno::NOSPC`] when there is none.
pub(super) fn take(home: &Home, temporary: &CStr) -> Result<OwnedFd, Errno> {
    for number in 0..PIECES {
        // The name is nobody else's. A link and an unlink, which some file systems need for more, could give two of us one piece.
        match publish::give_name(home, &piece(number), temporary, crate::store::PublishMode::Replace) {
            // Another one has taken it.
            Err(Errno::NOENT) => {}
            other => {
                other?;
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                return rustix::fs::openat(&home.root, temporary, flags, Mode::empty());
            }
        }
    }
    Err(Errno::NOSPC)
}

/// Makes the pieces that are missing, as far as there is space. Cheap when none is.
pub(super) fn refill(home: &Home) {
    if !home.reserve.short.swap(false, Ordering::AcqRel) {
        return;
    }
    let missing = (0..PIECES).filter(|number| !is_whole(home, &piece(*number)));
    if missing.into_iter().any(|number| make(home, number).is_err()) {
        home.reserve.short.store(true, Ordering::Release);
    }
}

fn piece(number: usize) -> CString {
    Directory::Reserve.entry(number)
}

fn is_whole(home: &Home, piece: &CStr) -> bool {
    let size = u64::try_from(PIECE_BYTES).expect("a small constant");
    rustix::fs::statat(&home.root, piece, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|status| u64::try_from(status.st_size) == Ok(size))
}

fn make(home: &Home, number: usize) -> Result<(), Errno> {
    let (file, temporary) = publish::make_temporary(home, Directory::Reserve, Origin::New)?;
    let made = fill(&file).and_then(|()| {
        // One that a power cut emptied is there already.
        publish::give_name(home, &temporary, &piece(number), crate::store::PublishMode::Replace)
    });
    if made.is_err() {
        let _leftover = rustix::fs::unlinkat(&home.root, &temporary, AtFlags::empty());
    }
    made
}

/// With bytes that no file system makes smaller.
fn fill(file: &OwnedFd) -> Result<(), Errno> {
    let mut bytes = [0; PIECE_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::write(file, &bytes[written..])?;
    }
    Ok(())
}

/// Frees the blocks of one piece.
fn give_up_one(home: &Home) -> bool {
    let removed = |number| rustix::fs::unlinkat(&home.root, piece(number), AtFlags::empty()).is_ok();
    let given_up = (0..PIECES).any(removed);
    if given_up {
        // Where freed blocks can be had only after that.
        let _as_it_may = setup::open_directory_below(&home.root, Directory::Reserve).and_then(rustix::fs::fsync);
    }
    given_up
}
