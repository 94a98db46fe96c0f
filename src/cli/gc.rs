//! `gc`: frees what no volume names any more.

use super::Global;
use super::output::{counted, interrupted, print};
use super::progress::{Counted, watched};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::CollectParams;
use crate::control::protocol::upkeep::CollectView;
use crate::units::ByteSize;
use clap::Args;

/// Collect: free the space of what no volume or snapshot needs any more
///
/// What a removed volume shared with others is freed when the last of them is gone; finding that out is the work of a
/// collection. Guests may run, and volumes come and go meanwhile. The daemon collects by itself, every six hours unless
/// told otherwise (`archvhost serve --gc-interval`). One collection of a store runs at a time.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only tell what would be freed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(global: &Global, args: GcArgs) -> Result<(), Failure> {
    let params = CollectParams { dry_run: args.dry_run };
    let mut target = Target::choose(global, Reach::Metadata)?;
    let view: Result<CollectView, Failure> =
        watched(Counted::Objects, "collecting", |job| target.call(Method::Collect, &params, None, job));
    let view = view?;
    print(global.json, &view, human)?;
    let stopped = "interrupted before all was collected; what is left is found the next time";
    if view.finished { Ok(()) } else { Err(interrupted(stopped)) }
}

fn human(view: &CollectView) -> String {
    let would = if view.dry_run { "would free" } else { "freed" };
    let (freed, objects) = (ByteSize(view.bytes_removed), counted(view.objects_removed, "object"));
    let (kept, volumes) = (counted(view.objects_kept, "object"), counted(view.volumes, "volume"));
    let mut text = format!("{would} {freed} in {objects}; {volumes} with {kept} stay");
    if view.volumes_forgotten != 0 {
        text.push_str(&format!("; nothing is left of {}", counted(view.volumes_forgotten, "removed volume")));
    }
    text
}
