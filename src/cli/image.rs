//! Image files in other formats than raw, by way of `qemu-img`.
//!
//! A format is never guessed from an image's content: a guest can write anything into a raw image, also the header of a
//! qcow2 image whose backing file is a secret of the host. The user says the format, or the file's name does. For the same
//! reason an image that refers to other files is refused.

use super::output::note;
use crate::admin::job::Job;
use crate::control::failure::{Failure, FailureKind};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Endings of file names, and what `qemu-img` calls the format.
const ENDINGS: [(&str, &str); 9] = [
    ("raw", "raw"),
    ("img", "raw"),
    ("qcow2", "qcow2"),
    ("qcow", "qcow"),
    ("qed", "qed"),
    ("vdi", "vdi"),
    ("vhd", "vpc"),
    ("vhdx", "vhdx"),
    ("vmdk", "vmdk"),
];

/// First bytes of images that are probably not meant to be raw.
const MAGICS: [(&[u8], &str); 4] = [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx"), (b"QED\0", "qed")];

/// Messages of `qemu-img` that are passed on.
const MESSAGE_BYTES_MAX: u64 = 4096;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The format as `qemu-img` calls it: what the user says, or else what the name's ending says, or else raw.
pub fn format(given: Option<&str>, path: &Path) -> String {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let named = ending.and_then(|ending| ENDINGS.iter().find(|(known, _)| *known == ending));
    given.unwrap_or(named.map_or("raw", |(_, format)| format)).to_owned()
}

/// Tells when a file that is taken as raw looks like something else.
pub fn note_if_not_raw(image: &File, path: &Path) {
    let mut head = [0; 8];
    let known =
        image.read_exact_at(&mut head, 0).ok().and_then(|()| MAGICS.iter().find(|(magic, _)| head.starts_with(magic)));
    if let Some((_, format)) = known {
        let path = path.display();
        note(&format!("{path} begins like a {format} image and is taken as raw; --format {format} would convert it"));
    }
}

/// A raw copy of the image, in a file that goes when it is dropped.
///
/// # Errors
/// When there is no `qemu-img`, it cannot read the image, or the image refers to other files.
pub fn to_raw(path: &Path, format: &str, job: &Job) -> Result<NamedTempFile, Failure> {
    let source = argument(path)?;
    refuse_references(&source, path, format, job)?;
    let raw = temporary_near(&temporary_dir())?;
    let target = argument(raw.path())?;
    qemu_img(&["convert", "-f", format, "-O", "raw"], &[source, target], job)?;
    Ok(raw)
}

/// Writes a raw file as an image of the format, to `path`, which is replaced.
///
/// # Errors
/// When there is no `qemu-img`, or it cannot write the image.
pub fn from_raw(raw: &Path, path: &Path, format: &str, job: &Job) -> Result<(), Failure> {
    qemu_img(&["convert", "-f", "raw", "-O", format], &[argument(raw)?, argument(path)?], job).map(drop)
}

/// A new file for a raw image.
///
/// # Errors
/// When it cannot be made.
pub fn temporary_near(dir: &Path) -> Result<NamedTempFile, Failure> {
    let error =
        |error| Failure::because(FailureKind::Failed, format!("cannot make a file in {}", dir.display()), &error);
    tempfile::Builder::new().prefix(".archvhost-").suffix(".raw").tempfile_in(dir).map_err(error)
}

/// Raw images are large: not for a directory in memory.
fn temporary_dir() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// The prefix keeps `qemu-img` from taking a name such as `nbd:…` for something else than a file.
fn argument(path: &Path) -> Result<OsString, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::because(FailureKind::Usage, format!("{} is not a path", path.display()), &error))?;
    let mut argument = OsString::from("file:");
    argument.push(absolute);
    Ok(argument)
}

