//! `check`: whether volumes are whole.

use super::Global;
use super::arguments::volume_name;
use super::output::{counted, interrupted, print, table};
use super::progress::{Counted, watched};
use super::target::{Reach, Target};
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Method;
use crate::control::protocol::params::CheckParams;
use crate::control::protocol::upkeep::{CheckView, FindingView, UncheckedView};
use crate::units::VolumeName;
use clap::Args;

/// Check that all that volumes need is there and whole
///
/// Reads every header, map page and journal, checks their checksums, looks that every object they name is there, and
/// finds objects that nobody names. Guests may run meanwhile. Data itself has no checksums and is not read. Ends with exit
/// code 6 when there is damage that was not repaired; what only costs space (a leak) is told and is no failure. A volume that
/// another process has is named and not checked, with exit code 4: the daemon that has it checks it (--control).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost check
  archvhost check web1 web1@monday --repair")]
pub struct CheckArgs {
    /// Only these [default: all, and what belongs to none]
    #[arg(value_name = "VOLUME", value_parser = volume_name())]
    volumes: Vec<VolumeName>,
    /// Mend what can be mended without guessing at data, and say what was done
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(global: &Global, args: CheckArgs) -> Result<(), Failure> {
    let names = args.volumes.iter().map(VolumeName::to_string).collect();
    let params = CheckParams { names, repair: args.repair };
    let mut target = Target::choose(global, Reach::Metadata)?;
    let view: Result<CheckView, Failure> =
        watched(Counted::Objects, "checking", |job| target.call(Method::Check, &params, None, job));
    let view = view?;
    print(global.json, &view, human)?;
    if view.is_damaged() {
        let text = if args.repair {
            "there is damage that cannot be repaired"
        } else {
            "there is damage; see what `archvhost check --repair` can mend"
        };
        Err(Failure::new(FailureKind::Damaged, text))
    } else if !view.finished {
        Err(interrupted("interrupted before all was checked"))
    } else if !view.unchecked.is_empty() {
        let text = format!(
            "{} not checked: the daemon that has it checks it (`archvhost --control PATH check`)",
            counted(view.unchecked.len() as u64, "volume")
        );
        Err(Failure::new(FailureKind::Held, text))
    } else {
        Ok(())
    }
}

fn human(view: &CheckView) -> String {
    let checked = format!("checked {} and {}", counted(view.volumes, "volume"), counted(view.objects, "object"));
    let findings = match view.findings.len() {
        0 => "nothing is wrong".to_owned(),
        some => counted(some as u64, "finding"),
    };
    let rows: Vec<_> = view.findings.iter().map(row).chain(view.unchecked.iter().map(unchecked_row)).collect();
    if rows.is_empty() {
        return format!("{checked}: {findings}");
    }
    let header = ["SEVERITY", "VOLUME", "FINDING", "REPAIRED"];
    format!("{}\n\n{checked}: {findings}", table(&header, rows.into_iter()))
}

fn unchecked_row(unchecked: &UncheckedView) -> Vec<String> {
    vec!["-".into(), unchecked.volume.clone(), unchecked.text.clone(), "-".into()]
}

fn row(finding: &FindingView) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    vec![finding.severity.clone(), or_dash(&finding.volume), finding.text.clone(), or_dash(&finding.repaired)]
}
