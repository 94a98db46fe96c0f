//! `list`: the volumes of a store.

use super::Global;
use super::output::{print, table};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::protocol::{HolderView, ListEntryView};
use crate::units::ByteSize;
use clap::Args;

/// List the volumes of the store
///
/// A volume that cannot be read is listed with the reason and hides no other.
#[derive(Debug, Args)]
pub struct ListArgs {}

pub(super) fn run(global: &Global, _args: ListArgs) -> Result<(), Failure> {
    let volumes = Target::choose(global, Reach::Metadata)?.list()?;
    print(global.json, &volumes, |volumes| {
        table(&["NAME", "SIZE", "OBJECT SIZE", "STATE", "HOLDER"], volumes.iter().map(row))
    })
}

fn row(entry: &ListEntryView) -> Vec<String> {
    match entry {
        ListEntryView::Volume(volume) => vec![
            volume.name.clone(),
            ByteSize(volume.size).to_string(),
            ByteSize(volume.object_size).to_string(),
            volume.state.clone(),
            volume.holder.as_ref().filter(|_| volume.state == "open").map(holder).unwrap_or_default(),
        ],
        ListEntryView::Unreadable { name, error } => {
            vec![name.clone(), "-".into(), "-".into(), error.to_string(), String::new()]
        }
    }
}

pub(super) fn holder(holder: &HolderView) -> String {
    format!("process {} on {}", holder.pid, holder.host)
}
