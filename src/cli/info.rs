//! `info`: what is known of one volume.

use super::Global;
use super::arguments::volume_name;
use super::date::utc;
use super::list::{holder, parent};
use super::output::{pairs, print};
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::NameParams;
use crate::control::protocol::volumes::{LimitsView, VolumeView};
use crate::units::{ByteSize, VolumeName};
use clap::Args;

/// Tell about one volume
#[derive(Debug, Args)]
pub struct InfoArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
}

pub(super) fn run(global: &Global, args: InfoArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.name.to_string() };
    let mut target = Target::choose(global, Reach::Metadata)?;
    let volume: VolumeView = target.call(Method::Info, &params, None, &Job::default())?;
    print(global.json, &volume, human)
}

fn human(volume: &VolumeView) -> String {
    let mut lines = vec![
        ("name", volume.name.clone()),
        ("id", volume.id.clone()),
        ("size", format!("{} ({} bytes)", ByteSize(volume.size), volume.size)),
        ("object size", ByteSize(volume.object_size).to_string()),
        ("kind", volume.kind.clone()),
        ("state", state(volume)),
        ("created", utc(volume.created)),
    ];
    if let Some(view) = &volume.parent {
        lines.push(("parent", parent(view)));
    }
    if volume.kind == "disk" {
        lines.push(("limits", limits(&volume.limits)));
    }
    if let Some(view) = &volume.holder {
        lines.push((if volume.state == "open" { "holder" } else { "last holder" }, holder(view)));
    }
    pairs(&lines)
}

fn state(volume: &VolumeView) -> String {
    let remarks = [
        (volume.shared, "shares objects with what was made from it"),
        (volume.unfenced, "being copied away from a holder that was cut off"),
        (volume.receiving, "a transfer into it is not complete"),
    ];
    let said = remarks.into_iter().filter(|(so, _)| *so).map(|(_, remark)| remark);
    std::iter::once(volume.state.as_str()).chain(said).collect::<Vec<_>>().join("; ")
}

/// `none`, or what is allowed per second, and at once after a rest.
pub(super) fn limits(limits: &LimitsView) -> String {
    let of = |rate: u64, burst: u64, text: &dyn Fn(u64) -> String| {
        let at_once = if burst == 0 { String::new() } else { format!(" (burst {})", text(burst)) };
        (rate != 0).then(|| format!("{}/s{at_once}", text(rate)))
    };
    let requests = of(limits.iops, limits.iops_burst, &|number| format!("{number} requests"));
    let bytes = of(limits.bytes, limits.bytes_burst, &|number| ByteSize(number).to_string());
    let parts: Vec<_> = requests.into_iter().chain(bytes).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_with_their_bursts() {
        assert_eq!(limits(&LimitsView::default()), "none");
        let view = LimitsView { iops: 500, iops_burst: 2000, bytes: 100 << 20, bytes_burst: 0 };
        assert_eq!(limits(&view), "500 requests/s (burst 2000 requests), 100MiB/s");
    }
}
