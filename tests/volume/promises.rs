//! What a volume promises, whatever store it is in.

use crate::bench::{Bench, OBJECT, die, read, run, write};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::info::{VolumeState, info, list};
use archvhost::admin::job::Job;
use archvhost::admin::remove::{Removal, remove};
use archvhost::store::{Buffer, ListScope, Space, io};
use archvhost::units::{ByteRange, ObjectSize, VolumeSize};
use archvhost::volume::{Access, OpenOptions, Port, Request, Stability, Volume, VolumeErrorKind};

#[test]
fn what_was_never_written_reads_as_zeros() {
    let bench = Bench::with_size(10 * OBJECT);
    let (volume, port) = bench.open();
    assert_eq!(read(&port, OBJECT - 512, 1024), vec![0; 1024]);
    assert_eq!(bench.data_objects(), 0);
    drop(port);
    volume.close().unwrap();
}

#[test]
fn what_was_written_reads_back_across_blocks_and_openings() {
    let bench = Bench::with_size(10 * OBJECT);
    let (volume, port) = bench.open();
    let bytes: Vec<u8> = (0..3 * 65536u32).map(|n| n.to_le_bytes()[1]).collect();
    write(&port, OBJECT / 2, &bytes);
    assert_eq!(read(&port, OBJECT / 2, bytes.len()), bytes);
    assert_eq!(read(&port, 0, 512), vec![0; 512]);
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let (volume, port) = bench.open();
    assert_eq!(read(&port, OBJECT / 2, bytes.len()), bytes);
    assert_eq!(bench.data_objects(), 4);
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_second_holder_is_told_who_has_the_volume() {
    let bench = Bench::with_size(OBJECT);
    let (volume, port) = bench.open();
    let error = Volume::open(&bench.store, &bench.name, &bench.options).err().unwrap();
    assert_eq!(error.kind(), VolumeErrorKind::Held);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(port);
    volume.close().unwrap();
}

#[test]
fn requests_outside_the_volume_fail_and_change_nothing() {
    let bench = Bench::with_size(OBJECT + 512);
    let (volume, port) = bench.open();
    for (offset, len) in [(OBJECT, 1024), (OBJECT + 512, 512), (u64::MAX - 511, 512), (0, 100), (100, 512)] {
        let range = ByteRange::new(offset, len);
        let buffer = Buffer::zeroed(usize::try_from(len).unwrap());
        let request = Request::Write { range, buffer, stability: Stability::Cached };
        let error = port.block_on(port.request(request)).unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::OutOfRange, "{offset} {len}");
    }
    write(&port, OBJECT, &[7; 512]);
    assert_eq!(bench.data_objects(), 1);
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_discarded_block_reads_as_zeros_and_gives_its_object_back_without_a_flush() {
    let bench = Bench::with_size(4 * OBJECT);
    let (volume, port) = bench.open();
    write(&port, 0, &vec![1; 3 * 65536]);
    run(&port, Request::Flush);
    run(&port, Request::Discard { range: ByteRange::new(OBJECT, OBJECT) });
    assert_eq!(read(&port, OBJECT, 512), vec![0; 512]);
    let gone = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        bench.data_objects() == 2
    });
    assert!(gone, "the keeper removes what a discard dropped");
    write(&port, OBJECT + 512, &[2; 512]);
    assert_eq!(read(&port, OBJECT, 1536), [vec![0; 512], vec![2; 512], vec![0; 512]].concat());
    drop(port);
    volume.close().unwrap();
    assert_eq!(bench.data_objects(), 3);
}

#[test]
fn write_zeroes_zeroes_parts_and_wholes() {
    let bench = Bench::with_size(4 * OBJECT);
    let (volume, port) = bench.open();
    write(&port, 0, &vec![1; 4 * 65536]);
    for space in [Space::Free, Space::Keep] {
        let range = ByteRange::new(OBJECT / 2, 2 * OBJECT);
        run(&port, Request::WriteZeroes { range, space, stability: Stability::Stable });
        assert_eq!(read(&port, OBJECT / 2 - 512, 512), vec![1; 512]);
        assert_eq!(read(&port, OBJECT / 2, 2 * 65536), vec![0; 2 * 65536]);
        assert_eq!(read(&port, 5 * OBJECT / 2, 512), vec![1; 512]);
    }
    drop(port);
    volume.close().unwrap();
}

