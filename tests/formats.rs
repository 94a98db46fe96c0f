//! What earlier versions wrote can be opened: one fixture for each released version of the formats (tests/fixtures).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use archvhost::admin::import::{ImageFormat, ImportRequest, import};
use archvhost::admin::job::Job;
use archvhost::store::open::{StoreOptions, open};
use archvhost::store::{Buffer, Store};
use archvhost::units::{ByteRange, ObjectSize, VolumeName};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// A copy of a fixture, which opening changes.
fn store(version: &str) -> (Arc<dyn Store>, TempDir) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("store");
    let copied = Command::new("cp").arg("-r").arg(fixture).arg(&copy).status().unwrap();
    assert!(copied.success());
    (open(&format!("file:{}", copy.display()), &StoreOptions::default()).unwrap(), dir)
}

fn open_volume(store: &Arc<dyn Store>, name: &str, soft: &TempDir) -> (Arc<Volume>, Port) {
    let access = Access::ReadWrite;
    let options = OpenOptions {
        access,
        soft_journal_dir: soft.path().to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    let volume = Volume::open(store, &VolumeName::new(name).unwrap(), &options).unwrap();
    let port = Port::open(&volume).unwrap();
    (volume, port)
}

fn read(port: &Port, offset: u64, len: usize) -> Vec<u8> {
    let range = ByteRange::new(offset, u64::try_from(len).unwrap());
    let request = Request::Read { range, buffer: Buffer::zeroed(len) };
    port.block_on(port.request(request)).unwrap().unwrap().to_vec()
}

fn holds_what_was_written(port: &Port) {
    for block in [0, 5000, 16383] {
        let byte = u8::try_from(block % 251 + 1).unwrap();
        let expected = [vec![0; 4096], vec![byte; 4096], vec![0; 4096]].concat();
        assert_eq!(read(port, block * 65536, 12288), expected, "block {block}");
    }
    assert_eq!(read(port, 65536, 65536), vec![0; 65536], "a discarded block");
}

fn opens_and_goes_on(version: &str, name: &str) {
    let (store, _dir) = store(version);
    let soft = tempfile::tempdir_in("/dev/shm").unwrap();
    let (volume, port) = open_volume(&store, name, &soft);
    holds_what_was_written(&port);
    let buffer = Buffer::copied_from(&[9; 512]);
    let range = ByteRange::new(65536, 512);
    port.block_on(port.request(Request::Write { range, buffer, stability: Stability::Stable })).unwrap();
    drop(port);
    volume.close().unwrap();
    drop(volume);
    let (volume, port) = open_volume(&store, name, &soft);
    assert_eq!(read(&port, 65536, 512), vec![9; 512]);
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_closed_volume_of_version_1_opens_and_goes_on() {
    opens_and_goes_on("store-v1", "closed");
}

#[test]
fn a_crashed_volume_of_version_1_opens_and_goes_on() {
    opens_and_goes_on("store-v1", "crashed");
}

#[test]
fn a_stream_of_version_1_is_imported() {
    let store = open("memory:", &StoreOptions::default()).unwrap();
    let soft = tempfile::tempdir_in("/dev/shm").unwrap();
    let stream = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stream-v1");
    let request = ImportRequest {
        name: VolumeName::new("copy").unwrap(),
        size: None,
        object_size: ObjectSize::DEFAULT,
        format: ImageFormat::RawOrStream,
    };
    let options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: soft.path().to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    import(&store, &request, &options, std::fs::File::open(stream).unwrap(), &Job::default()).unwrap();
    let (volume, port) = open_volume(&store, "copy", &soft);
    let expected: Vec<u8> = (0..4096).map(|index| u8::try_from(index * 7 % 251).unwrap() | 1).collect();
    assert_eq!((volume.size().bytes(), volume.object_size().bytes()), (4096, 64 << 10));
    assert_eq!(read(&port, 0, 4096), expected);
    drop(port);
    volume.close().unwrap();
}
