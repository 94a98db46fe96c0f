//! A volume bears one name at any moment, whatever interrupts its renaming; the old one can be used again.

use super::*;
use crate::admin::create::{CreateRequest, create};
use crate::admin::info::{info, list};
use crate::admin::job::Job;
use crate::admin::remove::{Removal, remove};
use crate::map::format::header::VolumeKind;
use crate::store::faulty::{Action, Faults, FaultyStore, Rule};
use crate::store::memory::MemoryStore;
use crate::store::{Buffer, ListScope, Op};
use crate::units::{ByteRange, ObjectSize, VolumeSize};
use crate::volume::open::{list_all, lock_shared, read_header};
use crate::volume::{GRANULE_BYTES, Port, Request, Stability};
use std::fs;
use tempfile::TempDir;

struct Bench {
    store: Arc<dyn Store>,
    faults: Arc<Faults>,
    options: OpenOptions,
    soft: TempDir,
}

impl Bench {
    fn new() -> Self {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        let faults = store.faults();
        let soft = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        Self { store: Arc::new(store), faults, options, soft }
    }

    fn create(&self, text: &str) -> VolumeId {
        let size = VolumeSize::new(1 << 20).unwrap();
        create(&self.store, &CreateRequest { name: name(text), size, object_size: ObjectSize::DEFAULT }).unwrap().id
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), VolumeErrorKind> {
        rename(&self.store, &name(from), &name(to), &self.options).map_err(|error| error.kind())
    }

    /// The volumes that can be used, by the names that lead to them.
    fn names(&self) -> Vec<(String, VolumeId)> {
        let listed = list(&self.store).unwrap();
        listed.into_iter().filter_map(|(name, info)| Some((name.to_string(), info.ok()?.id))).collect()
    }

    fn write(&self, text: &str, byte: u8) {
        let volume = Volume::open(&self.store, &name(text), &self.options).unwrap();
        let port = Port::open(&volume).unwrap();
        let request = Request::Write {
            range: ByteRange::new(0, 4096),
            buffer: Buffer::copied_from(&[byte; 4096]),
            stability: Stability::Cached,
        };
        port.block_on(port.request(request)).unwrap();
        drop(port);
        volume.close().unwrap();
    }

    fn first_byte(&self, text: &str) -> u8 {
        let options = OpenOptions { access: Access::ReadOnly, ..self.options.clone() };
        let volume = Volume::open(&self.store, &name(text), &options).unwrap();
        let port = Port::open(&volume).unwrap();
        let request = Request::Read { range: ByteRange::new(0, 512), buffer: Buffer::zeroed(512) };
        port.block_on(port.request(request)).unwrap().unwrap().to_vec()[0]
    }

    fn publish(&self, object: ObjectName, bytes: &[u8]) {
        let publish = |io: Io| async move { io.publish(object, bytes, PublishMode::Replace).await };
        io::block_on(&self.store, None, publish).unwrap();
    }

    fn header(&self, text: &str) -> Header {
        let name = name(text);
        let reading = |io: Io| async move {
            let id = find(&io, &name).await?;
            read_header(&io, id, &name).await
        };
        io::block_on(&self.store, None, reading).unwrap().0
    }
}

fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

fn changes(op: &Op) -> bool {
    matches!(op, Op::Publish { .. } | Op::Remove { .. } | Op::Sync { .. })
}

#[test]
fn the_volume_is_found_under_its_new_name_and_the_old_one_is_free() {
    let bench = Bench::new();
    let id = bench.create("old");
    bench.write("old", 7);
    bench.rename("old", "new").unwrap();
    assert_eq!(bench.names(), [("new".to_owned(), id)]);
    assert_eq!(bench.first_byte("new"), 7);
    let other = bench.create("old");
    bench.write("old", 8);
    assert_eq!((bench.first_byte("old"), bench.first_byte("new")), (8, 7));
    assert_eq!(remove(&bench.store, &name("old"), &Job::default()).unwrap(), Removal::Finished);
    assert_eq!((bench.first_byte("new"), id == other), (7, false));
}

#[test]
fn it_goes_there_and_back_and_leaves_one_header() {
    let bench = Bench::new();
    let id = bench.create("a");
    bench.write("a", 7);
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
        bench.rename(from, to).unwrap();
    }
    assert_eq!((bench.names(), bench.first_byte("a")), (vec![("a".to_owned(), id)], 7));
    let headers = |io: Io| async move { header_generations(&io, id).await };
    assert_eq!(io::block_on(&bench.store, None, headers).unwrap().len(), 1);
}

#[test]
fn a_name_that_is_taken_is_left_alone() {
    let bench = Bench::new();
    let (id, other) = (bench.create("old"), bench.create("new"));
    assert_eq!(bench.rename("old", "new"), Err(VolumeErrorKind::Exists));
    assert_eq!(bench.rename("old", "old"), Err(VolumeErrorKind::Exists));
    assert_eq!(bench.rename("none", "more"), Err(VolumeErrorKind::NotFound));
    assert_eq!(bench.names(), [("new".to_owned(), other), ("old".to_owned(), id)]);
}

