//! Exit codes; docs/operations.md and the help text list them, and scripts rely on them.

use crate::control::failure::FailureKind;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const IN_USE: u8 = 4;
pub const STORE: u8 = 5;
pub const DAMAGED: u8 = 6;
pub const NO_SPACE: u8 = 7;
pub const UNREACHABLE: u8 = 8;
/// 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

pub fn code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Failed => FAILED,
        FailureKind::Usage => USAGE,
        FailureKind::NotFound => NOT_FOUND,
        FailureKind::Exists | FailureKind::Held | FailureKind::Busy => IN_USE,
        FailureKind::Store => STORE,
        FailureKind::Damaged => DAMAGED,
        FailureKind::NoSpace => NO_SPACE,
        FailureKind::Denied | FailureKind::Unreachable | FailureKind::Protocol => UNREACHABLE,
        FailureKind::Cancelled => INTERRUPTED,
    }
}
