//! Snapshots and clones against a plain model: whatever is written, zeroed and discarded in a volume, its snapshots keep what
//! they captured, and every clone goes its own way.

use crate::LIVES;
use crate::stores::Place;
use archvhost::admin::branch::{CloneRequest, Opened, SnapshotRequest, clone, snapshot};
use archvhost::admin::create::{CreateRequest, create};
use archvhost::admin::info::info;
use archvhost::admin::job::Job;
use archvhost::admin::resize::{ResizeRequest, Shrink, resize};
use archvhost::admin::rollback::rollback;
use archvhost::store::{Buffer, ListScope, Space, Store, io};
use archvhost::units::{ByteRange, ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::{Access, OpenOptions, Port, Request, Stability, Volume, VolumeErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

const OBJECT: u64 = 64 << 10;
const BLOCKS: u64 = 6;
const SECTOR: u64 = 512;

fn name(text: &str) -> VolumeName {
    VolumeName::new(text).unwrap()
}

struct Random(u64);

impl Random {
    /// Steele, Lea, Flood (2014): SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

struct Disk {
    volume: Arc<Volume>,
    port: Port,
    model: Vec<u8>,
}

struct World {
    store: Arc<dyn Store>,
    options: OpenOptions,
    disks: BTreeMap<VolumeName, Disk>,
    snapshots: BTreeMap<VolumeName, Vec<u8>>,
    _soft: TempDir,
    _place: Place,
}

impl Opened for World {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        self.disks.get(name).map(|disk| Arc::clone(&disk.volume))
    }
}

impl World {
    fn new(granule_bytes: u64) -> Self {
        let place = Place::new();
        let store = place.open();
        let soft = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir: soft.path().to_owned(),
            cache_bytes: 1 << 20,
            granule_bytes,
            lease: Default::default(),
        };
        let (disks, snapshots) = (BTreeMap::new(), BTreeMap::new());
        Self { store, options, disks, snapshots, _soft: soft, _place: place }
    }

    fn create(&mut self, text: &str) {
        let size = VolumeSize::new(BLOCKS * OBJECT).unwrap();
        create(&self.store, &CreateRequest { name: name(text), size, object_size: ObjectSize::new(OBJECT).unwrap() })
            .unwrap();
        self.open(&name(text), vec![0; usize::try_from(BLOCKS * OBJECT).unwrap()]);
    }

    fn open(&mut self, name: &VolumeName, model: Vec<u8>) {
        let volume = Volume::open(&self.store, name, &self.options).unwrap();
        let port = Port::open(&volume).unwrap();
        self.disks.insert(name.clone(), Disk { volume, port, model });
    }

    fn close(&mut self, name: &VolumeName) -> Vec<u8> {
        let Disk { volume, port, model } = self.disks.remove(name).unwrap();
        drop(port);
        volume.close().unwrap();
        model
    }

    fn snapshot(&mut self, pairs: &[(&VolumeName, &VolumeName)]) {
        let request = |(volume, name): &(&VolumeName, &VolumeName)| SnapshotRequest {
            volume: VolumeName::clone(volume),
            name: VolumeName::clone(name),
        };
        let requests: Vec<_> = pairs.iter().map(request).collect();
        snapshot(&self.store, &requests, self, &self.options).unwrap();
        for (volume, name) in pairs {
            let model = self.disks[*volume].model.clone();
            self.snapshots.insert(VolumeName::clone(name), model);
        }
    }

    fn clone_of(&mut self, source: &VolumeName, name: &VolumeName) {
        let request = CloneRequest { source: source.clone(), name: name.clone(), size: None };
        clone(&self.store, &request, self, &self.options).unwrap();
        let model = self.snapshots.get(source).cloned().unwrap_or_else(|| self.disks[source].model.clone());
        self.open(name, model);
    }

    fn check(&self) {
        for (name, disk) in &self.disks {
            assert_same(name, &read(&disk.port, 0, disk.model.len()), &disk.model);
        }
        for (name, model) in &self.snapshots {
            let options = OpenOptions { access: Access::ReadOnly, ..self.options.clone() };
            let volume = Volume::open(&self.store, name, &options).unwrap();
            let port = Port::open(&volume).unwrap();
            assert_same(name, &read(&port, 0, model.len()), model);
        }
    }
}

fn assert_same(name: &VolumeName, found: &[u8], expected: &[u8]) {
    let differs = (0..expected.len()).find(|at| found[*at] != expected[*at]);
    assert!(differs.is_none(), "{name} differs from its model at byte {}", differs.unwrap_or_default());
}

fn request(port: &Port, request: Request) -> Option<Buffer> {
    port.block_on(port.request(request)).unwrap()
}

fn read(port: &Port, offset: u64, len: usize) -> Vec<u8> {
    let buffer = Buffer::copied_from(&vec![0xEE; len]);
    request(port, Request::Read { range: ByteRange::new(offset, len as u64), buffer }).unwrap().to_vec()
}

fn write(port: &Port, offset: u64, bytes: &[u8]) {
    let range = ByteRange::new(offset, bytes.len() as u64);
    request(port, Request::Write { range, buffer: Buffer::copied_from(bytes), stability: Stability::Cached });
}

fn sectors(random: &mut Random) -> ByteRange {
    let total = BLOCKS * OBJECT / SECTOR;
    let start = random.below(total);
    let most = match random.below(4) {
        0 => 1,
        1 => 16,
        2 => 130,
        _ => 300,
    };
    let len = 1 + random.below(most.min(total - start));
    ByteRange::new(start * SECTOR, len * SECTOR)
}

/// One random change of a disk.
fn change(disk: &mut Disk, random: &mut Random) {
    let range = sectors(random);
    let place = usize::try_from(range.offset).unwrap()..usize::try_from(range.offset + range.len).unwrap();
    match random.below(8) {
        0 => {
            let space = if random.below(2) == 0 { Space::Free } else { Space::Keep };
            request(&disk.port, Request::WriteZeroes { range, space, stability: Stability::Cached });
            disk.model[place].fill(0);
        }
        1 => {
            request(&disk.port, Request::Discard { range });
            let found = read(&disk.port, range.offset, place.len());
            for (at, byte) in place.zip(found) {
                assert!(byte == disk.model[at] || byte == 0, "a discarded byte is what it was, or zero");
                disk.model[at] = byte;
            }
        }
        2 => {
            request(&disk.port, Request::Flush);
        }
        _ => {
            let seed = random.next();
            let bytes: Vec<u8> = place.clone().map(|at| (seed.wrapping_add(at as u64) % 251) as u8 + 1).collect();
            write(&disk.port, range.offset, &bytes);
            disk.model[place].copy_from_slice(&bytes);
        }
    }
}

fn random_life(seed: u64) {
    let mut random = Random(seed);
    let granule_bytes = [512, 4096, 16384, OBJECT][usize::try_from(random.below(4)).unwrap()];
    let mut world = World::new(granule_bytes);
    world.create("disk-0");
    world.create("disk-1");
    for step in 0..120 {
        let names: Vec<VolumeName> = world.disks.keys().cloned().collect();
        let picked = names[usize::try_from(random.below(names.len() as u64)).unwrap()].clone();
        match random.below(20) {
            0..=2 => world.snapshot(&[(&picked, &name(&format!("snap-{step}")))]),
            3 if names.len() > 1 => {
                let other = names.iter().find(|name| **name != picked).unwrap();
                world.snapshot(&[(&picked, &name(&format!("one-{step}"))), (other, &name(&format!("two-{step}")))]);
            }
            4 if world.snapshots.len() > 1 && names.len() < 5 => {
                let sources: Vec<_> = world.snapshots.keys().cloned().collect();
                let source = &sources[usize::try_from(random.below(sources.len() as u64)).unwrap()];
                world.clone_of(source, &name(&format!("clone-{step}")));
            }
            5 if names.len() < 5 => world.clone_of(&picked, &name(&format!("live-{step}"))),
            6 => {
                let model = world.close(&picked);
                world.open(&picked, model);
            }
            _ => {
                for _ in 0..4 {
                    change(world.disks.get_mut(&picked).unwrap(), &mut random);
                }
            }
        }
        if step % 20 == 19 {
            world.check();
        }
    }
    world.check();
}

#[test]
fn snapshots_keep_what_they_captured_and_clones_go_their_own_way() {
    for seed in 0..LIVES {
        println!("seed {seed}");
        random_life(seed);
    }
}

#[test]
fn a_write_to_a_shared_block_copies_nothing_but_its_granule() {
    let mut world = World::new(4096);
    world.create("disk");
    let disk = name("disk");
    write(&world.disks[&disk].port, 0, &vec![1; usize::try_from(OBJECT).unwrap()]);
    world.disks.get_mut(&disk).unwrap().model[..usize::try_from(OBJECT).unwrap()].fill(1);
    world.snapshot(&[(&disk, &name("snap"))]);
    write(&world.disks[&disk].port, 8192, &[2; 4096]);
    world.disks.get_mut(&disk).unwrap().model[8192..12288].fill(2);
    world.check();
    let id = info(&world.store, &disk).unwrap().id;
    let listing = |io: io::Io| async move {
        let mut sizes = Vec::new();
        for object in io.list(ListScope::Data(id), None, 100).await? {
            sizes.push(io.stat(object).await?);
        }
        Ok::<_, archvhost::store::StoreError>(sizes)
    };
    let sizes = io::block_on(&world.store, None, listing).unwrap();
    assert_eq!(sizes, [OBJECT, 12288], "the new object ends behind what was written");
}

#[test]
fn a_snapshot_is_not_opened_for_writing() {
    let mut world = World::new(4096);
    world.create("disk");
    world.snapshot(&[(&name("disk"), &name("snap"))]);
    let error = Volume::open(&world.store, &name("snap"), &world.options).err().unwrap();
    assert_eq!(error.kind(), VolumeErrorKind::ReadOnly);
    assert!(error.to_string().contains("snapshot"), "{error}");
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_is_left() {
    let mut world = World::new(4096);
    world.create("disk");
    world.create("other");
    let pair = |volume: &str, snap: &str| SnapshotRequest { volume: name(volume), name: name(snap) };
    let requests = [pair("disk", "fresh"), pair("other", "disk")];
    let error = snapshot(&world.store, &requests, &world, &world.options).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Exists);
    assert_eq!(info(&world.store, &name("fresh")).unwrap_err().kind(), VolumeErrorKind::NotFound);
    let listing = |io: io::Io| async move { io.list(ListScope::Volumes, None, 100).await };
    assert_eq!(io::block_on(&world.store, None, listing).unwrap().len(), 2);
}

#[test]
fn a_clone_may_be_larger_and_its_tail_is_zeros() {
    let mut world = World::new(4096);
    world.create("disk");
    let end = BLOCKS * OBJECT;
    write(&world.disks[&name("disk")].port, end - 512, &[7; 512]);
    let request =
        |size| CloneRequest { source: name("disk"), name: name("clone"), size: Some(VolumeSize::new(size).unwrap()) };
    let error = clone(&world.store, &request(end - 512), &world, &world.options).unwrap_err();
    assert!(error.to_string().contains("shrink"), "{error}");
    clone(&world.store, &request(end + 512), &world, &world.options).unwrap();
    world.open(&name("clone"), Vec::new());
    let found = read(&world.disks[&name("clone")].port, end - 512, 1024);
    assert_eq!((found[511], found[512]), (7, 0));
}

fn resize_to(world: &World, bytes: u64, shrink: Shrink) -> Result<(), archvhost::volume::VolumeError> {
    let request = ResizeRequest { volume: name("disk"), size: VolumeSize::new(bytes).unwrap(), shrink };
    resize(&world.store, &request, world, &world.options, &Job::default()).map(drop)
}

#[test]
fn c19_what_lay_behind_the_end_is_gone_when_the_volume_grows_again() {
    let mut world = World::new(4096);
    world.create("disk");
    let end = BLOCKS * OBJECT;
    let all = vec![9; usize::try_from(end).unwrap()];
    write(&world.disks[&name("disk")].port, 0, &all);
    world.disks.get_mut(&name("disk")).unwrap().model = all;
    world.snapshot(&[(&name("disk"), &name("snap"))]);
    let error = resize_to(&world, OBJECT + 512, Shrink::Refuse).unwrap_err();
    assert!(error.to_string().contains("--shrink"), "{error}");
    resize_to(&world, OBJECT + 512, Shrink::Allow).unwrap();
    assert_eq!(world.disks[&name("disk")].volume.size().bytes(), OBJECT + 512);
    resize_to(&world, end + OBJECT, Shrink::Refuse).unwrap();
    let kept = usize::try_from(OBJECT + 512).unwrap();
    let model = &mut world.disks.get_mut(&name("disk")).unwrap().model;
    model[kept..].fill(0);
    model.resize(usize::try_from(end + OBJECT).unwrap(), 0);
    world.check();
    let model = world.close(&name("disk"));
    assert_eq!(info(&world.store, &name("disk")).unwrap().size.bytes(), end + OBJECT);
    world.open(&name("disk"), model);
    world.check();
}

#[test]
fn requests_behind_a_new_end_are_refused_and_those_up_to_it_served() {
    let mut world = World::new(4096);
    world.create("disk");
    resize_to(&world, OBJECT, Shrink::Allow).unwrap();
    let port = &world.disks[&name("disk")].port;
    let request = |offset| Request::Write {
        range: ByteRange::new(offset, 512),
        buffer: Buffer::copied_from(&[1; 512]),
        stability: Stability::Cached,
    };
    port.block_on(port.request(request(OBJECT - 512))).unwrap();
    let error = port.block_on(port.request(request(OBJECT))).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::OutOfRange);
    resize_to(&world, 2 * OBJECT, Shrink::Refuse).unwrap();
    port.block_on(port.request(request(OBJECT))).unwrap();
}

