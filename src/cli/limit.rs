//! `limit`: what guests may do to a volume per second.

use super::Global;
use super::arguments::{byte_size, volume_name};
use super::info::limits;
use super::output::print;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::params::{LimitParams, NameParams};
use crate::control::protocol::volumes::VolumeView;
use crate::units::{ByteSize, VolumeName};
use clap::Args;

/// Show or change how much guests may do to a volume per second
///
/// What exceeds a limit waits; nothing fails. Limits belong to the volume, so they hold wherever it is attached, and a
/// change holds at once, also for a running guest. libvirt and cloud-hypervisor refuse their own on vhost-user disks. What
/// is not mentioned stays as it is; 0 takes one limit away.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost limit web1
  archvhost limit web1 --iops 500 --iops-burst 2000 --bytes 100MiB
  archvhost limit web1 --none")]
pub struct LimitArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
    /// Requests per second
    #[arg(long, value_name = "N")]
    iops: Option<u64>,
    /// Requests at once after a rest [default: what one second allows]
    #[arg(long, value_name = "N")]
    iops_burst: Option<u64>,
    /// Bytes per second
    #[arg(long, value_name = "SIZE", value_parser = byte_size())]
    bytes: Option<ByteSize>,
    /// Bytes at once after a rest [default: what one second allows]
    #[arg(long, value_name = "SIZE", value_parser = byte_size())]
    bytes_burst: Option<ByteSize>,
    /// Take all limits away
    #[arg(long, conflicts_with_all = ["iops", "iops_burst", "bytes", "bytes_burst"])]
    none: bool,
}

pub(super) fn run(global: &Global, args: LimitArgs) -> Result<(), Failure> {
    let params = params(&args);
    let volume: VolumeView = if params.changes_nothing() {
        let params = NameParams { name: params.name };
        Target::choose(global, Reach::Metadata)?.call(Method::Info, &params, None, &Job::default())?
    } else {
        Target::choose(global, Reach::Content)?.call(Method::Limit, &params, None, &Job::default())?
    };
    print(global.json, &volume, |volume| format!("{}: {}", volume.name, limits(&volume.limits)))
}

fn params(args: &LimitArgs) -> LimitParams {
    let or_none = |given: Option<u64>| if args.none { Some(0) } else { given };
    LimitParams {
        name: args.volume.to_string(),
        iops: or_none(args.iops),
        iops_burst: or_none(args.iops_burst),
        bytes: or_none(args.bytes.map(|size| size.0)),
        bytes_burst: or_none(args.bytes_burst.map(|size| size.0)),
    }
}
