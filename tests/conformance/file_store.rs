//! What only the file driver can get wrong: its directory, its leftovers, its descriptors, its lock between processes.

use crate::subject::{Subject, buffer, data, directory, header, name, read, volume};
use archvhost::store::io::block_on;
use archvhost::store::open::{IfMissing, StoreOptions, open};
use archvhost::store::{
    Channel, Durability, ListScope, LockMode, Op, Persistence, PublishMode, Space, Store, StoreError, StoreErrorKind,
    Token, WHOLE_STORE,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: u64 = 1 << 20;

fn open_at(path: &Path, if_missing: IfMissing) -> Result<Arc<dyn Store>, StoreError> {
    open(&format!("file:{}", path.display()), &StoreOptions { if_missing, ..StoreOptions::default() })
}

fn refused(path: &Path, if_missing: IfMissing, kind: StoreErrorKind, says: &str) {
    let error = open_at(path, if_missing).err().unwrap();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(says) && text.contains(&path.display().to_string()), "{text}");
}

#[test]
fn a_store_is_made_where_there_is_nothing_and_only_if_wanted() {
    let top = directory();
    let new = top.path().join("new");
    refused(&new, IfMissing::Refuse, StoreErrorKind::NotFound, "no such directory");
    assert!(!new.exists());
    drop(open_at(&new, IfMissing::Create).unwrap());
    drop(open_at(&new, IfMissing::Refuse).unwrap());
    let empty = top.path().join("empty");
    fs::create_dir_all(empty.join("lost+found")).unwrap();
    refused(&empty, IfMissing::Refuse, StoreErrorKind::NotFound, "is empty");
    drop(open_at(&empty, IfMissing::Create).unwrap());
    refused(&top.path().join("a/b"), IfMissing::Create, StoreErrorKind::NotFound, "should be made in");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let top = directory();
    fs::write(top.path().join("letter"), "dear").unwrap();
    refused(top.path(), IfMissing::Create, StoreErrorKind::Unsupported, "other files");
    refused(&top.path().join("letter"), IfMissing::Create, StoreErrorKind::Unsupported, "not a directory");
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    let later = top.path().join("later");
    fs::create_dir(&later).unwrap();
    fs::write(later.join("archvhost-store"), "archvhost store, layout version 2\n").unwrap();
    refused(&later, IfMissing::Create, StoreErrorKind::Unsupported, "another version");
    assert_eq!(fs::read_dir(&later).unwrap().count(), 1);
}

#[test]
fn leftovers_of_dead_publishers_are_not_listed_and_go_when_the_volume_is_locked() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    let published = block_on(&store, None, |io| async move {
        io.publish(header(volume(1), 1), b"root", PublishMode::Exclusive).await?;
        io.publish(name("web"), b"id", PublishMode::Exclusive).await
    });
    published.unwrap();
    let names = top.path().join("names");
    let metadata = top.path().join("volumes").join(volume(1).to_string());
    let leftovers = [names.join(".new.1"), metadata.join(".new.2")];
    leftovers.iter().for_each(|path| fs::write(path, "half").unwrap());
    let alive = fs::File::create(metadata.join(".new.3")).unwrap();
    alive.lock().unwrap();
    let listed = block_on(&store, None, |io| async move {
        let metadata = io.list(ListScope::Metadata(volume(1)), None, 10).await?;
        Ok::<_, StoreError>((io.list(ListScope::Names, None, 10).await?, metadata))
    });
    assert_eq!(listed.unwrap(), (vec![name("web")], vec![header(volume(1), 1)]));
    let _lease = store.lock(volume(1), LockMode::Exclusive, b"me").unwrap();
    assert!(leftovers.iter().all(|path| !path.exists()));
    assert!(metadata.join(".new.3").exists(), "its writer lives and holds its lock");
}

#[test]
fn the_last_header_takes_the_volumes_directories_with_it() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    let lease = store.lock(volume(1), LockMode::Exclusive, b"me").unwrap();
    let done = block_on(&store, Some(&lease), |io| async move {
        io.publish(header(volume(1), 1), b"root", PublishMode::Exclusive).await?;
        io.create(data(5000), 0, buffer(1, 512), BLOCK).await?;
        io.remove(data(5000)).await?;
        io.remove(header(volume(1), 1)).await
    });
    done.unwrap();
    let left = |kind| fs::read_dir(top.path().join(kind)).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left("data").count(), 0);
    assert_eq!(
        left("volumes").collect::<Vec<_>>(),
        [WHOLE_STORE.to_string().as_str()],
        "it keeps the lock of the whole store"
    );
    let _again = store.lock(volume(1), LockMode::Exclusive, b"somebody else").unwrap();
}

