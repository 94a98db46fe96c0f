//! Tens of thousands of requests, for what grows or fills up only then. Of the map and its journals, whatever store they are in: these
//! run on the memory store only, because a cluster takes minutes for them.

use crate::bench::{Bench, OBJECT, read, run, write};
use archvhost::store::{ListScope, ObjectName, StoreError, io};
use archvhost::units::ByteRange;
use archvhost::volume::Request;
use futures_util::future::join_all;

#[test]
fn segments_do_not_grow_without_bound_under_churn() {
    let bench = Bench::with_size(1 << 40);
    let (volume, port) = bench.open();
    let offset = |n: u64| n * 1024 * OBJECT;
    for round in 0..12u8 {
        for n in 0..1000 {
            write(&port, offset(n), &[round; 512]);
        }
        if round < 11 {
            (0..1000).for_each(|n| run(&port, Request::Discard { range: ByteRange::new(offset(n), OBJECT) }));
        }
    }
    drop(port);
    volume.close().unwrap();
    let id = volume.id();
    drop(volume);
    let sizes = |io: io::Io| async move {
        let names = io.list(ListScope::Metadata(id), None, 1000).await?;
        let segments = names.into_iter().filter(|name| matches!(name, ObjectName::Segment { .. }));
        let sizes = join_all(segments.map(|name| io.stat(name))).await;
        sizes.into_iter().sum::<Result<u64, StoreError>>()
    };
    let bytes = io::block_on(&bench.store, None, sizes).unwrap();
    // The live tree is about 0.6 MiB; twice that and 4 MiB are allowed, and one checkpoint more.
    assert!(bytes < 6 << 20, "{bytes}");
    let (volume, port) = bench.open();
    for n in 0..1000 {
        assert_eq!(read(&port, offset(n), 512), vec![11; 512], "{n}");
    }
    drop(port);
    volume.close().unwrap();
}

#[test]
fn blocks_written_without_any_flush_fill_the_soft_journal_and_go_on() {
    let bench = Bench::with_size(1 << 30);
    let (volume, port) = bench.open();
    let blocks = archvhost::map::soft_journal::SLOTS * 3 / 2;
    (0..blocks).for_each(|block| write(&port, block * OBJECT, &[5; 512]));
    assert!((0..blocks).all(|block| read(&port, block * OBJECT, 512) == [5; 512]));
    drop(port);
    volume.close().unwrap();
}
