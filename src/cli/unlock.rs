//! `unlock`: gives a volume free, or takes it from whoever has it.

use super::Global;
use super::arguments::volume_name;
use super::output::print;
use super::target::{Reach, Target, daemon};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::holding::{CutOffView, UnlockView};
use crate::control::protocol::params::UnlockParams;
use crate::units::VolumeName;
use clap::Args;

/// Give back a volume that `lock` locked, or, with --force, take it from whoever has it
///
/// With --force whoever holds the volume, on any host, is cut off: its guest gets errors from then on, and writes that it
/// still has under way never show. So is a holder that cannot be reached, of which nobody knows whether it is alive. The answer
/// says whom it was. Needs no daemon then. Nothing is lost that was flushed; what was not flushed there is.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, when another host is lost and the volume is needed here:
  archvhost unlock --force web1 && archvhost attach web1 --socket /run/web1.sock")]
pub struct UnlockArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
    /// Cut off whoever has it
    #[arg(long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: UnlockArgs) -> Result<(), Failure> {
    let params = UnlockParams { name: args.volume.to_string(), force: args.force };
    let unlocked: UnlockView = if args.force {
        Target::choose(global, Reach::Metadata)?.call(Method::Unlock, &params, None, &Job::default())?
    } else {
        daemon(global)?.call("unlock", &params)?
    };
    print(global.json, &unlocked, human)
}

fn human(view: &UnlockView) -> String {
    match &view.cut_off {
        None => format!("unlocked {}", view.name),
        Some(cut_off) => format!("{} is free: {}", view.name, whom(cut_off)),
    }
}

fn whom(cut_off: &CutOffView) -> String {
    let readers = if cut_off.readers { "; its readers were cut off" } else { "" };
    if cut_off.holders.is_empty() {
        return format!("nobody had it{readers}");
    }
    let names = cut_off.holders.iter().map(|holder| match holder.pid {
        0 => "a holder that left no record".to_owned(),
        pid => format!("process {pid} on host {}", holder.host),
    });
    let fenced =
        if cut_off.fenced { "proven to write no more" } else { "which may still write; none of that will show" };
    format!("cut off {}, {fenced}{readers}", names.collect::<Vec<_>>().join(" and "))
}
