//! Kinds of operations, for counting them and for picking some.

use super::{ObjectName, Op};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    Read,
    Write,
    Create,
    Zero,
    Remove,
    Sync,
    SyncAll,
    Publish,
    Stat,
    List,
}

impl OpKind {
    pub const ALL: [OpKind; 10] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Zero,
        Self::Remove,
        Self::Sync,
        Self::SyncAll,
        Self::Publish,
        Self::Stat,
        Self::List,
    ];

    pub fn of(op: &Op) -> Self {
        match op {
            Op::Read { .. } => Self::Read,
            Op::Write { .. } => Self::Write,
            Op::Create { .. } => Self::Create,
            Op::Zero { .. } => Self::Zero,
            Op::Remove { .. } => Self::Remove,
            Op::Sync { .. } => Self::Sync,
            Op::SyncAll => Self::SyncAll,
            Op::Publish { .. } => Self::Publish,
            Op::Stat { .. } => Self::Stat,
            Op::List { .. } => Self::List,
        }
    }

    /// A present-tense verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Zero => "zero",
            Self::Remove => "remove",
            Self::Sync => "sync",
            Self::SyncAll => "sync all",
            Self::Publish => "publish",
            Self::Stat => "look at",
            Self::List => "list",
        }
    }

    /// Where this kind is in [`OpKind::ALL`].
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).expect("every kind is listed")
    }
}

impl Op {
    /// The one object that the operation is on, if it is one.
    pub fn object(&self) -> Option<&ObjectName> {
        match self {
            Self::Read { object, .. }
            | Self::Write { object, .. }
            | Self::Create { object, .. }
            | Self::Zero { object, .. }
            | Self::Remove { object }
            | Self::Publish { object, .. }
            | Self::Stat { object } => Some(object),
            Self::Sync { .. } | Self::SyncAll | Self::List { .. } => None,
        }
    }

    /// The operation's buffer, if it has one.
    pub(crate) fn into_buffer(self) -> Option<super::Buffer> {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } | Self::Create { buffer, .. } => Some(buffer),
            Self::Publish { content, .. } => Some(content),
            Self::Zero { .. }
            | Self::Remove { .. }
            | Self::Sync { .. }
            | Self::SyncAll
            | Self::Stat { .. }
            | Self::List { .. } => None,
        }
    }

    /// Bytes of data that the operation moves.
    pub(crate) fn data_len(&self) -> usize {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } | Self::Create { buffer, .. } => buffer.len(),
            Self::Publish { content, .. } => content.len(),
            Self::Zero { .. }
            | Self::Remove { .. }
            | Self::Sync { .. }
            | Self::SyncAll
            | Self::Stat { .. }
            | Self::List { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        for (index, kind) in OpKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index, "{kind:?}");
        }
    }
}
