//! A device served on a socket, with everything below it.

use archvhost::admin::create::{CreateRequest, create};
use archvhost::device::{Device, DeviceError, DeviceOptions};
use archvhost::store::Store;
use archvhost::store::open::{StoreOptions, open};
use archvhost::units::{ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Volume};
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const VOLUME_BYTES: u64 = 64 << 20;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Served {
    pub(crate) device: Arc<Device>,
    pub(crate) volume: Arc<Volume>,
    directory: TempDir,
    socket: PathBuf,
    ends: Receiver<Result<(), DeviceError>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new(options: &DeviceOptions) -> Self {
        Self::on(&open("memory:", &StoreOptions::default()).unwrap(), options)
    }

    /// A new volume in this store.
    pub(crate) fn on(store: &Arc<dyn Store>, options: &DeviceOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let volume = new_volume(store, directory.path());
        let device = Device::new(Arc::clone(&volume), options).unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let closing = Arc::new(AtomicBool::new(false));
        let (ended, ends) = channel();
        let (served, until) = (Arc::clone(&device), Arc::clone(&closing));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let _ = ended.send(served.serve(stream.unwrap()));
            }
        });
        Self { device, volume, directory, socket, ends, closing, thread: Some(thread) }
    }

    /// Another device on the same volume, as after a stop and a new start.
    pub(crate) fn another_device(&self, options: &DeviceOptions) -> Arc<Device> {
        Device::new(Arc::clone(&self.volume), options).unwrap()
    }

    pub(crate) fn with_queues(queues: u16) -> Self {
        Self::new(&DeviceOptions { queues, ..DeviceOptions::default() })
    }

    pub(crate) fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// CPU time that the thread of queue 0 has used, from `/proc/self/task/*/schedstat`.
    pub(crate) fn queue_cpu_time(&self) -> Duration {
        let name = format!("vq0 {}\n", self.volume.name());
        let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let is_ours = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == name);
        let task = tasks.find(is_ours).unwrap();
        let schedstat = fs::read_to_string(task.join("schedstat")).unwrap();
        Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
    }

    /// How the oldest connection not yet asked for ended.
    pub(crate) fn end(&self) -> Result<(), DeviceError> {
        self.ends.recv_timeout(PATIENCE).expect("the connection ends")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        self.device.stop();
        let _ = UnixStream::connect(&self.socket);
        let joined = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(joined.is_some_and(|joined| joined.is_ok()));
            self.device.settle();
            self.volume.close().unwrap();
            assert!(self.directory.path().exists());
        }
    }
}

static VOLUMES: AtomicU32 = AtomicU32::new(0);

fn new_volume(store: &Arc<dyn Store>, directory: &Path) -> Arc<Volume> {
    // A name of its own, which is also in the names of its queues' threads.
    let name = VolumeName::new(&format!("d{}", VOLUMES.fetch_add(1, Ordering::SeqCst))).unwrap();
    let (size, object_size) = (VolumeSize::new(VOLUME_BYTES).unwrap(), ObjectSize::new(1 << 20).unwrap());
    create(store, &CreateRequest { name: name.clone(), size, object_size }).unwrap();
    let options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: directory.to_owned(),
        cache_bytes: 16 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    Volume::open(store, &name, &options).unwrap()
}

/// Waits until something holds, because another thread brings it about.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_micros(200));
    }
}