fn refuse_references(source: &OsString, path: &Path, format: &str, job: &Job) -> Result<(), Failure> {
    let report = qemu_img(&["info", "-f", format, "--output=json"], std::slice::from_ref(source), job)?;
    let info: Value = serde_json::from_slice(&report)
        .map_err(|error| Failure::because(FailureKind::Failed, "cannot understand qemu-img", &error))?;
    let details = &info["format-specific"]["data"];
    let directory = path.parent().unwrap_or(Path::new(""));
    let extents = details["extents"].as_array().into_iter().flatten().filter_map(|extent| extent["filename"].as_str());
    let foreign = extents.filter(|name| !is_beside(name, directory)).map(str::to_owned);
    let references = [&info["backing-filename"], &details["data-file"]];
    let named = references.into_iter().filter_map(Value::as_str).map(str::to_owned);
    match named.chain(foreign).next() {
        Some(reference) => {
            let text = format!(
                "{} refers to another file, {reference}: make an image that stands alone with `qemu-img convert` first",
                path.display()
            );
            Err(Failure::new(FailureKind::Failed, text))
        }
        None => Ok(()),
    }
}

/// The parts of a VMDK image lie beside it.
fn is_beside(name: &str, directory: &Path) -> bool {
    let plain = Path::new(name.strip_prefix("file:").unwrap_or(name));
    let parent = |path: &Path| std::fs::canonicalize(path.parent()?).ok();
    let directory =
        std::fs::canonicalize(if directory.as_os_str().is_empty() { Path::new(".") } else { directory }).ok();
    parent(plain).is_some() && parent(plain) == directory
}

/// Runs `qemu-img` and returns what it prints.
fn qemu_img(options: &[&str], files: &[OsString], job: &Job) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new("qemu-img");
    command.args(options).args(files).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_installed)?;
    let mut report = child.stdout.take();
    let reading = thread::spawn(move || read_all(report.as_mut()));
    let mut errors = child.stderr.take();
    let reading_errors = thread::spawn(move || read_all(errors.as_mut()));
    let status = loop {
        let failed = |error| Failure::because(FailureKind::Failed, "cannot wait for qemu-img", &error);
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if job.is_cancelled() {
            let _ = child.kill();
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let (report, errors) = (reading.join().unwrap_or_default(), reading_errors.join().unwrap_or_default());
    if job.is_cancelled() {
        return Err(Failure::new(FailureKind::Cancelled, "cancelled"));
    }
    if status.success() { Ok(report) } else { Err(qemu_img_failed(&errors)) }
}

fn read_all(pipe: Option<&mut impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What cannot be read is missing from a message, or makes the report unreadable, which is an error then.
        let _ = pipe.take(MESSAGE_BYTES_MAX * 256).read_to_end(&mut bytes);
    }
    bytes
}

fn not_installed(error: io::Error) -> Failure {
    let text = if error.kind() == io::ErrorKind::NotFound {
        "qemu-img, which converts images, is not installed (Debian: apt install qemu-utils); raw images need no conversion"
    } else {
        "cannot run qemu-img"
    };
    Failure::because(FailureKind::Failed, text, &error)
}

fn qemu_img_failed(errors: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(errors);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Failure::new(FailureKind::Failed, if line.is_empty() { "qemu-img failed".into() } else { line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_decides_then_the_name_then_raw() {
        assert_eq!(format(Some("vmdk"), Path::new("a.qcow2")), "vmdk");
        assert_eq!(format(None, Path::new("a.QCOW2")), "qcow2");
        assert_eq!(format(None, Path::new("a.vhd")), "vpc");
        assert_eq!(format(None, Path::new("a.iso")), "raw");
        assert_eq!(format(None, Path::new("/dev/vg/lv")), "raw");
    }

    #[test]
    fn parts_of_an_image_lie_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let beside = dir.path().join("x-flat.vmdk");
        assert!(is_beside(beside.to_str().unwrap(), dir.path()));
        assert!(!is_beside("/etc/shadow", dir.path()));
    }
}