#[test]
fn an_opening_mends_the_reserve() {
    let top = directory();
    let piece = |number: usize| top.path().join(format!("reserve/{number}"));
    drop(open_at(top.path(), IfMissing::Create).unwrap());
    fs::remove_file(piece(0)).unwrap();
    // What a power cut leaves of a file that was never synced.
    fs::write(piece(1), "").unwrap();
    drop(open_at(top.path(), IfMissing::Refuse).unwrap());
    assert!((0..16).all(|number| fs::metadata(piece(number)).unwrap().len() == 4096));
    assert_eq!(fs::read_dir(top.path().join("reserve")).unwrap().count(), 16);
}

/// Rule P1 is used on these; elsewhere every write needs its object's own sync.
fn has_cheap_overwrites(path: &Path) -> bool {
    const EXT4: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    let kind = rustix::fs::statfs(path).unwrap().f_type;
    matches!(kind, EXT4 | XFS)
}

#[test]
fn p1_only_an_overwrite_of_synced_written_space_is_left_to_a_device_flush() {
    let subject = Subject::file(&StoreOptions::default());
    if !has_cheap_overwrites(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        eprintln!("skipped: {} is neither on ext4 nor on XFS", env!("CARGO_TARGET_TMPDIR"));
        return;
    }
    subject.run(|io| async move {
        let write = async |offset: u64| io.write(data(1), offset, buffer(2, 4096), Durability::Cached).await;
        let created = io.create(data(1), 0, buffer(1, 65536), BLOCK).await?;
        assert_eq!(created, Persistence::Object);
        assert_eq!(write(0).await?, Persistence::Object, "the extents are not durable yet");
        io.sync(vec![data(1)]).await?;
        assert_eq!(write(0).await?, Persistence::Device);
        assert_eq!(write(61440).await?, Persistence::Device);
        assert_eq!(write(65536).await?, Persistence::Object, "it grows the file");
        assert_eq!(io.zero(data(1), 8192, 4096, Space::Free).await?, Persistence::Object);
        assert_eq!(write(0).await?, Persistence::Object, "nothing is known after a hole was punched");
        io.sync(vec![data(1)]).await?;
        assert_eq!(write(4096).await?, Persistence::Device, "before the hole");
        assert_eq!(write(8192).await?, Persistence::Object, "it fills the hole");
        io.sync(vec![data(1)]).await?;
        assert_eq!(write(16384).await?, Persistence::Device);
        io.zero(data(1), 0, 4096, Space::Keep).await?;
        io.sync(vec![data(1)]).await?;
        assert_eq!(write(0).await?, Persistence::Object, "its extent is allocated but unwritten");
        Ok(())
    });
}

#[test]
fn a_removed_objects_space_is_given_back_while_other_channels_had_it_open() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    let mut idle = store.channel(None).unwrap();
    let created = block_on(&store, None, |io| async move { io.create(data(1), 0, buffer(1, 4096), BLOCK).await });
    created.unwrap();
    for token in 0..20 {
        idle.submit(Token(token), Op::Read { object: data(1), offset: 0, buffer: buffer(0, 4096) });
        finish(idle.as_mut());
    }
    assert!(holds_open(top.path()), "else this test shows nothing");
    block_on(&store, None, |io| async move { io.remove(data(1)).await }).unwrap();
    let start = Instant::now();
    while deleted_open(top.path()) {
        assert!(start.elapsed() < Duration::from_secs(10), "the file is still open");
        idle.wait(Some(Duration::from_millis(20)));
        idle.reap(&mut Vec::new());
    }
}

fn finish(channel: &mut dyn Channel) {
    let mut done = Vec::new();
    while channel.in_flight() != 0 {
        channel.wait(None);
        channel.reap(&mut done);
    }
    done.into_iter().for_each(|completion| drop(completion.result.unwrap()));
}

/// This process's open files below a directory's `data`.
fn open_data(top: &Path) -> Vec<String> {
    let data = top.join("data").display().to_string();
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).filter(|link| link.starts_with(&data)).collect()
}

fn holds_open(top: &Path) -> bool {
    !open_data(top).is_empty()
}

fn deleted_open(top: &Path) -> bool {
    open_data(top).iter().any(|link| link.ends_with("(deleted)"))
}

