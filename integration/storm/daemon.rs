//! The daemon as a process that the storm starts, asks and kills, and the store it serves.

use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(30);
/// One verb, on a busy machine.
const VERB_MAX: Duration = Duration::from_secs(120);

/// The id under which the lock of collections is.
const COLLECTORS: &str = "ffffffffffffffffffffffffffffffff";

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) program: PathBuf,
    /// Empty at first; the store is made in it, if it is not elsewhere.
    pub(crate) dir: PathBuf,
    /// The URL of a store elsewhere.
    pub(crate) store: Option<String>,
    /// On a memory file system.
    pub(crate) soft_journals: PathBuf,
}

impl Place {
    fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn store(&self) -> String {
        self.store.clone().unwrap_or_else(|| format!("file:{}", self.store_dir().display()))
    }

    pub(crate) fn socket(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number}.sock"))
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Runs one verb through the daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--control").arg(self.control()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The verb's standard output, or what it said when it failed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let child = self.command(arguments).spawn().map_err(|error| error.to_string())?;
        finish(child, arguments)
    }

    pub(crate) fn run_json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.run(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| format!("{arguments:?}: {error}: {text}"))
    }

    /// Files in the directory's store that belong to volumes. A daemon that is killed before a new volume's first header has its name leaves a
    /// directory with the header's temporary file and the lock; nothing names it, and collections do not know it.
    pub(crate) fn files_of_volumes(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for part in ["data", "volumes", "names", "content"] {
            walk(&self.store_dir().join(part), &mut files)?;
        }
        // Collections take turns by a lock that is no volume's.
        files.retain(|file| !file.components().any(|part| part.as_os_str() == COLLECTORS));
        let is_begun = |file: &PathBuf| {
            file.file_name()
                .is_some_and(|name| [".new.", "lease."].iter().any(|start| name.to_string_lossy().starts_with(start)))
        };
        let whole: Vec<PathBuf> =
            files.iter().filter(|file| !is_begun(file)).filter_map(|file| file.parent().map(Path::to_owned)).collect();
        files.retain(|file| !is_begun(file) || file.parent().is_some_and(|dir| whole.iter().any(|other| other == dir)));
        Ok(files)
    }
}

/// Waits for a verb.
pub(crate) fn finish(child: Child, arguments: &[&str]) -> Result<String, String> {
    let started = Instant::now();
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if started.elapsed() > VERB_MAX {
        return Err(format!("{arguments:?} took {:?}", started.elapsed()));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let said = [text(&output.stdout), text(&output.stderr)].concat();
            Err(format!("{arguments:?}: {}: {}", output.status, said.trim_end()))
        }
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    pub(crate) fn start(place: &Place) -> io::Result<Self> {
        fs::create_dir_all(place.store_dir())?;
        let log = File::options().create(true).append(true).open(place.dir.join("daemon.log"))?;
        let mut command = Command::new(&place.program);
        command.arg("--store").arg(place.store());
        command.arg("--soft-journal-dir").arg(&place.soft_journals);
        command.arg("--control").arg(place.control()).arg("serve");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut daemon = Self { child: command.spawn()? };
        daemon.wait_until_it_answers(place)?;
        Ok(daemon)
    }

    fn wait_until_it_answers(&mut self, place: &Place) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while place.run(&["status"]).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the daemon ended at its start: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the daemon does not answer"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM; whether it ended in order.
    pub(crate) fn stop(&mut self) -> io::Result<bool> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
