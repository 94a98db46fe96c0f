//! A host: a child process with an identity of its own that does what it is told, line by line, on a volume.
//!
//! The child is this test program, told by its environment to run [`another_host`] only.

use archvhost::admin::branch::{Opened, SnapshotRequest, snapshot};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::job::Job;
use archvhost::admin::remove::remove_as;
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, FreeLock, Lease, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeId, VolumeName, VolumeSize};
use archvhost::volume::lease::{Holder, LeaseOptions, break_lock, lock_new};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeError};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What one place holds.
pub(crate) const PLACE: u64 = 4096;

const OBJECT: u64 = 64 << 10;

const VARIABLE: &str = "ARCHVHOST_TEST_HOST";

/// Two places a block, so that some granules are copied with others and some alone.
pub(crate) const PLACES: u64 = 64;

/// A store of files with one volume, and how hosts see it.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
    soft: TempDir,
    free_lock: FreeLock,
}

impl Site {
    pub(crate) fn new(free_lock: FreeLock) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let site = Self { directory, soft: tempfile::tempdir_in("/dev/shm").unwrap(), free_lock };
        let (size, object_size) = (VolumeSize::new(PLACES * PLACE).unwrap(), ObjectSize::new(OBJECT).unwrap());
        create(&site.store(), &CreateRequest { name: name("web"), size, object_size }).unwrap();
        site
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        store(self.directory.path(), self.free_lock)
    }

    /// As a host of this test's own process.
    pub(crate) fn options(&self, host_id: &str) -> OpenOptions {
        options(self.soft.path(), host_id, Duration::from_secs(3600))
    }

    pub(crate) fn host(&self, host_id: &str) -> Host {
        self.host_that_looks(host_id, Duration::from_secs(3600))
    }

    pub(crate) fn host_that_looks(&self, host_id: &str, valid_for: Duration) -> Host {
        let parts = [
            self.directory.path().display().to_string(),
            self.soft.path().display().to_string(),
            format!("{:?}", self.free_lock),
            host_id.to_owned(),
            valid_for.as_millis().to_string(),
        ];
        Host::start(&parts.join("\n"))
    }
}

/// Ended by its drop, whatever state it is in.
pub(crate) struct Host {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Host {
    fn start(setting: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host::another_host", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, setting)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers).lines() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order without waiting for its answer.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> Result<String, String> {
        loop {
            let line = self.answers.next().expect("the host lives").unwrap();
            if let Some(answer) = line.strip_prefix("done ") {
                return Ok(answer.to_owned());
            }
            if let Some(error) = line.strip_prefix("failed ") {
                return Err(error.to_owned());
            }
        }
    }

    pub(crate) fn ask(&mut self, order: &str) -> Result<String, String> {
        self.order(order);
        self.answer()
    }

