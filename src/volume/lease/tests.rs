//! Who is in doubt, and what becomes of it.

use super::holder::doubts;
use super::*;
use crate::admin::create::{CreateRequest, create};
use crate::clock;
use crate::store::Reach;
use crate::store::memory::MemoryStore;
use crate::units::{ObjectSize, VolumeSize};

fn holder(host: &str) -> Holder {
    Holder { pid: u32::MAX, ..Holder::this_process(host, None) }
}

fn doubted(holder: &Holder, reach: Reach) -> Vec<String> {
    doubts(Some(holder), reach, "here").iter().map(ToString::to_string).collect()
}

#[test]
fn m12_a_process_of_this_host_and_boot_is_gone_when_it_is_seen_to_be() {
    let alive = Holder { pid: 1, started: clock::start_ticks_of(1).unwrap(), ..holder("here") };
    let text = ["process 1 on host here".to_owned()];
    assert_eq!(doubted(&alive, Reach::ManyHosts), text);
    assert!(doubted(&Holder { started: alive.started + 1, ..alive.clone() }, Reach::ManyHosts).is_empty());
    assert!(doubted(&holder("here"), Reach::ManyHosts).is_empty());
    for other in [
        Holder { host: "there".to_owned(), ..holder("here") },
        Holder { boot: "another".to_owned(), ..holder("here") },
        Holder { pid_namespace: "pid:[1]".to_owned(), ..holder("here") },
    ] {
        assert_eq!(doubted(&other, Reach::ManyHosts).len(), 1, "{other:?}");
        assert!(doubted(&other, Reach::OneHost).is_empty(), "its lock is free, and only this host has locks");
    }
    assert_eq!(doubts(None, Reach::ManyHosts, "here").len(), 1, "nobody knows who it was");
}

#[test]
fn a_doubt_outlives_the_process_that_found_it() {
    let first = holder("there");
    let second = holder("here").with(doubts(Some(&first), Reach::ManyHosts, "here"));
    let record = Holder::decode(&second.encode()).unwrap();
    assert_eq!(doubted(&record, Reach::ManyHosts), doubted(&first, Reach::ManyHosts));
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
