//! `status`: the daemon and what its attachments have done.

use super::Global;
use super::attachments::state;
use super::output::{pairs, print, table};
use super::target::daemon;
use crate::control::failure::Failure;
use crate::control::protocol::attachments::{AttachmentView, StatusView};
use crate::units::ByteSize;
use clap::Args;

/// Tell how the daemon is and what each attachment has done so far
#[derive(Debug, Args)]
pub struct StatusArgs {}

pub(super) fn run(global: &Global, _args: StatusArgs) -> Result<(), Failure> {
    let status: StatusView = daemon(global)?.call("status", &())?;
    print(global.json, &status, human)
}

fn human(status: &StatusView) -> String {
    let mut head = vec![
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        ("up for", uptime(status.uptime_seconds)),
        ("store", format!("{} ({})", status.store.url, status.store.method)),
        ("attachments", status.attachments.len().to_string()),
    ];
    if !status.held.is_empty() {
        let held = status.held.iter().map(|held| format!("{} ({})", held.volume, held.held_as));
        head.push(("held", held.collect::<Vec<_>>().join(", ")));
    }
    let head = pairs(&head);
    if status.attachments.is_empty() {
        return head;
    }
    let header =
        ["VOLUME", "STATE", "READS", "READ", "WRITES", "WRITTEN", "FLUSHES", "DISCARDS", "ERRORS", "IN FLIGHT"];
    format!("{head}\n\n{}", table(&header, status.attachments.iter().map(row)))
}

fn row(attachment: &AttachmentView) -> Vec<String> {
    let counters = &attachment.counters;
    vec![
        attachment.volume.clone(),
        state(attachment),
        counters.reads.to_string(),
        ByteSize(counters.bytes_read).to_string(),
        counters.writes.to_string(),
        ByteSize(counters.bytes_written).to_string(),
        counters.flushes.to_string(),
        counters.discards.to_string(),
        counters.errors.to_string(),
        counters.in_flight.to_string(),
    ]
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_are_told_in_two_units_at_most() {
        let cases = [(5, "5 s"), (61, "1 min"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in cases {
            assert_eq!(uptime(seconds), text);
        }
    }
}
