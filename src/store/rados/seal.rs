//! Sealed journals: what a holder that was cut off appends after that is refused by the object itself (rules C3, C16).
//!
//! Names with generations keep such a holder away from whatever its successor reads, but for one thing: the journals
//! that its own last header names, which the successor replays. Whoever takes a lock away seals them first. Every append
//! asserts, in the same operation, that there is no seal; so an append that was acknowledged is one that the successor
//! reads. A seal is never broken: the journals of the successor have other names.

use super::compound::WriteOp;
use super::error::Failure;
use super::home::Home;
use super::{key, list};
use crate::store::ObjectName;
use crate::units::VolumeId;
use std::ffi::CStr;

/// The attribute of a sealed object.
pub(super) const SEALED: &CStr = c"sealed";

/// Seals all journals that the volume has at the moment. Blocks.
pub(super) fn journals(home: &Home, volume: VolumeId) -> Result<(), Failure> {
    for journal in list::metadata(home, volume, None, usize::MAX)? {
        if matches!(journal, ObjectName::Journal { .. }) {
            let op = WriteOp::new(home.metadata.library()).assert_exists().set_attribute(SEALED, b"1");
            match home.metadata.operate(key::object(&journal).as_c_str(), &op) {
                // It is gone, with whatever was in it.
                Err(Failure(libc::ENOENT)) => {}
                other => other?,
            }
        }
    }
    Ok(())
}
