//! Volumes being served: from "attach" to "detach", each with an open volume, a socket, and a thread that accepts one
//! front-end after the other.
//!
//! ```text
//!   attach ─► Listening ◄──disconnect── Connected
//!                │  └──────connect─────────►│
//!                ├─────────detach───────────┤──► (gone: socket removed, volume closed)
//!                └──fault of our own────────┴──► Failed(reason) ──detach──► (gone)
//! ```
//!
//! A volume may also be held without being served ([`held`]).
//!
//! Invariants: a volume has at most one attachment; a socket path belongs to one attachment; whatever
//! goes wrong in one attachment leaves the others alone. The daemon calls [`Registry`]; below is [`crate::device`].

pub mod attachment;
pub mod error;
pub mod front_end;
pub mod held;
pub mod listener;
pub mod registry;
pub mod socket;

pub use attachment::{AttachRequest, AttachmentStatus, Endpoint, State};
pub use error::ExportError;
pub use held::{HeldAs, HeldStatus};
pub use registry::{ExportOptions, Registry};
