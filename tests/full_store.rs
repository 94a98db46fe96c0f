//! A store on a file system without a free block is no trap: what frees space works there, what takes space is refused and
//! leaves the reserve alone. On a real ext4 of its own, loop-mounted, which takes root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use archvhost::store::Buffer;
use archvhost::store::open::{StoreOptions, open};
use archvhost::units::{ByteRange, VolumeName};
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, Request, Stability, Volume, VolumeErrorKind};
use program::{Ran, Scene};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: usize = 1 << 20;
const FULL: i32 = 7;

/// An ext4 of its own, so that it runs full without hurting anybody.
struct SmallFileSystem {
    mount_point: PathBuf,
}

impl SmallFileSystem {
    /// `None`, after saying why, where it cannot be had; in CI that is a failure.
    fn mount(dir: &Path) -> Option<Self> {
        let (image, mount_point) = (dir.join("small.ext4"), dir.join("small"));
        fs::create_dir(&mount_point).unwrap();
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        match made.and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount_point))) {
            Ok(()) => Some(Self { mount_point }),
            Err(why) => {
                let in_ci = std::env::var("CI").is_ok_and(|ci| matches!(ci.as_str(), "1" | "true"));
                assert!(!in_ci, "{why}");
                eprintln!("SKIPPED: no file system of its own: {why}");
                None
            }
        }
    }

    /// Takes every block that a file can have.
    fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.mount_point.join("ballast")).unwrap();
        for len in [MIB, 64 << 10, 4096, 1024, 1] {
            while ballast.write_all(&vec![1; len]).and_then(|()| ballast.sync_all()).is_ok() {}
        }
        for number in 0.. {
            let mut small = File::create(self.mount_point.join(format!("ballast.{number}"))).unwrap();
            match small.write_all(b"1").and_then(|()| small.sync_all()) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    break;
                }
            }
        }
        assert_eq!(self.free_blocks(), 0);
    }

    /// Gives some of that back.
    fn free(&self, bytes: usize) {
        let ballast = File::options().write(true).open(self.mount_point.join("ballast")).unwrap();
        ballast.set_len(ballast.metadata().unwrap().len() - bytes as u64).unwrap();
        ballast.sync_all().unwrap();
    }

    fn free_blocks(&self) -> u64 {
        rustix::fs::statvfs(&self.mount_point).unwrap().f_bavail
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // Its daemons are gone; the kernel closes their rings a moment later.
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount_point)).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A scene whose store lies on a small file system.
struct Full {
    small: SmallFileSystem,
    store: String,
    scene: Scene,
}

impl Full {
    /// With volumes `alone` and `base`, `base@1` and its clone `copy`, all with content, and space left.
    fn new() -> Option<Self> {
        let scene = Scene::new();
        let small = SmallFileSystem::mount(scene.dir.path())?;
        let directory = small.mount_point.join("store");
        fs::create_dir(&directory).unwrap();
        let full = Self { small, store: format!("file:{}", directory.display()), scene };
        fs::write(full.scene.path("image"), vec![7; 8 * MIB]).unwrap();
        full.run(["import", "alone", "image"]).text();
        full.run(["import", "base", "image"]).text();
        full.run(["snapshot", "base", "base@1"]).text();
        full.run(["clone", "base@1", "copy"]).text();
        Some(full)
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        self.scene.run(["--store", &self.store].into_iter().chain(arguments))
    }

    /// Files of the reserve that are whole.
    fn reserve(&self) -> usize {
        let pieces = fs::read_dir(self.small.mount_point.join("store/reserve")).unwrap();
        pieces.filter(|piece| piece.as_ref().unwrap().metadata().unwrap().len() == 4096).count()
    }

    fn open(&self, name: &str) -> Result<std::sync::Arc<Volume>, archvhost::volume::VolumeError> {
        let store = open(&self.store, &StoreOptions::default()).unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: self.scene.soft_journals.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes: GRANULE_BYTES,
            lease: Default::default(),
        };
        Volume::open(&store, &VolumeName::new(name).unwrap(), &options)
    }
}

