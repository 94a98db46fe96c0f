//! `list`: the volumes of a store.

use super::Global;
use super::output::{print, table};
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::volumes::{HolderView, ListEntryView, ParentView};
use crate::units::ByteSize;
use clap::Args;

/// List the volumes of the store
///
/// A volume that cannot be read is listed with the reason and hides no other.
#[derive(Debug, Args)]
pub struct ListArgs {}

pub(super) fn run(global: &Global, _args: ListArgs) -> Result<(), Failure> {
    let mut target = Target::choose(global, Reach::Metadata)?;
    let volumes: Vec<ListEntryView> = target.call(Method::List, &(), None, &Job::default())?;
    print(global.json, &volumes, |volumes| {
        table(&["NAME", "KIND", "SIZE", "STATE", "PARENT", "HOLDER"], volumes.iter().map(row))
    })
}

fn row(entry: &ListEntryView) -> Vec<String> {
    match entry {
        ListEntryView::Volume(volume) => vec![
            volume.name.clone(),
            volume.kind.clone(),
            ByteSize(volume.size).to_string(),
            volume.state.clone(),
            volume.parent.as_ref().map(parent).unwrap_or_default(),
            volume.holder.as_ref().filter(|_| volume.state == "open").map(holder).unwrap_or_default(),
        ],
        ListEntryView::Unreadable { name, error } => {
            vec![name.clone(), "-".into(), "-".into(), error.to_string(), String::new(), String::new()]
        }
    }
}

pub(super) fn parent(parent: &ParentView) -> String {
    parent.name.clone().unwrap_or_else(|| "(removed)".into())
}

pub(super) fn holder(holder: &HolderView) -> String {
    format!("process {} on {}", holder.pid, holder.host)
}