#[test]
fn two_opens_of_one_store_see_each_others_objects_and_locks() {
    let top = directory();
    let stores = [(); 2].map(|()| open_at(top.path(), IfMissing::Create).unwrap());
    let created = block_on(&stores[0], None, |io| async move { io.create(data(1), 0, buffer(1, 4096), BLOCK).await });
    created.unwrap();
    let seen = block_on(&stores[1], None, |io| async move { read(&io, data(1), 0, 4096).await }).unwrap();
    assert_eq!(seen, crate::subject::pattern(1, 4096));
    let lease = stores[0].lock(volume(1), LockMode::Exclusive, b"first").unwrap();
    assert_eq!(stores[1].lock(volume(1), LockMode::Exclusive, b"second").err().unwrap().kind(), StoreErrorKind::Held);
    assert_eq!(stores[1].holder(volume(1)).unwrap().as_deref(), Some(&b"first"[..]));
    let channel = stores[0].channel(Some(&lease)).unwrap();
    drop(lease);
    let held = stores[1].lock(volume(1), LockMode::Exclusive, b"second").err();
    assert_eq!(held.unwrap().kind(), StoreErrorKind::Held, "a channel that may still write keeps the lock");
    drop(channel);
    stores[1].lock(volume(1), LockMode::Exclusive, b"second").unwrap();
}

/// The directory that [`another_process_holds_the_lock`] shall lock a volume in.
const HOLD: &str = "ARCHVHOST_TEST_HOLD";

/// Not a test by itself: what the child of the next one runs. Without its variable it has nothing to do.
#[test]
fn another_process_holds_the_lock() {
    let Some(path) = std::env::var_os(HOLD) else { return };
    let store = open_at(Path::new(&path), IfMissing::Refuse).unwrap();
    let lease = store.lock(volume(1), LockMode::Exclusive, b"the child").unwrap();
    let mut channel = store.channel(Some(&lease)).unwrap();
    println!("\nheld");
    channel.wait(Some(Duration::from_secs(60)));
}

#[test]
fn a_killed_holders_lock_is_free_and_its_record_remains() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    let mut child = hold(top.path());
    let held = store.lock(volume(1), LockMode::Exclusive, b"me").err().map(|error| error.kind());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(held, Some(StoreErrorKind::Held));
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"the child"[..]));
    let _lease = store.lock(volume(1), LockMode::Exclusive, b"me").unwrap();
}

/// A child that holds the lock of volume 1 for as long as it lives.
fn hold(top: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file_store::another_process_holds_the_lock", "--nocapture"])
        .env(HOLD, top)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"), "the child failed");
    child
}

#[test]
fn of_processes_that_race_for_a_lock_one_has_it_at_a_time() {
    let top = directory();
    open_at(top.path(), IfMissing::Create).unwrap();
    let inside = AtomicUsize::new(0);
    let race = |number: usize| {
        let store = open_at(top.path(), IfMissing::Refuse).unwrap();
        let mut had = 0;
        while had < 20 {
            let record = format!("racer {number}, round {had}");
            let Ok(lease) = store.lock(volume(1), LockMode::Exclusive, record.as_bytes()) else { continue };
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(record.as_bytes()));
            store.confirm(&lease).unwrap();
            inside.fetch_sub(1, Ordering::SeqCst);
            had += 1;
        }
    };
    thread::scope(|scope| drop((0..4).map(|number| scope.spawn(move || race(number))).collect::<Vec<_>>()));
    let left: Vec<_> = fs::read_dir(top.path().join("volumes").join(volume(1).to_string())).unwrap().collect();
    assert_eq!(left.len(), 1, "one lock file and nothing else: {left:?}");
}

#[test]
fn of_racing_seizures_one_succeeds() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    let mut record = b"the first".to_vec();
    let mut lease = store.lock(volume(1), LockMode::Exclusive, &record).unwrap();
    for round in 0..20 {
        let (from, barrier) = (&record, Barrier::new(4));
        let seize = |number: usize| {
            let store = open_at(top.path(), IfMissing::Refuse).unwrap();
            barrier.wait();
            let holder = format!("round {round}, number {number}").into_bytes();
            store.seize(volume(1), Some(from), &holder).ok().map(|seized| (holder, seized.lease))
        };
        let seize = &seize;
        let winners: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || seize(number))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let [(holder, winner)] = <[_; 1]>::try_from(winners).map_err(|winners| winners.len()).unwrap();
        assert_eq!(store.confirm(&lease).unwrap_err().kind(), StoreErrorKind::Lost);
        store.confirm(&winner).unwrap();
        (record, lease) = (holder, winner);
    }
}

#[test]
fn what_a_dead_process_left_of_a_lock_file_goes_when_the_volume_is_locked() {
    let top = directory();
    let store = open_at(top.path(), IfMissing::Create).unwrap();
    drop(store.lock(volume(1), LockMode::Exclusive, b"first").unwrap());
    let metadata = top.path().join("volumes").join(volume(1).to_string());
    fs::write(metadata.join("lease.new.1"), "half").unwrap();
    let _lease = store.lock(volume(1), LockMode::Exclusive, b"second").unwrap();
    let left: Vec<_> = fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lease.3"]);
}