#[test]
fn many_requests_in_flight_each_end_once() {
    let bench = Bench::with_size(64 * OBJECT);
    let (volume, port) = bench.open();
    for tag in 0..640u32 {
        let range = ByteRange::new(u64::from(tag % 64) * OBJECT + u64::from(tag / 64) * 512, 512);
        let buffer = Buffer::copied_from(&[tag.to_le_bytes()[0]; 512]);
        port.submit(tag, Request::Write { range, buffer, stability: Stability::Cached });
    }
    port.submit(640, Request::Flush);
    let mut done = Vec::new();
    while port.in_flight() != 0 {
        if !port.turn(&mut done) {
            port.wait(None);
        }
    }
    let mut tags: Vec<u32> = done.iter().map(|done| done.tag).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..=640).collect::<Vec<_>>());
    assert!(done.iter().all(|done| done.result.is_ok()));
    for tag in 0..640u32 {
        let offset = u64::from(tag % 64) * OBJECT + u64::from(tag / 64) * 512;
        assert_eq!(read(&port, offset, 512), vec![tag.to_le_bytes()[0]; 512], "{tag}");
    }
    drop(port);
    volume.close().unwrap();
    assert_eq!(bench.data_objects(), 64);
}

#[test]
fn a_petabyte_volume_costs_a_header_and_opens_at_once() {
    let bench = Bench::with_size(1 << 50);
    let (volume, port) = bench.open();
    write(&port, (1 << 50) - 512, &[9; 512]);
    write(&port, 1 << 49, &[8; 512]);
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let (volume, port) = bench.open();
    assert_eq!(read(&port, (1 << 50) - 512, 512), vec![9; 512]);
    assert_eq!(read(&port, 1 << 49, 512), vec![8; 512]);
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_working_set_larger_than_the_cache_is_checkpointed_and_read_back() {
    // Every block is in a leaf of its own; the cache of 1 MiB holds 124 leaves.
    let bench = Bench::with_size(1 << 40);
    let (volume, port) = bench.open();
    let offset = |n: u64| n * 1024 * OBJECT;
    for n in 0..1000 {
        write(&port, offset(n), &[n.to_le_bytes()[0]; 512]);
    }
    for n in 0..1000 {
        assert_eq!(read(&port, offset(n), 512), vec![n.to_le_bytes()[0]; 512], "{n}");
    }
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let (volume, port) = bench.open();
    for n in (0..1000).rev() {
        assert_eq!(read(&port, offset(n), 512), vec![n.to_le_bytes()[0]; 512], "{n}");
    }
    drop(port);
    volume.close().unwrap();
}

#[test]
fn thousands_of_flushes_fill_and_change_journals() {
    let bench = Bench::with_size(1 << 30);
    let (volume, port) = bench.open();
    for n in 0..3000u64 {
        write(&port, n * OBJECT, &[n.to_le_bytes()[0]; 512]);
        run(&port, Request::Flush);
    }
    die(volume, port);
    assert_eq!(bench.data_objects(), 3000);
}

#[test]
fn a_read_only_volume_takes_no_writes() {
    let bench = Bench::with_size(OBJECT);
    let (volume, port) = bench.open();
    write(&port, 0, &[5; 512]);
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let options = OpenOptions { access: Access::ReadOnly, ..bench.options.clone() };
    let volume = Volume::open(&bench.store, &bench.name, &options).unwrap();
    let port = Port::open(&volume).unwrap();
    assert_eq!(read(&port, 0, 512), vec![5; 512]);
    let discard = Request::Discard { range: ByteRange::new(0, OBJECT) };
    let error = port.block_on(port.request(discard)).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::ReadOnly);
    drop(port);
    volume.close().unwrap();
}

