//! Who is in doubt, and what becomes of it.

use super::holder::doubts;
use super::*;
use crate::admin::create::{CreateRequest, create};
use crate::clock;
use crate::store::FreeLock;
use crate::store::Seized;
use crate::store::memory::MemoryStore;
use crate::store::{Channel, StoreInfo};
use crate::units::{ObjectSize, VolumeSize};

fn holder(host: &str) -> Holder {
    Holder { pid: u32::MAX, ..Holder::this_process(host, None) }
}

fn doubted(holder: &Holder, free_lock: FreeLock) -> Vec<String> {
    doubts(Some(holder), free_lock, "here").iter().map(ToString::to_string).collect()
}

#[test]
fn m12_a_process_of_this_host_and_boot_is_gone_when_it_is_seen_to_be() {
    let alive = Holder { pid: 1, started: clock::start_ticks_of(1).unwrap(), ..holder("here") };
    let text = ["process 1 on host here".to_owned()];
    assert_eq!(doubted(&alive, FreeLock::ProvesNothing), text);
    assert!(doubted(&Holder { started: alive.started + 1, ..alive.clone() }, FreeLock::ProvesNothing).is_empty());
    assert!(doubted(&holder("here"), FreeLock::ProvesNothing).is_empty());
    for other in [
        Holder { host: "there".to_owned(), ..holder("here") },
        Holder { boot: "another".to_owned(), ..holder("here") },
        Holder { pid_namespace: "pid:[1]".to_owned(), ..holder("here") },
    ] {
        assert_eq!(doubted(&other, FreeLock::ProvesNothing).len(), 1, "{other:?}");
        assert!(doubted(&other, FreeLock::ProvesTheEnd).is_empty(), "its lock is free, and only this host has locks");
    }
    assert_eq!(doubts(None, FreeLock::ProvesNothing, "here").len(), 1, "nobody knows who it was");
}

#[test]
fn a_doubt_outlives_the_process_that_found_it() {
    let first = holder("there");
    let second = holder("here").with(doubts(Some(&first), FreeLock::ProvesNothing, "here"));
    let record = Holder::decode(&second.encode()).unwrap();
    assert_eq!(doubted(&record, FreeLock::ProvesNothing), doubted(&first, FreeLock::ProvesNothing));
}

#[test]
fn a_fence_command_settles_a_doubt_if_it_succeeds() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let name = VolumeName::new("web").unwrap();
    let before = holder("here").with(vec![Doubt { host: "there".to_owned(), pid: 7, given_up: false }]);
    let settle = |command: Option<&str>| {
        let fence_command = command.map(PathBuf::from);
        super::settle(&store, &name, Some(&before), &LeaseOptions { fence_command, ..LeaseOptions::default() })
    };
    assert_eq!(settle(Some("/bin/true")).unwrap(), []);
    for command in [None, Some("/bin/false"), Some("/no/such/command")] {
        let error = settle(command).unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::Held);
        assert!(error.to_string().contains("process 7 on host there"), "{error}");
    }
}

#[test]
fn breaking_a_lock_says_whom_it_cuts_off_and_leaves_it_free() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let name = VolumeName::new("web").unwrap();
    let size = VolumeSize::new(1 << 20).unwrap();
    let request = CreateRequest { name: name.clone(), size, object_size: ObjectSize::DEFAULT };
    let id = create(&store, &request).unwrap().id;
    let options = LeaseOptions::default();
    assert_eq!(break_lock(&store, &name, &options).unwrap(), CutOff::default(), "nobody has it");
    let theirs = lock(&store, id, &name, &holder("there")).unwrap();
    let error = take(&store, id, &name, &options, None).err().unwrap();
    assert!(error.to_string().ends_with(&format!("is in use by process {} on host there", u32::MAX)), "{error}");
    let cut_off = break_lock(&store, &name, &options).unwrap();
    assert!(cut_off.held && !cut_off.fenced && !cut_off.readers);
    assert_eq!(cut_off.holders[0].host, "there");
    assert_eq!(store.confirm(&theirs).unwrap_err().kind(), StoreErrorKind::Lost);
    let ours = take(&store, id, &name, &options, None).unwrap();
    let doubts = super::holder(&store, id).unwrap().doubts;
    assert!(matches!(&doubts[..], [Doubt { given_up: true, .. }]), "{doubts:?}");
    forget_doubts(&store, &ours.lease);
    assert_eq!(super::holder(&store, id).unwrap().doubts, []);
}

/// Somebody takes each lock, and dies, just before whoever asks for it gets it.
struct Overtaken {
    inner: MemoryStore,
    by: Holder,
}

impl Store for Overtaken {
    fn info(&self) -> &StoreInfo {
        self.inner.info()
    }

    fn channel(&self, lease: Option<&Lease>) -> Result<Box<dyn Channel>, StoreError> {
        self.inner.channel(lease)
    }

    fn lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        drop(self.inner.lock(volume, mode, &self.by.encode())?);
        self.inner.lock(volume, mode, holder)
    }

    fn try_lock(&self, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
        drop(self.inner.try_lock(volume, mode, &self.by.encode())?);
        self.inner.try_lock(volume, mode, holder)
    }

    fn seize(&self, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
        self.inner.seize(volume, from, holder)
    }

    fn confirm(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.confirm(lease)
    }

    fn record(&self, lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
        self.inner.record(lease, holder)
    }

    fn holder(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.holder(volume)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
}

#[test]
fn the_predecessor_is_who_had_the_lock_last_not_who_was_seen_before_it() {
    let doubt = Doubt { host: "there".to_owned(), pid: 7, given_up: false };
    let by = Holder::this_process("here", Some(Path::new("/dev/shm/its"))).with(vec![doubt.clone()]);
    let store: Arc<dyn Store> = Arc::new(Overtaken { inner: MemoryStore::new(), by: by.clone() });
    let (id, name, options) = (VolumeId([1; 16]), VolumeName::new("web").unwrap(), LeaseOptions::default());
    let taken = take(&store, id, &name, &options, Some(Path::new("/dev/shm/ours"))).unwrap();
    assert_eq!(taken.predecessor, Some(by));
    let record = super::holder(&store, id).unwrap();
    assert_eq!(record.soft_journal_dirs, [Path::new("/dev/shm/ours"), Path::new("/dev/shm/its")]);
    assert_eq!(record.doubts, [doubt]);
}
