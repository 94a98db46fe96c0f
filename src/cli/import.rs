//! `import`: a new volume from an image, or what a stream brings.

use super::Global;
use super::arguments::{object_size, text, volume_name, volume_size};
use super::image;
use super::interrupt::cancel_on_signal;
use super::output::print;
use super::progress::{Bar, Counted};
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Method;
use crate::control::protocol::params::ImportParams;
use crate::control::protocol::volumes::ImportView;
use crate::units::{ByteSize, ObjectSize, VolumeName, VolumeSize};
use clap::Args;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Make a new volume from an image, or take in a stream of `export`
///
/// A raw image is read from a file, a block device or the standard input; holes and zeros take no space in the volume.
/// Other formats are converted with qemu-img, where it is installed: the file's ending (.qcow2, .vmdk, .vdi, .vhd, .vhdx) or
/// --format says which; the content is never looked at to guess. If the import fails or is interrupted, the volume does
/// not exist afterwards.
///
/// A stream that `export --stream` or `export --from` wrote is recognised by its first bytes (--format raw takes it as an
/// image all the same: say so when images of guests are imported by a script). A full stream makes a new volume; one that
/// begins at an older snapshot goes into the volume that has that snapshot's content. If it is interrupted, what arrived
/// stays, and the message has the command that sends the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  archvhost --store file:/srv/volumes import web1 debian.qcow2
  zstdcat disk.img.zst | archvhost --store file:/srv/volumes import web1 - --size 20GiB
  ssh host archvhost export web1@tue - --from web1@mon | archvhost import web1-copy")]
pub struct ImportArgs {
    /// The new volume's name, or that of the volume that a stream is for
    #[arg(value_parser = volume_name())]
    name: VolumeName,
    /// The image or stream; - is the standard input
    #[arg(default_value = "-")]
    image: PathBuf,
    /// The volume's size, if it is to be larger than the image; needed when the image comes through a pipe
    #[arg(long, value_name = "SIZE", value_parser = volume_size())]
    size: Option<VolumeSize>,
    /// How large each object is [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = object_size())]
    object_size: Option<ObjectSize>,
    /// The image's format, as qemu-img calls it [default: as the file's ending says, else raw]
    #[arg(long, value_name = "FORMAT", value_parser = text())]
    format: Option<String>,
}

pub(super) fn run(global: &Global, args: ImportArgs) -> Result<(), Failure> {
    let mut target = Target::choose(global, Reach::NewContent)?;
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let source = open(&args, &job)?;
    let params = ImportParams {
        name: args.name.to_string(),
        size: args.size.map(VolumeSize::bytes),
        object_size: args.object_size.map(ObjectSize::bytes),
        raw: args.format.as_deref() == Some("raw"),
    };
    let bar = Bar::show(&job, Counted::Bytes, "importing");
    let imported: Result<ImportView, _> = target.call(Method::Import, &params, Some(source), &job);
    drop(bar);
    print(global.json, &imported.map_err(|failure| named(failure, &args))?, human)
}

fn human(imported: &ImportView) -> String {
    let (size, written) = (ByteSize(imported.volume.size), ByteSize(imported.bytes_written));
    format!("imported {}: {size}, of which {written} are data", imported.volume.name)
}

fn named(mut failure: Failure, args: &ImportArgs) -> Failure {
    if failure.kind == FailureKind::Cancelled && failure.message == "cancelled" {
        failure.message = format!("interrupted: volume {} was not made", args.name);
    } else if !failure.message.contains(args.name.as_str()) {
        failure.message = format!("cannot import {} as {}: {}", args.image.display(), args.name, failure.message);
    }
    failure
}

/// The image as a raw file.
fn open(args: &ImportArgs, job: &Arc<Job>) -> Result<File, Failure> {
    if args.image == Path::new("-") {
        return standard_input(args.format.as_deref());
    }
    let format = image::format(args.format.as_deref(), &args.image);
    let open_error = |error: io::Error| {
        let kind = if error.kind() == io::ErrorKind::NotFound { FailureKind::NotFound } else { FailureKind::Failed };
        Failure::because(kind, format!("cannot open the image {}", args.image.display()), &error)
    };
    let file = File::open(&args.image).map_err(open_error)?;
    if file.metadata().map_err(open_error)?.is_dir() {
        return Err(Failure::new(FailureKind::Usage, format!("{} is a directory, not an image", args.image.display())));
    }
    if format == "raw" {
        if args.format.is_none() {
            image::note_if_not_raw(&file, &args.image);
        }
        return Ok(file);
    }
    let bar = Bar::show(job, Counted::Bytes, "converting");
    let raw = image::to_raw(&args.image, &format, job);
    drop(bar);
    Ok(raw?.into_file())
}

fn standard_input(format: Option<&str>) -> Result<File, Failure> {
    if format.is_some_and(|format| format != "raw") {
        return Err(Failure::new(FailureKind::Usage, "only raw images can be read from the standard input"));
    }
    if io::stdin().is_terminal() {
        return Err(Failure::new(FailureKind::Usage, "the standard input is a terminal: name the image's file"));
    }
    let copy = io::stdin().as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(|error| Failure::because(FailureKind::Failed, "cannot use the standard input", &error))
}