fn write(port: &Port, offset: usize) -> Result<(), VolumeErrorKind> {
    let range = ByteRange::new(offset as u64, 4096);
    let buffer = Buffer::copied_from(&[9; 4096]);
    let request = Request::Write { range, buffer, stability: Stability::Cached };
    port.block_on(port.request(request)).map(drop).map_err(|error| error.kind())
}

fn first_byte(port: &Port, offset: usize) -> u8 {
    let request = Request::Read { range: ByteRange::new(offset as u64, 4096), buffer: Buffer::zeroed(4096) };
    port.block_on(port.request(request)).unwrap().unwrap().to_vec()[0]
}

#[test]
fn volumes_and_snapshots_can_be_removed_from_a_full_store_and_their_space_collected() {
    let Some(full) = Full::new() else { return };
    full.small.fill();
    full.run(["gc"]).text();
    full.run(["remove", "base@1"]).text();
    full.run(["remove", "base"]).text();
    full.run(["remove", "copy"]).text();
    full.small.fill();
    full.run(["gc"]).text();
    assert!(full.small.free_blocks() > 0, "the space of a family of volumes is free");
    full.small.fill();
    full.run(["remove", "alone"]).text();
    assert!(full.small.free_blocks() > 0, "the space of a volume is free");
    assert!(!full.run(["list"]).text().contains("closed"), "nothing is left");
    assert_eq!(full.reserve(), 16, "made again as soon as there was space");
}

#[test]
fn what_takes_space_is_refused_and_leaves_the_reserve_alone() {
    let Some(full) = Full::new() else { return };
    full.small.fill();
    full.run(["create", "new", "--size", "1GiB"]).failure(FULL);
    full.run(["import", "new", "image"]).failure(FULL);
    full.run(["snapshot", "base", "base@2"]).failure(FULL);
    full.run(["clone", "base@1", "new"]).failure(FULL);
    assert_eq!(full.reserve(), 16);
    full.run(["remove", "alone"]).text();
    full.run(["snapshot", "base", "base@2"]).text();
}

#[test]
fn a_volume_that_met_a_full_store_closes_and_loses_nothing() {
    let Some(full) = Full::new() else { return };
    full.run(["create", "web1", "--size", "1GiB", "--object-size", "64KiB"]).text();
    let volume = full.open("web1").unwrap();
    let port = Port::open(&volume).unwrap();
    full.small.fill();
    full.small.free(2 * MIB);
    let blocks = |n: usize| (0..n).map(|n| n * (64 << 10));
    let refused = blocks(10_000).find_map(|offset| write(&port, offset).err().map(|kind| (offset, kind)));
    let (end, kind) = refused.unwrap();
    assert_eq!(kind, VolumeErrorKind::NoSpace);
    assert_eq!(full.reserve(), 16, "no guest's write takes the reserve");
    full.small.fill();
    port.block_on(port.request(Request::Flush)).unwrap();
    drop(port);
    volume.close().unwrap();
    drop(volume);
    full.run(["remove", "alone"]).text();
    let volume = full.open("web1").unwrap();
    let port = Port::open(&volume).unwrap();
    assert!(blocks(10_000).take_while(|offset| *offset < end).all(|offset| first_byte(&port, offset) == 9));
    drop(port);
    volume.close().unwrap();
}

#[test]
fn a_lock_can_be_broken_and_a_daemon_detach_on_a_full_store() {
    let Some(full) = Full::new() else { return };
    let daemon = full.scene.daemon(&full.store);
    daemon.run(["attach", "alone", "--socket", full.scene.path("alone.sock").to_str().unwrap()]).text();
    daemon.run(["open", "copy"]).text();
    full.small.fill();
    daemon.run(["detach", "alone"]).text();
    full.run(["unlock", "copy", "--force"]).text();
    daemon.run(["remove", "alone"]).text();
    assert!(full.small.free_blocks() > 0);
}
