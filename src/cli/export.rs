//! `export`: a volume as an image, or a snapshot as a stream.

use super::Global;
use super::arguments::{text, volume_name};
use super::image;
use super::interrupt::cancel_on_signal;
use super::output::print;
use super::progress::{Bar, Counted};
use super::result_file::ResultFile;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Method;
use crate::control::protocol::params::{ExportStreamParams, NameParams};
use crate::control::protocol::volumes::ExportView;
use crate::units::{ByteSize, VolumeName};
use clap::Args;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Write a volume's content to an image, or a snapshot to a stream
///
/// The image is of one moment: of a snapshot, or of a volume that is not attached or held. A raw image has holes where the volume has
/// zeros. Other formats are made with qemu-img, where it is installed, as the file's ending (.qcow2, .vmdk, …) or --format
/// says. If the export fails or is interrupted, there is no image afterwards; with --force, a file that was there is as it was.
///
/// A stream is for `import`: it carries a snapshot, with --from only what that has beyond an older one that the other side
/// has already. Every part of it is verified where it arrives. An import that was interrupted tells the token with which
/// --resume sends the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost --store file:/srv/volumes export web1 web1.img
  archvhost --store file:/srv/volumes export web1 - | zstd > web1.img.zst
  archvhost export web1@mon - --stream | ssh backup archvhost import web1
  archvhost export web1@tue - --from web1@mon | ssh backup archvhost import web1")]
pub struct ExportArgs {
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// The image or stream; - is the standard output
    image: PathBuf,
    /// Overwrite a file, or a block device, that is there already
    #[arg(long)]
    force: bool,
    /// The image's format, as qemu-img calls it [default: as the file's ending says, else raw]
    #[arg(long, value_name = "FORMAT", value_parser = text())]
    format: Option<String>,
    /// Write a stream, of a snapshot
    #[arg(long, conflicts_with = "format")]
    stream: bool,
    /// Write a stream of what the snapshot has beyond this older one
    #[arg(long, value_name = "SNAPSHOT", value_parser = volume_name(), conflicts_with = "format")]
    from: Option<VolumeName>,
    /// Write the rest of a stream, from where an interrupted import said
    #[arg(long, value_name = "TOKEN", value_parser = text(), conflicts_with = "format")]
    resume: Option<String>,
}

impl ExportArgs {
    fn is_stream(&self) -> bool {
        self.stream || self.from.is_some() || self.resume.is_some()
    }
}

pub(super) fn run(global: &Global, args: ExportArgs) -> Result<(), Failure> {
    let mut target = Target::choose(global, Reach::Content)?;
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let to_stdout = args.image == Path::new("-");
    let format = if args.is_stream() { "raw".into() } else { image::format(args.format.as_deref(), &args.image) };
    let exported = if to_stdout {
        write(&mut target, &args, standard_output(&format)?, &job)
    } else if format == "raw" {
        to_file(&mut target, &args, &job)
    } else {
        to_format(&mut target, &args, &format, &job)
    };
    let exported = exported.map_err(|failure| named(failure, &args))?;
    // The standard output is the image.
    if to_stdout { Ok(()) } else { print(global.json, &exported, |exported| human(exported, &args)) }
}

fn human(exported: &ExportView, args: &ExportArgs) -> String {
    let (size, written) = (ByteSize(exported.size), ByteSize(exported.bytes_written));
    let (name, image) = (&exported.name, args.image.display());
    if args.is_stream() {
        format!("exported {name} to {image}: a stream with {written} of data")
    } else {
        format!("exported {name} to {image}: {size}, of which {written} are data")
    }
}

fn named(mut failure: Failure, args: &ExportArgs) -> Failure {
    if failure.kind == FailureKind::Cancelled {
        failure.message = format!("interrupted: volume {} was not exported", args.name);
    } else if !failure.message.contains(args.name.as_str()) {
        failure.message = format!("cannot export {} to {}: {}", args.name, args.image.display(), failure.message);
    }
    failure
}

fn write(target: &mut Target, args: &ExportArgs, file: File, job: &Arc<Job>) -> Result<ExportView, Failure> {
    let _bar = Bar::show(job, Counted::Bytes, "exporting");
    let name = args.name.to_string();
    if !args.is_stream() {
        return target.call(Method::Export, &NameParams { name }, Some(file), job);
    }
    let from = args.from.as_ref().map(VolumeName::to_string);
    let params = ExportStreamParams { name, from, resume: args.resume.clone() };
    target.call(Method::ExportStream, &params, Some(file), job)
}

fn to_file(target: &mut Target, args: &ExportArgs, job: &Arc<Job>) -> Result<ExportView, Failure> {
    let result = ResultFile::prepare(&args.image, args.force)?;
    let exported = write(target, args, result.file()?, job)?;
    result.keep()?;
    Ok(exported)
}

/// By way of a raw file beside the image.
fn to_format(target: &mut Target, args: &ExportArgs, format: &str, job: &Arc<Job>) -> Result<ExportView, Failure> {
    let result = ResultFile::prepare(&args.image, args.force)?;
    let directory = args.image.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let raw = image::temporary_near(directory)?;
    let reopened = raw.reopen().map_err(|error| Failure::from_error(FailureKind::Failed, &error))?;
    let exported = write(target, args, reopened, job)?;
    {
        let _bar = Bar::show(job, Counted::Bytes, "converting");
        image::from_raw(raw.path(), result.path(), format, job)?;
    }
    result.keep()?;
    Ok(exported)
}

fn standard_output(format: &str) -> Result<File, Failure> {
    if format != "raw" {
        return Err(Failure::new(FailureKind::Usage, "only raw images can be written to the standard output"));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::new(FailureKind::Usage, "the standard output is a terminal: name a file"));
    }
    let copy = io::stdout().as_fd().try_clone_to_owned();
    copy.map(File::from)
        .map_err(|error| Failure::because(FailureKind::Failed, "cannot use the standard output", &error))
}