/// Walks over everything that may hold data.
fn allocated_blocks(volume: &Volume, port: &Port) -> Vec<u64> {
    let size = volume.size().bytes();
    let mut from = 0;
    let next = || {
        let found = port.block_on(port.allocated(ByteRange::new(from, size - from))).unwrap()?;
        from = found.offset + found.len;
        Some(found.offset / OBJECT)
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn allocated_blocks_are_found_in_a_huge_volume_wherever_their_entries_are() {
    const BLOCKS: u64 = (1 << 50) / OBJECT;
    let bench = Bench::with_size(1 << 50);
    // Beside borders of leaves and of pages on every level, and spread out.
    let borders = [10, 18, 26].into_iter().flat_map(|bits| [(1 << bits) - 1, 1 << bits]);
    let spread = (1..60_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS);
    let mut blocks: Vec<u64> = borders.chain(spread).chain([0, BLOCKS - 1]).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let discarded: Vec<u64> = blocks.iter().copied().skip(1).step_by(5).collect();
    let (volume, port) = bench.open();
    assert!(allocated_blocks(&volume, &port).is_empty());
    for block in blocks.iter().step_by(2).chain(&discarded) {
        write(&port, block * OBJECT, &[1; 512]);
    }
    drop(port);
    volume.close().unwrap();
    drop(volume);
    // Those are in pages now; the rest is in memory only.
    let (volume, port) = bench.open();
    for block in &blocks {
        write(&port, block * OBJECT, &[1; 512]);
    }
    for block in &discarded {
        port.block_on(port.request(Request::Discard { range: ByteRange::new(block * OBJECT, OBJECT) })).unwrap();
    }
    let expected: Vec<u64> = blocks.iter().copied().filter(|block| !discarded.contains(block)).collect();
    assert_eq!(allocated_blocks(&volume, &port), expected);
    let last_sector = ByteRange::new((1 << 50) - 512, 512);
    let last = port.block_on(port.allocated(last_sector)).unwrap();
    assert_eq!(last, expected.contains(&(BLOCKS - 1)).then_some(last_sector));
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_removed_volume_leaves_nothing_even_if_it_was_interrupted() {
    let bench = Bench::with_size(1 << 30);
    let (volume, port) = bench.open();
    for n in 0..200 {
        write(&port, n * OBJECT, &[1; 512]);
    }
    assert_eq!(remove(&bench.store, &bench.name, &Job::default()).unwrap_err().kind(), VolumeErrorKind::Held);
    drop(port);
    volume.close().unwrap();
    let id = volume.id();
    drop(volume);
    // Interrupted at its start, it leaves a volume that can only be removed.
    let cancelled = Job::default();
    cancelled.cancel();
    assert_eq!(remove(&bench.store, &bench.name, &cancelled).unwrap(), Removal::Interrupted);
    assert_eq!(info(&bench.store, &bench.name).unwrap().state, VolumeState::Removing);
    let error = Volume::open(&bench.store, &bench.name, &bench.options).map(drop).unwrap_err();
    assert!(error.to_string().contains("is being removed"), "{error}");
    let job = Job::default();
    assert_eq!(remove(&bench.store, &bench.name, &job).unwrap(), Removal::Finished);
    assert_eq!(job.progress().done, 200);
    assert_eq!(info(&bench.store, &bench.name).unwrap_err().kind(), VolumeErrorKind::NotFound);
    for scope in [ListScope::Names, ListScope::Volumes, ListScope::Metadata(id), ListScope::Data(id)] {
        let left = io::block_on(&bench.store, None, |io| async move { io.list(scope, None, 10).await }).unwrap();
        assert_eq!(left, [], "{scope:?}");
    }
}

#[test]
fn a_name_is_taken_once() {
    let bench = Bench::with_size(OBJECT);
    let request = CreateRequest {
        name: bench.name.clone(),
        size: VolumeSize::new(512).unwrap(),
        object_size: ObjectSize::DEFAULT,
    };
    assert_eq!(create(&bench.store, &request).unwrap_err().kind(), VolumeErrorKind::Exists);
    let listed = list(&bench.store).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].1.as_ref().unwrap().state, VolumeState::Closed);
}
