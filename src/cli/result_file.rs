//! A file that a verb writes: it has its name when it is whole, and what had that name before stays until then.
//!
//! ```text
//!   regular file, or nothing yet:  .archvhost-X beside it ─ written, synced ─► renamed to the name
//!   device, pipe, socket:          written itself: there is nothing to come back to
//! ```
//! A link is followed, so that what it leads to is replaced and not the link.

use crate::control::failure::{Failure, FailureKind};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// With which a new file is made; the user's mask takes from it.
const MODE: u32 = 0o666;

pub(super) struct ResultFile {
    /// As the user wrote it.
    given: PathBuf,
    kind: Kind,
}

enum Kind {
    Beside { temporary: NamedTempFile, path: PathBuf, replaces: bool },
    InPlace(File),
}

impl ResultFile {
    /// # Errors
    /// When something is there that would be lost and `force` is not given, or nothing can be written there.
    pub(super) fn prepare(given: &Path, force: bool) -> Result<Self, Failure> {
        let failed = |error: io::Error| write_error(given, &error);
        let path = match std::fs::canonicalize(given) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => given.to_owned(),
            other => other.map_err(failed)?,
        };
        let before = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(failed)?),
        };
        let kind = before.as_ref().map(std::fs::Metadata::file_type);
        if kind.is_some_and(|kind| kind.is_file() || kind.is_block_device()) && !force {
            return Err(exists(given));
        }
        let kind = match before {
            Some(before) if !before.is_file() => {
                Kind::InPlace(OpenOptions::new().write(true).open(&path).map_err(failed)?)
            }
            before => {
                // What may not be written is not replaced either.
                before.as_ref().map(|_| OpenOptions::new().write(true).open(&path)).transpose().map_err(failed)?;
                let temporary = beside(&path).map_err(failed)?;
                if let Some(before) = &before {
                    temporary.as_file().set_permissions(before.permissions()).map_err(failed)?;
                }
                Kind::Beside { temporary, path, replaces: before.is_some() }
            }
        };
        Ok(Self { given: given.to_owned(), kind })
    }

    /// To be written, from its beginning.
    ///
    /// # Errors
    /// When descriptors are short.
    pub(super) fn file(&self) -> Result<File, Failure> {
        let file = match &self.kind {
            Kind::Beside { temporary, .. } => temporary.as_file(),
            Kind::InPlace(file) => file,
        };
        file.try_clone().map_err(|error| write_error(&self.given, &error))
    }

    /// Where another program can write it.
    pub(super) fn path(&self) -> &Path {
        match &self.kind {
            Kind::Beside { temporary, .. } => temporary.path(),
            Kind::InPlace(_) => &self.given,
        }
    }

    /// It is whole: gives it its name. Without this it goes when it is dropped.
    ///
    /// # Errors
    /// When it cannot be made durable, or another file got that name meanwhile.
    pub(super) fn keep(self) -> Result<(), Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.given),
            _ => write_error(&self.given, &error),
        };
        let Kind::Beside { temporary, path, replaces } = self.kind else { return Ok(()) };
        temporary.as_file().sync_all().map_err(failed)?;
        let kept = if replaces { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        kept.map_err(|error| failed(error.error))?;
        File::open(directory(&path)).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".archvhost-").permissions(Permissions::from_mode(MODE)).tempfile_in(directory(path))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn exists(path: &Path) -> Failure {
    Failure::new(FailureKind::Exists, format!("{} exists: --force overwrites it", path.display()))
}

fn write_error(path: &Path, error: &io::Error) -> Failure {
    let kind = if error.kind() == io::ErrorKind::NotFound { FailureKind::NotFound } else { FailureKind::Failed };
    Failure::because(kind, format!("cannot write to {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_there_stays_until_the_new_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("image"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink("image", &link).unwrap();
        assert_eq!(ResultFile::prepare(&link, false).err().unwrap().kind, FailureKind::Exists);
        let given_up = ResultFile::prepare(&link, true).unwrap();
        given_up.file().unwrap().write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"old".to_vec(), vec!["image".into(), "link".into()])
        );
        let kept = ResultFile::prepare(&link, true).unwrap();
        kept.file().unwrap().write_all(b"new").unwrap();
        kept.keep().unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"new".to_vec(), vec!["image".into(), "link".into()])
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_file_that_came_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let new = ResultFile::prepare(&path, false).unwrap();
        assert!(!path.exists());
        fs::write(&path, "another's").unwrap();
        assert_eq!(new.keep().unwrap_err().kind, FailureKind::Exists);
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"another's".to_vec(), vec!["image".into()]));
    }
}
