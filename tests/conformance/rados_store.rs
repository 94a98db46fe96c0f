//! What only the RADOS driver can get wrong: its pools, its indexes, its seals, a cluster that is full.

use crate::cluster::{self, Cluster, DATA_POOL, POOL, User};
use crate::subject::{buffer, data, data_of, header, journal, name, pattern, read, segment, volume};
use archvhost::store::io::block_on;
use archvhost::store::open::{IfMissing, StoreOptions, open};
use archvhost::store::rados::RadosOptions;
use archvhost::store::{
    Buffer, Durability, ListScope, LockMode, ObjectName, Op, PublishMode, Space, Store, StoreError, StoreErrorKind,
    Token,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: u64 = 1 << 20;

/// Blocks that share an index object.
const SHARD: u64 = 1 << 15;

fn options(cluster: &Cluster, user: User) -> StoreOptions {
    let (conf, user) = (Some(cluster.conf.clone()), Some(user.id().to_owned()));
    StoreOptions { rados: RadosOptions { conf, user, ..RadosOptions::default() }, ..StoreOptions::default() }
}

fn with_data_pool(mut options: StoreOptions, pool: &str) -> StoreOptions {
    options.rados.data_pool = Some(pool.to_owned());
    options
}

fn opened(cluster: &Cluster, namespace: &str) -> Arc<dyn Store> {
    open(&cluster.url(namespace), &options(cluster, User::Archvhost)).unwrap()
}

fn refused(url: &str, options: &StoreOptions, kind: StoreErrorKind, says: &str) {
    let error = open(url, options).err().unwrap();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {cause}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(says), "{text}");
}

/// The objects of a namespace, in a pool.
fn objects(cluster: &Cluster, pool: &str, namespace: &str) -> Vec<String> {
    let listed = cluster.rados(namespace, &["-p", pool, "ls"]);
    let mut objects: Vec<_> = listed.lines().map(str::to_owned).collect();
    objects.sort_unstable();
    objects
}

fn of_an_empty_store() -> Vec<String> {
    let volumes = (0..16).map(|digit| format!("archvhost-volumes.{digit:x}"));
    ["archvhost-names", "archvhost-store"].map(str::to_owned).into_iter().chain(volumes).collect()
}

#[test]
fn a_store_is_made_only_in_a_pool_and_only_if_wanted() {
    let Some(cluster) = cluster::shared() else { return };
    let options = options(cluster, User::Archvhost);
    let looking = StoreOptions { if_missing: IfMissing::Refuse, ..options.clone() };
    refused("rados:no-such-pool", &options, StoreErrorKind::NotFound, "there is no such pool");
    let namespace = cluster::namespace();
    let url = cluster.url(&namespace);
    refused(&url, &looking, StoreErrorKind::NotFound, "nothing was ever stored there");
    refused(&url, &with_data_pool(options.clone(), "nowhere"), StoreErrorKind::NotFound, "no data pool nowhere");
    assert!(objects(cluster, POOL, &namespace).is_empty());
    drop(open(&url, &options).unwrap());
    drop(open(&url, &looking).unwrap());
    assert_eq!(objects(cluster, POOL, &namespace), of_an_empty_store());
}

#[test]
fn who_may_not_use_the_pool_is_told_so() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.url(&cluster::namespace());
    refused(&url, &options(cluster, User::Stranger), StoreErrorKind::NotWritable, POOL);
    let mut nobody = options(cluster, User::Archvhost);
    nobody.rados.user = Some("nobody".to_owned());
    refused(&url, &nobody, StoreErrorKind::NotWritable, "client.nobody");
    let mut elsewhere = options(cluster, User::Archvhost);
    elsewhere.rados.conf = Some("/no/such/ceph.conf".into());
    refused(&url, &elsewhere, StoreErrorKind::NotFound, "/no/such/ceph.conf");
}

#[test]
fn the_data_pool_is_chosen_once() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let url = cluster.url(&namespace);
    let options = options(cluster, User::Archvhost);
    drop(open(&url, &with_data_pool(options.clone(), DATA_POOL)).unwrap());
    refused(&url, &with_data_pool(options.clone(), POOL), StoreErrorKind::Unsupported, "its data is in pool");
    let store = open(&url, &options).unwrap();
    block_on(&store, None, |io| async move { io.create(data(1), 0, buffer(1, 512), BLOCK).await }).unwrap();
    assert_eq!(objects(cluster, DATA_POOL, &namespace).len(), 1);
    assert!(!objects(cluster, POOL, &namespace).iter().any(|object| object.contains(".d.")));
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let directory = crate::subject::directory();
    let file = directory.path().join("store");
    std::fs::write(&file, "archvhost store, layout version 2\ndata pool: archvhost\n").unwrap();
    cluster.rados(&namespace, &["put", "archvhost-store", file.to_str().unwrap()]);
    let options = options(cluster, User::Archvhost);
    refused(&cluster.url(&namespace), &options, StoreErrorKind::Unsupported, "another version");
    assert_eq!(objects(cluster, POOL, &namespace), ["archvhost-store"]);
}

