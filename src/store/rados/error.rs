//! From librados' answers to errors: its negative numbers are those of the kernel, with meanings of their own.

use crate::store::{StoreError, StoreErrorKind};
use libc::c_int;
use std::fmt;
use std::io;

/// `EBLOCKLISTED`: the cluster has cut this client off.
pub(super) const BLOCKLISTED: c_int = libc::ESHUTDOWN;

/// Our own: an object that every store has is missing. What it listed would otherwise look removed, to collection as well.
pub(super) const INCOMPLETE: c_int = libc::ENOTRECOVERABLE;

/// An error number of librados, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure(pub(super) c_int);

impl Failure {
    /// What `operation` on `target` met.
    pub(super) fn at(self, operation: &'static str, target: impl fmt::Display) -> StoreError {
        StoreError::from_io(self.cause(), operation, target).with_kind(self.kind())
    }

    pub(super) fn kind(self) -> StoreErrorKind {
        match self.0 {
            libc::ENOENT => StoreErrorKind::NotFound,
            libc::EEXIST => StoreErrorKind::Exists,
            libc::ENOSPC | libc::EDQUOT => StoreErrorKind::NoSpace,
            libc::EACCES | libc::EPERM | libc::EROFS => StoreErrorKind::NotWritable,
            // The second one comes of a seal (seal.rs); where anything else is compared, it is looked for before.
            BLOCKLISTED | libc::ECANCELED => StoreErrorKind::Lost,
            INCOMPLETE => StoreErrorKind::Damaged,
            libc::EOPNOTSUPP | libc::ENOSYS => StoreErrorKind::Unsupported,
            libc::ETIMEDOUT | libc::ENOTCONN | libc::ECONNREFUSED | libc::EHOSTUNREACH => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Io,
        }
    }

    fn cause(self) -> io::Error {
        match self.0 {
            BLOCKLISTED => io::Error::other("the cluster has blocklisted this client"),
            libc::ECANCELED => io::Error::other("a successor has sealed it"),
            INCOMPLETE => io::Error::other(
                "the store has lost archvhost-names or one of archvhost-volumes.0 to .f (docs/operations.md tells how to make it again)",
            ),
            libc::EDQUOT => io::Error::other("the pool's quota is used up"),
            number => io::Error::from_raw_os_error(number),
        }
    }
}

/// What a call of librados returned: a count or zero, or an error.
pub(super) fn check(returned: c_int) -> Result<c_int, Failure> {
    if returned < 0 { Err(Failure(returned.saturating_neg())) } else { Ok(returned) }
}

/// What was to be removed need not be there.
pub(super) fn absent_is_fine(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure(libc::ENOENT)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_an_error_that_callers_know() {
        let cases = [
            (libc::ENOENT, StoreErrorKind::NotFound),
            (libc::EEXIST, StoreErrorKind::Exists),
            (libc::ENOSPC, StoreErrorKind::NoSpace),
            (libc::EDQUOT, StoreErrorKind::NoSpace),
            (libc::EPERM, StoreErrorKind::NotWritable),
            (libc::EACCES, StoreErrorKind::NotWritable),
            (108, StoreErrorKind::Lost),
            (libc::ECANCELED, StoreErrorKind::Lost),
            (libc::EOPNOTSUPP, StoreErrorKind::Unsupported),
            (libc::ETIMEDOUT, StoreErrorKind::Unavailable),
            (libc::EIO, StoreErrorKind::Io),
            (libc::EINVAL, StoreErrorKind::Io),
        ];
        for (number, kind) in cases {
            let error = check(-number).unwrap_err().at("read", "object 1");
            assert_eq!(error.kind(), kind, "{number}");
        }
        assert_eq!(check(4096), Ok(4096));
    }

    #[test]
    fn a_blocklisted_client_is_told_so() {
        let error = Failure(BLOCKLISTED).at("write", "object 1");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("blocklisted"), "{cause}");
    }
}