#[test]
fn c18_a_volume_rolled_back_is_its_snapshot_again_and_does_not_write_into_it() {
    let mut world = World::new(4096);
    world.create("disk");
    let mut random = Random(7);
    for round in 0..4 {
        for _ in 0..20 {
            change(world.disks.get_mut(&name("disk")).unwrap(), &mut random);
        }
        world.snapshot(&[(&name("disk"), &name(&format!("snap-{round}")))]);
    }
    for back in [2, 0, 3, 1] {
        let refused = rollback(&world.store, &name("disk"), &name("snap-0"), &world.options).unwrap_err();
        assert_eq!(refused.kind(), VolumeErrorKind::Held, "it is open: {refused}");
        world.close(&name("disk"));
        let snapshot = name(&format!("snap-{back}"));
        rollback(&world.store, &name("disk"), &snapshot, &world.options).unwrap();
        world.open(&name("disk"), world.snapshots[&snapshot].clone());
        world.check();
        for _ in 0..20 {
            change(world.disks.get_mut(&name("disk")).unwrap(), &mut random);
        }
        world.check();
    }
}

#[test]
fn a_volume_is_rolled_back_to_nothing_but_its_own() {
    let mut world = World::new(4096);
    world.create("disk");
    world.create("other");
    world.snapshot(&[(&name("other"), &name("snap"))]);
    world.close(&name("disk"));
    let error = rollback(&world.store, &name("disk"), &name("snap"), &world.options).unwrap_err();
    assert!(error.to_string().contains("neither"), "{error}");
    let error = rollback(&world.store, &name("disk"), &name("other"), &world.options).unwrap_err();
    assert!(error.to_string().contains("not a snapshot"), "{error}");
    let error = rollback(&world.store, &name("snap"), &name("snap"), &world.options).unwrap_err();
    assert!(error.to_string().contains("never changes"), "{error}");
}