#[test]
fn a_removed_volume_leaves_no_object() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let store = opened(cluster, &namespace);
    let blocks = [1, SHARD, 5 * SHARD + 7];
    let done = block_on(&store, None, |io| async move {
        let metadata = [header(volume(1), 1), journal(volume(1), 1, 0), segment(volume(1), 1, 0)];
        for object in metadata.iter().cloned() {
            io.publish(object, b"x", PublishMode::Exclusive).await?;
        }
        for block in blocks {
            io.create(data(block), 0, buffer(1, 512), BLOCK).await?;
        }
        for object in blocks.map(data).into_iter().chain(metadata.into_iter().rev()) {
            io.remove(object).await?;
        }
        io.list(ListScope::Volumes, None, 10).await
    });
    assert!(done.unwrap().is_empty());
    assert_eq!(objects(cluster, POOL, &namespace), of_an_empty_store());
}

#[test]
fn a_header_without_its_object_is_not_listed() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let store = opened(cluster, &namespace);
    let publish = |generation| {
        block_on(&store, None, |io| async move {
            io.publish(header(volume(1), generation), b"x", PublishMode::Exclusive).await
        })
    };
    let list = |scope| block_on(&store, None, |io| async move { io.list(scope, None, 10).await }).unwrap();
    // What a process leaves that died before it had published.
    let entry = format!("{}.{:016x}", volume(1), 2);
    cluster.rados(&namespace, &["setomapval", "archvhost-volumes.0", &entry, ""]);
    assert!(list(ListScope::Volumes).is_empty() && list(ListScope::Metadata(volume(1))).is_empty());
    publish(1).unwrap();
    assert_eq!(list(ListScope::Volumes), [header(volume(1), 1)]);
    assert_eq!(list(ListScope::Metadata(volume(1))), [header(volume(1), 1)]);
    publish(2).unwrap();
    assert_eq!(list(ListScope::Metadata(volume(1))), [header(volume(1), 1), header(volume(1), 2)]);
}

#[test]
fn many_objects_in_many_shards_are_listed_once_and_in_order() {
    const COUNT: u64 = 3000;
    let Some(cluster) = cluster::shared() else { return };
    let store = opened(cluster, &cluster::namespace());
    // Scattered over four epochs and five shards.
    let object = |number: u64| data_of(volume(1), number % 4 + 1, number * 7919 % COUNT * (5 * SHARD / COUNT));
    let mut channel = store.channel(None).unwrap();
    for number in 0..COUNT {
        let op = Op::Create { object: object(number), offset: 0, buffer: Buffer::zeroed(0), size: BLOCK };
        channel.submit(Token(number), op);
    }
    let mut done = Vec::new();
    while channel.in_flight() != 0 {
        channel.wait(None);
        channel.reap(&mut done);
    }
    assert!(done.iter().all(|completion| completion.result.is_ok()));
    let mut expected: Vec<_> = (0..COUNT).map(object).collect();
    expected.sort_unstable();
    for limit in [700, 5000] {
        let listed = block_on(&store, None, |io| async move {
            let mut listed: Vec<ObjectName> = Vec::new();
            loop {
                let page = io.list(ListScope::Data(volume(1)), listed.last().cloned(), limit).await?;
                let last = page.len() < limit;
                listed.extend(page);
                if last {
                    return Ok::<_, StoreError>(listed);
                }
            }
        });
        assert_eq!(listed.unwrap(), expected, "in pages of {limit}");
    }
}

#[test]
fn a_name_that_is_given_up_and_taken_at_the_same_time_is_never_lost() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let taker = |store: Arc<dyn Store>| {
        for _ in 0..30 {
            let _one_of_both = block_on(&store, None, |io| async move {
                io.remove(name("web")).await?;
                io.publish(name("web"), b"x", PublishMode::Exclusive).await
            });
        }
    };
    let takers =
        [opened(cluster, &namespace), opened(cluster, &namespace)].map(|store| thread::spawn(move || taker(store)));
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    let (listed, there) = block_on(&opened(cluster, &namespace), None, |io| async move {
        let there = io.read_all(name("web")).await.is_ok();
        Ok::<_, StoreError>((io.list(ListScope::Names, None, 10).await?, there))
    })
    .unwrap();
    assert_eq!(listed == [name("web")], there);
    assert!(there, "whoever came last has taken it");
}

