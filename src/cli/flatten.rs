//! `flatten`: a clone becomes independent of what it was cloned from.

use super::Global;
use super::arguments::volume_name;
use super::output::{interrupted, print};
use super::progress::{Counted, watched};
use super::target::{Reach, Target};
use crate::control::failure::Failure;
use crate::control::methods::Method;
use crate::control::protocol::branches::FlattenView;
use crate::control::protocol::params::NameParams;
use crate::units::{ByteSize, VolumeName};
use clap::Args;

/// Give a clone copies of all that it shares, so that it needs its parent no more
///
/// Never needed for correctness or speed of reading: a clone works for ever, and its parent may be removed. It frees the
/// parent's space for good once the parent is removed, and costs the clone's. A guest may use the volume meanwhile. When it
/// is interrupted, what was copied stays, and doing it again goes on.
#[derive(Debug, Args)]
pub struct FlattenArgs {
    #[arg(value_parser = volume_name())]
    volume: VolumeName,
}

pub(super) fn run(global: &Global, args: FlattenArgs) -> Result<(), Failure> {
    let params = NameParams { name: args.volume.to_string() };
    let mut target = Target::choose(global, Reach::Content)?;
    let view: Result<FlattenView, Failure> =
        watched(Counted::Bytes, "copying", |job| target.call(Method::Flatten, &params, None, job));
    let view = view?;
    print(global.json, &view, |view| {
        let how = if view.finished { "shares nothing any more" } else { "is partly copied" };
        format!("{} {how}: {} copied", view.name, ByteSize(view.bytes_copied))
    })?;
    let again = format!("interrupted: `archvhost flatten {}` goes on", view.name);
    if view.finished { Ok(()) } else { Err(interrupted(again)) }
}
