//! What happened, as lines for people and as a number that tells two runs apart.

use super::pending::Pending;
use crate::rng::mix;
use archvhost::store::{ObjectName, Op};

#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) print: bool,
    digest: u64,
}

impl Trace {
    pub(super) fn note(&mut self, now: u64, what: &'static str, pending: &Pending) {
        let (offset, len) = pending.span().unwrap_or((0, 0));
        for number in [now, pending.id.0, pending.token.0, widen(offset), widen(len), widen(what.len())] {
            self.digest = mix(self.digest ^ number);
        }
        if self.print {
            let fate = pending.failure.as_ref().map(|error| format!(" FAILS: {error}")).unwrap_or_default();
            let text = describe(&pending.op);
            let channel = pending.origin.channel.0;
            eprintln!("{now:>8}      #{} {what} on channel {channel}: {text}{fate}", pending.id.0);
        }
    }

    pub(super) fn say(&mut self, now: u64, line: impl FnOnce() -> String) {
        self.digest = mix(self.digest ^ now);
        if self.print {
            eprintln!("{now:>8} {}", line());
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

fn widen(number: usize) -> u64 {
    u64::try_from(number).expect("a length fits in 64 bits")
}

fn describe(op: &Op) -> String {
    match op {
        Op::Read { object, offset, buffer } => format!("read {} {offset}+{}", short(object), buffer.len()),
        Op::Write { object, offset, buffer, durability } => {
            format!("write {} {offset}+{} {durability:?}", short(object), buffer.len())
        }
        Op::Create { object, offset, buffer, .. } => format!("create {} {offset}+{}", short(object), buffer.len()),
        Op::Zero { object, offset, len, space } => format!("zero {} {offset}+{len} {space:?}", short(object)),
        Op::Remove { object } => format!("remove {}", short(object)),
        Op::SyncAll => "sync all".to_owned(),
        Op::Sync { objects } => format!("sync {}", objects.iter().map(short).collect::<Vec<_>>().join(" ")),
        Op::Publish { object, content, mode, room: _ } => {
            format!("publish {} {} bytes {mode:?}", short(object), content.len())
        }
        Op::Stat { object } => format!("stat {}", short(object)),
        Op::List { scope, after, limit } => {
            format!("list {scope:?} after {:?} limit {limit}", after.as_ref().map(short))
        }
    }
}

/// A name without the volume's random id.
fn short(name: &ObjectName) -> String {
    match name {
        ObjectName::Name(name) => format!("name.{name}"),
        ObjectName::Header { generation, .. } => format!("header.{}", generation.0),
        ObjectName::Journal { generation, number, .. } => format!("journal.{}.{number}", generation.0),
        ObjectName::Segment { generation, number, .. } => format!("segment.{}.{number}", generation.0),
        ObjectName::Data { epoch, block, .. } => format!("data.{:x}.{:x}", epoch.0, block.0),
    }
}