#[test]
fn c16_a_journal_takes_nothing_from_a_holder_that_was_cut_off() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.url(&cluster::namespace());
    // Who may not blocklist: the seal is all there is.
    let open_one = || open(&url, &options(cluster, User::Unfencing)).unwrap();
    let (old, new) = (open_one(), open_one());
    let lease = old.lock(volume(1), LockMode::Exclusive, b"old").unwrap();
    let append = |offset: u64| {
        block_on(&old, Some(&lease), |io| async move {
            io.write(journal(volume(1), 1, 0), offset, buffer(7, 512), Durability::Durable).await
        })
    };
    let made = block_on(&old, Some(&lease), |io| async move {
        io.publish(journal(volume(1), 1, 0), &[0; 4096], PublishMode::Exclusive).await
    });
    made.unwrap();
    append(0).unwrap();
    let _seized = new.seize(volume(1), Some(b"old"), b"new").unwrap();
    assert_eq!(append(512).unwrap_err().kind(), StoreErrorKind::Lost);
    let seen = block_on(&new, None, |io| async move { read(&io, journal(volume(1), 1, 0), 0, 1024).await }).unwrap();
    assert_eq!((&seen[..512], &seen[512..]), (&pattern(7, 512)[..], &[0; 512][..]));
}

#[test]
fn a_lock_that_is_taken_while_unused_ones_are_removed_is_had_and_listed() {
    const COUNT: u8 = 60;
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let (taker, tidier) = (opened(cluster, &namespace), opened(cluster, &namespace));
    let done = Arc::new(AtomicBool::new(false));
    let tidying = thread::spawn({
        let done = Arc::clone(&done);
        move || {
            while !done.load(Ordering::Relaxed) {
                tidier.tidy().unwrap();
            }
        }
    });
    let take = |number: u8| {
        let mode = if number.is_multiple_of(2) { LockMode::Shared } else { LockMode::Exclusive };
        let lease = taker.lock(volume(number), mode, b"me").unwrap();
        taker.confirm(&lease).unwrap();
        lease
    };
    let leases: Vec<_> = (0..COUNT).map(take).collect();
    leases.iter().for_each(|lease| taker.confirm(lease).unwrap());
    done.store(true, Ordering::Relaxed);
    tidying.join().unwrap();
    let all = objects(cluster, POOL, &namespace);
    let indexes = all.iter().filter(|object| object.starts_with("archvhost-locks."));
    let listed: String = indexes.map(|index| cluster.rados(&namespace, &["listomapkeys", index])).collect();
    let locks: Vec<_> = all.iter().filter_map(|object| object.strip_suffix(".lock")).collect();
    assert_eq!(locks.len(), usize::from(COUNT));
    assert!(locks.iter().all(|lock| listed.contains(lock)), "{locks:?} {listed}");
}

/// What the guest may still do is what takes no space.
#[test]
fn a_full_cluster_says_so_and_takes_what_needs_no_space() {
    let Some(cluster) = cluster::own() else { return };
    let namespace = cluster::namespace();
    let store = opened(&cluster, &namespace);
    let run =
        |op: Op| block_on(&store, None, |io| async move { Ok::<_, StoreError>(io.run(op).await.result) }).unwrap();
    let create = |block| Op::Create { object: data(block), offset: 0, buffer: buffer(1, 65536), size: BLOCK };
    let overwrite =
        || Op::Write { object: data(1), offset: 0, buffer: buffer(2, 4096), durability: Durability::Cached };
    run(create(1)).unwrap();
    run(create(2)).unwrap();
    for (ratio, value) in [("nearfull", "0.00001"), ("backfillfull", "0.00002"), ("full", "0.00003")] {
        cluster.ceph(&["osd", &format!("set-{ratio}-ratio"), value]);
    }
    // The cluster looks every few seconds.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !cluster.ceph(&["health", "detail"]).contains("OSD_FULL") {
        assert!(Instant::now() < deadline, "the cluster does not see that it is full");
        thread::sleep(Duration::from_millis(200));
    }
    let full = (10..500).map(|block| run(create(block))).find_map(Result::err).expect("the cluster is full");
    assert_eq!(full.kind(), StoreErrorKind::NoSpace, "{full}");
    run(overwrite()).unwrap();
    run(Op::Zero { object: data(1), offset: 4096, len: 4096, space: Space::Free }).unwrap();
    run(Op::Read { object: data(1), offset: 0, buffer: Buffer::zeroed(4096) }).unwrap();
    run(Op::Remove { object: data(2) }).unwrap();
}

#[test]
fn more_than_librados_is_given_at_a_time_is_stored_all_the_same() {
    let Some(cluster) = cluster::shared() else { return };
    let store = opened(cluster, &cluster::namespace());
    let (count, len) = (24, 4 << 20);
    let write = |io: archvhost::store::io::Io| async move {
        let creations = (0..count).map(|block| {
            let seed = u8::try_from(block).unwrap();
            io.create(data(block), 0, buffer(seed, len), BLOCK << 2)
        });
        futures_util::future::join_all(creations).await.into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(block_on(&store, None, write).unwrap().len(), 24);
    for block in 0..count {
        let bytes = Buffer::zeroed(len);
        let got = block_on(&store, None, |io| async move { io.read(data(block), 0, bytes).await }).unwrap();
        assert!(got.to_vec() == pattern(u8::try_from(block).unwrap(), len), "block {block}");
    }
}