#[test]
fn a_volume_in_use_keeps_its_name_and_the_refusal_says_who_uses_it() {
    let bench = Bench::new();
    let id = bench.create("old");
    let volume = Volume::open(&bench.store, &name("old"), &bench.options).unwrap();
    let error = rename(&bench.store, &name("old"), &name("new"), &bench.options).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Held);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    volume.close().unwrap();
    drop(volume);
    let reader = lock_shared(&bench.store, id, &name("old")).unwrap();
    assert_eq!(bench.rename("old", "new"), Err(VolumeErrorKind::Held));
    drop(reader);
    bench.rename("old", "new").unwrap();
}

#[test]
fn a_snapshot_is_renamed_as_a_disk_is() {
    let bench = Bench::new();
    let id = bench.create("old");
    let header = Header { kind: VolumeKind::Snapshot, state: HeaderState::Closed, ..bench.header("old") };
    bench.publish(ObjectName::Header { volume: id, generation: header.generation }, &header.encode());
    bench.rename("old", "new").unwrap();
    let renamed = bench.header("new");
    assert_eq!(renamed, Header { generation: Generation(2), name: name("new"), ..header });
}

#[test]
fn what_a_dead_holder_had_completed_is_there_under_the_new_name() {
    let bench = Bench::new();
    bench.create("old");
    let volume = Volume::open(&bench.store, &name("old"), &bench.options).unwrap();
    let port = Port::open(&volume).unwrap();
    let buffer = Buffer::copied_from(&[7; 4096]);
    let request = Request::Write { range: ByteRange::new(0, 4096), buffer, stability: Stability::Stable };
    port.block_on(port.request(request)).unwrap();
    let (live, journals) = (bench.header("old"), copies(&bench.store, volume.id()));
    let soft = fs::read_dir(bench.soft.path()).unwrap().map(|file| file.unwrap().path());
    let soft: Vec<_> = soft.map(|path| (fs::read(&path).unwrap(), path)).collect();
    drop(port);
    volume.close().unwrap();
    drop(volume);
    // As its death would have left it.
    journals.iter().for_each(|(object, bytes)| bench.publish(object.clone(), bytes));
    soft.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    let closed = bench.header("old");
    bench.publish(ObjectName::Header { volume: live.id, generation: closed.generation }, &live.encode());
    bench.rename("old", "new").unwrap();
    assert_eq!(bench.first_byte("new"), 7);
}

/// The volume's journals, as they are now.
fn copies(store: &Arc<dyn Store>, id: VolumeId) -> Vec<(ObjectName, Vec<u8>)> {
    let copying = |io: Io| async move {
        let mut copies = Vec::new();
        for object in list_all(&io, ListScope::Metadata(id)).await? {
            if let ObjectName::Journal { .. } = object {
                copies.push((object.clone(), io.read_all(object).await?));
            }
        }
        Ok::<_, StoreError>(copies)
    };
    io::block_on(store, None, copying).unwrap()
}

#[test]
fn whichever_step_is_the_last_one_name_counts_and_the_same_command_goes_on() {
    let mut stops = 0;
    for step in 0.. {
        for action in [Action::Fail(5), Action::FailAfter(5)] {
            let bench = Bench::new();
            let id = bench.create("old");
            bench.write("old", 7);
            // From this step on nothing is changed any more, as after a crash.
            bench.faults.add(Rule::when(changes, action).after(step).times(1));
            bench.faults.add(Rule::when(changes, Action::Fail(5)).after(step));
            let result = bench.rename("old", "new");
            bench.faults.clear();
            let names = bench.names();
            assert_eq!(names.len(), 1, "step {step}, {action:?}: {names:?}");
            assert_eq!(bench.first_byte(&names[0].0), 7, "step {step}, {action:?}");
            if result.is_err() {
                stops += 1;
                let outdated = if names[0].0 == "old" { "new" } else { "old" };
                let removed = remove(&bench.store, &name(outdated), &Job::default());
                assert_eq!(removed.unwrap_err().kind(), VolumeErrorKind::NotFound, "step {step}, {action:?}");
                if names[0].0 == "old" || exists(&bench.store, "old") {
                    bench.rename("old", "new").unwrap();
                }
            }
            assert_eq!(bench.names(), [("new".to_owned(), id)], "step {step}, {action:?}");
            assert!(!exists(&bench.store, "old"), "step {step}, {action:?}");
            assert_eq!(bench.first_byte("new"), 7);
            if result.is_ok() && step > 5 {
                assert!(stops >= 6, "a rename has that many steps to stop at: {stops}");
                return;
            }
        }
    }
}

fn exists(store: &Arc<dyn Store>, text: &str) -> bool {
    let name = name(text);
    io::block_on(store, None, |io| async move { io.stat(ObjectName::Name(name)).await }).is_ok()
}

#[test]
fn a_volume_whose_header_has_a_name_of_before_is_renamed_too() {
    let bench = Bench::new();
    let id = bench.create("old");
    let header = Header { name: name("importing.old.00000000"), ..bench.header("old") };
    bench.publish(ObjectName::Header { volume: id, generation: header.generation }, &header.encode());
    assert_eq!(info(&bench.store, &name("old")).unwrap().id, id);
    bench.rename("old", "new").unwrap();
    assert_eq!((bench.names(), bench.header("new").name), (vec![("new".to_owned(), id)], name("new")));
}
