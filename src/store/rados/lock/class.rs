//! What the methods of the cluster's `lock` class take, as bytes. They are called through operations of several steps, because only so a
//! lock and its record come together, and a record is written only by whoever has the lock.
//!
//! ```text
//!   method          input (version 1, oldest reader 1, length of the rest, then)
//!   lock            name, type, cookie, tag, description: texts; duration: two numbers; flags
//!   assert_locked   name, type, cookie, tag
//!   unlock          name, cookie
//!   break_lock      name, kind of client, number of client (64 bits), cookie
//! ```
//! Texts have their length before them; numbers have 32 bits, little endian; types, kinds and flags have 8.

use super::calls::LOCK_NAME;
use crate::store::LockMode;
use std::ffi::CStr;

pub(super) const LOCK: &CStr = c"lock";
pub(super) const ASSERT_LOCKED: &CStr = c"assert_locked";
pub(super) const UNLOCK: &CStr = c"unlock";
pub(super) const BREAK: &CStr = c"break_lock";
pub(super) const CLASS: &CStr = c"lock";

/// Of a client that is no daemon of the cluster.
const KIND_CLIENT: u8 = 8;

const VERSION: u8 = 1;

/// The input of [`LOCK`]: without an expiry, so that no pause of the cluster takes the lock from a living holder (rule C16).
pub(super) fn lock(mode: LockMode, cookie: &CStr) -> Vec<u8> {
    let mut rest = owner(mode, cookie);
    text(&mut rest, b"");
    let (never, no_flags) = ([0; 8], 0);
    rest.extend(never);
    rest.push(no_flags);
    framed(&rest)
}

/// The input of [`ASSERT_LOCKED`].
pub(super) fn assert_locked(mode: LockMode, cookie: &CStr) -> Vec<u8> {
    framed(&owner(mode, cookie))
}

pub(super) fn unlock(cookie: &CStr) -> Vec<u8> {
    let mut rest = Vec::new();
    text(&mut rest, LOCK_NAME.to_bytes());
    text(&mut rest, cookie.to_bytes());
    framed(&rest)
}

pub(super) fn break_lock(client: u64, cookie: &CStr) -> Vec<u8> {
    let mut rest = Vec::new();
    text(&mut rest, LOCK_NAME.to_bytes());
    rest.push(KIND_CLIENT);
    rest.extend(client.to_le_bytes());
    text(&mut rest, cookie.to_bytes());
    framed(&rest)
}

fn owner(mode: LockMode, cookie: &CStr) -> Vec<u8> {
    let mut bytes = Vec::new();
    text(&mut bytes, LOCK_NAME.to_bytes());
    bytes.push(match mode {
        LockMode::Exclusive | LockMode::ExclusiveToFree => 1,
        LockMode::Shared => 2,
    });
    text(&mut bytes, cookie.to_bytes());
    let tag = b"";
    text(&mut bytes, tag);
    bytes
}

fn framed(rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION, VERSION];
    text(&mut bytes, rest);
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    let len = u32::try_from(text.len()).expect("names and cookies are short");
    bytes.extend(len.to_le_bytes());
    bytes.extend(text);
}
