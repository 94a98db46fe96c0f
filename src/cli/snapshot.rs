//! `snapshot`: what volumes hold at this moment, kept.

use super::Global;
use super::arguments::volume_name;
use super::attach::absolute;
use super::interrupt::cancel_on_signal;
use super::output::{note, print};
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::branches::SnapshotView;
use crate::control::protocol::params::{SnapshotOf, SnapshotParams};
use crate::units::VolumeName;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// Keep what a volume holds at this moment, as a snapshot
///
/// It takes the same moment whatever the volume's size, also while a guest writes, and no space until the volume is
/// written. A snapshot is a volume that is never written: it can be attached with --read-only, exported, cloned, compared
/// and removed, and the volume can be rolled back to it.
///
/// Unless guests are frozen the snapshot is crash-consistent: what a disk holds after a power cut, with every write that
/// was flushed. With --freeze-via the guest agent is asked to put the guest's file systems in order first, and the
/// snapshot is as after an unmount; when an agent does not do so there is no snapshot.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost snapshot web1 web1@monday
  archvhost snapshot web1 web1@monday --freeze-via /run/qemu/web1.agent
  archvhost snapshot db db@1 --also db-log db-log@1        # both of one instant")]
pub struct SnapshotArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
    /// The new snapshot's name
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// Another volume and the name of its snapshot, of the same instant; may be given again
    #[arg(long, num_args = 2, value_names = ["VOLUME", "NAME"], value_parser = volume_name())]
    also: Vec<VolumeName>,
    /// The socket of a QEMU guest agent, by which the guest's file systems are frozen meanwhile; may be given again
    #[arg(long, value_name = "SOCKET")]
    freeze_via: Vec<PathBuf>,
    /// Take a crash-consistent snapshot when a guest cannot be frozen
    #[arg(long, requires = "freeze_via")]
    or_crash_consistent: bool,
}

pub(super) fn run(global: &Global, args: SnapshotArgs) -> Result<(), Failure> {
    let params = SnapshotParams {
        snapshots: snapshots(&args),
        freeze_via: args.freeze_via.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
        or_crash_consistent: args.or_crash_consistent,
    };
    let mut target = Target::choose(global, Reach::Content)?;
    // A snapshot is never broken off, so Ctrl-C cannot leave a guest frozen.
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let view: SnapshotView = target.call(Method::Snapshot, &params, None, &Job::default())?;
    if let Some(reason) = &view.freeze_failure {
        note(&format!("not frozen: {reason}"));
    }
    print(global.json, &view, human)
}

fn snapshots(args: &SnapshotArgs) -> Vec<SnapshotOf> {
    let first = [&args.volume, &args.name];
    let pairs =
        std::iter::once(&first[..]).map(<[_]>::to_vec).chain(args.also.chunks(2).map(|pair| pair.iter().collect()));
    pairs.map(|pair| SnapshotOf { volume: pair[0].to_string(), name: pair[1].to_string() }).collect()
}

fn human(view: &SnapshotView) -> String {
    let snapshot = |volume: &crate::control::protocol::volumes::VolumeView| {
        let parent = volume.parent.as_ref().and_then(|parent| parent.name.as_deref()).unwrap_or("a volume");
        format!("{} is a snapshot of {parent}", volume.name)
    };
    let mut lines: Vec<_> = view.volumes.iter().map(snapshot).collect();
    lines.push(format!("{}; writes waited {}", view.guarantee, milliseconds(view.pause_seconds)));
    lines.join("\n")
}

pub(super) fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1000.0)
}