    pub(crate) fn read(&mut self, place: u64) -> u64 {
        self.ask(&format!("read {place}")).unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// As kill -9 does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

fn store(directory: &Path, free_lock: FreeLock) -> Arc<dyn Store> {
    let options = StoreOptions { free_lock: Some(free_lock), ..StoreOptions::default() };
    open(&format!("file:{}", directory.display()), &options).unwrap()
}

fn options(soft: &Path, host_id: &str, valid_for: Duration) -> OpenOptions {
    OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: soft.to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: LeaseOptions { host_id: host_id.to_owned(), fence_command: None, valid_for: Some(valid_for) },
    }
}

/// Not a test by itself: what a host runs. Without its variable it has nothing to do.
#[test]
fn another_host() {
    let Ok(setting) = std::env::var(VARIABLE) else { return };
    let parts: Vec<_> = setting.split('\n').collect();
    let [directory, soft, free_lock, host_id, valid_for] = parts[..] else { panic!("{parts:?}") };
    let free_lock = if free_lock == "ProvesTheEnd" { FreeLock::ProvesTheEnd } else { FreeLock::ProvesNothing };
    let valid_for = Duration::from_millis(valid_for.parse().unwrap());
    let mut own = Own {
        store: store(directory.as_ref(), free_lock),
        options: options(soft.as_ref(), host_id, valid_for),
        open: None,
        begun: Vec::new(),
        fence: PathBuf::from(directory).join("fence"),
    };
    // The harness has not ended its line.
    println!();
    for order in std::io::stdin().lines() {
        match own.obey(&order.unwrap()) {
            Ok(answer) => println!("done {answer}"),
            Err(error) => println!("failed {:?} {error}", error.kind()),
        }
    }
}

/// What the child has.
struct Own {
    store: Arc<dyn Store>,
    options: OpenOptions,
    open: Option<(Arc<Volume>, Port)>,
    /// Of volumes of which there is nothing else yet.
    begun: Vec<Lease>,
    fence: PathBuf,
}

impl Own {
    fn obey(&mut self, order: &str) -> Result<String, VolumeError> {
        let words: Vec<_> = order.split(' ').collect();
        let number = |word: usize| words[word].parse::<u64>().unwrap();
        match words[0] {
            "view" => {
                let options = OpenOptions { access: Access::ReadOnly, ..self.options.clone() };
                let volume = Volume::open(&self.store, &name("web"), &options)?;
                let port = Port::open(&volume)?;
                self.open = Some((volume, port));
                Ok(String::new())
            }
            "open" => {
                if self.fence.exists() {
                    self.options.lease.fence_command = Some(self.fence.clone());
                }
                let volume = Volume::open(&self.store, &name("web"), &self.options)?;
                let port = Port::open(&volume)?;
                self.open = Some((volume, port));
                Ok(String::new())
            }
            "begin" => {
                let (id, mine) = (VolumeId::random(), Holder::this_process(&self.options.lease.host_id, None));
                self.begun.push(lock_new(&self.store, id, &name("new"), &mine)?);
                Ok(id.to_string())
            }
            "close" => {
                let (volume, port) = self.open.take().unwrap();
                drop(port);
                volume.close().map(|()| String::new())
            }
            "write" => self.write(number(1), number(2)),
            "read" => self.read(number(1)),
            "flush" => self.run(Request::Flush).map(|_| String::new()),
            "remove" => {
                let removal = remove_as(&self.store, &name("web"), &self.options.lease, &Job::default())?;
                Ok(format!("{removal:?}"))
            }
            "break" => {
                let cut_off = break_lock(&self.store, &name("web"), &self.options.lease)?;
                let holders: Vec<_> = cut_off.holders.iter().map(ToString::to_string).collect();
                Ok(format!("{} (held: {}, fenced: {})", holders.join(", "), cut_off.held, cut_off.fenced))
            }
            "snapshot" => {
                let request = SnapshotRequest { volume: name("web"), name: name(words[1]) };
                let open = OwnVolume(Arc::clone(&self.open.as_ref().unwrap().0));
                snapshot(&self.store, &[request], &open, &self.options).map(|_| String::new())
            }
            other => panic!("what is {other}?"),
        }
    }

    fn run(&self, request: Request) -> Result<Option<Buffer>, VolumeError> {
        let (_, port) = self.open.as_ref().unwrap();
        // Through the queue, as a guest's requests go.
        port.submit(1, request);
        let mut done = Vec::new();
        while done.is_empty() {
            if !port.turn(&mut done) {
                port.wait(None);
            }
        }
        let done = done.pop().unwrap();
        done.result.map(|()| done.buffer)
    }

    fn write(&self, place: u64, value: u64) -> Result<String, VolumeError> {
        let buffer = Buffer::copied_from(&content(value));
        let (range, stability) = (ByteRange::new(place * PLACE, PLACE), Stability::Cached);
        self.run(Request::Write { range, buffer, stability }).map(|_| String::new())
    }

    fn read(&self, place: u64) -> Result<String, VolumeError> {
        let buffer = Buffer::zeroed(usize::try_from(PLACE).unwrap());
        let range = ByteRange::new(place * PLACE, PLACE);
        let bytes = self.run(Request::Read { range, buffer })?.unwrap().to_vec();
        Ok(value_of(&bytes).to_string())
    }
}

struct OwnVolume(Arc<Volume>);

impl Opened for OwnVolume {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        (self.0.name() == *name).then(|| Arc::clone(&self.0))
    }
}

pub(crate) fn content(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(usize::try_from(PLACE / 8).unwrap())
}

/// # Panics
/// When the place holds two values.
pub(crate) fn value_of(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, content(value), "a place holds one value");
    value
}
