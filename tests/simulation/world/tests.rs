use super::faults::{Faults, Habits, PersistenceHabit};
use super::{SimStore, Survival, World};
use crate::rng::Rng;
use archvhost::store::{
    Buffer, Channel, Completion, Durability, FreeLock, Lease, LockMode, ObjectName, Op, Outcome, Persistence,
    PublishMode, Room, Space, Store, StoreErrorKind, Token,
};
use archvhost::units::{BlockIndex, Epoch, Generation, VolumeId};
use std::sync::Arc;

const VOLUME: VolumeId = VolumeId([7; 16]);
const HABITS: Habits = Habits {
    delay_max: 10,
    stall_one_in: 0,
    stall_max: 0,
    persistence: PersistenceHabit::DeviceWherePossible,
    publish_bytes_max: usize::MAX,
    lock_ignores_late_io: false,
};

struct Process {
    world: World,
    store: Arc<dyn Store>,
    channel: Box<dyn Channel>,
    _lease: Lease,
}

impl Process {
    fn start(world: &World) -> Self {
        let store = SimStore::open(world, world.start_process(), FreeLock::ProvesTheEnd);
        let lease = loop {
            match store.lock(VOLUME, LockMode::Exclusive, b"test") {
                Ok(lease) => break lease,
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Held),
            }
        };
        let channel = store.channel(Some(&lease)).unwrap();
        Self { world: world.clone(), store, channel, _lease: lease }
    }

    fn submit(&mut self, op: Op) {
        self.channel.submit(Token(1), op);
        self.channel.kick();
    }

    fn run(&mut self, op: Op) -> Completion {
        self.submit(op);
        let mut done = Vec::new();
        while done.is_empty() {
            assert!(self.world.step(), "the operation must end");
            self.channel.reap(&mut done);
        }
        done.pop().unwrap()
    }

    fn sectors(&mut self, object: &ObjectName, count: usize) -> Result<Vec<u8>, StoreErrorKind> {
        let read = Op::Read { object: object.clone(), offset: 0, buffer: Buffer::zeroed(count * 512) };
        let completion = self.run(read);
        completion.result.map_err(|error| error.kind())?;
        let bytes = completion.buffer.unwrap().to_vec();
        Ok(bytes
            .chunks(512)
            .map(|sector| if sector.iter().all(|b| *b == sector[0]) { sector[0] } else { 255 })
            .collect())
    }
}

fn world(seed: u64) -> World {
    World::new(Rng::new(seed), HABITS)
}

fn data(block: u64) -> ObjectName {
    ObjectName::Data { volume: VOLUME, epoch: Epoch(1), block: BlockIndex(block) }
}

fn journal() -> ObjectName {
    ObjectName::Journal { volume: VOLUME, generation: Generation(1), number: 1 }
}

fn create(object: &ObjectName, byte: u8, sectors: usize) -> Op {
    Op::Create { object: object.clone(), offset: 0, buffer: filled(byte, sectors), size: 65536 }
}

fn write(object: &ObjectName, byte: u8, sectors: usize, durability: Durability) -> Op {
    Op::Write { object: object.clone(), offset: 0, buffer: filled(byte, sectors), durability }
}

fn publish(object: &ObjectName, byte: u8, mode: PublishMode) -> Op {
    Op::Publish { object: object.clone(), content: filled(byte, 4), mode, room: Room::Ordinary }
}

fn sync(objects: &[ObjectName]) -> Op {
    Op::Sync { objects: objects.to_vec() }
}

fn filled(byte: u8, sectors: usize) -> Buffer {
    Buffer::copied_from(&vec![byte; sectors * 512])
}

#[test]
fn completed_changes_survive_the_death_of_the_process() {
    let world = world(1);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 4));
    process.run(Op::Zero { object: data(0), offset: 512, len: 512, space: Space::Free });
    world.kill_all();
    assert_eq!(Process::start(&world).sectors(&data(0), 5), Ok(vec![1, 0, 1, 1, 0]));
}

#[test]
fn unsynced_changes_are_lost_with_the_power_and_synced_ones_are_not() {
    let world = world(2);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 2));
    process.run(sync(&[data(0)]));
    process.run(write(&data(0), 2, 1, Durability::Cached));
    process.run(create(&data(1), 1, 1));
    world.cut_power(Survival::Nothing);
    let mut process = Process::start(&world);
    assert_eq!(process.sectors(&data(0), 2), Ok(vec![1, 1]));
    assert_eq!(process.sectors(&data(1), 2), Err(StoreErrorKind::NotFound));
}

#[test]
fn a_removal_that_was_not_synced_may_be_undone_by_a_power_cut() {
    let world = world(3);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 1));
    process.run(sync(&[data(0)]));
    process.run(Op::Remove { object: data(0) });
    assert_eq!(process.sectors(&data(0), 1), Err(StoreErrorKind::NotFound));
    world.cut_power(Survival::Nothing);
    assert_eq!(Process::start(&world).sectors(&data(0), 1), Ok(vec![1]));
}

#[test]
fn any_sync_makes_what_the_device_has_durable_and_nothing_else() {
    let world = world(4);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 1));
    process.run(sync(&[data(0)]));
    let overwritten = process.run(write(&data(0), 2, 1, Durability::Cached));
    let created = process.run(create(&data(1), 2, 1));
    assert!(matches!(overwritten.result, Ok(Outcome::Changed(Persistence::Device))));
    assert!(matches!(created.result, Ok(Outcome::Changed(Persistence::Object))));
    process.run(sync(&[]));
    world.cut_power(Survival::Nothing);
    let mut process = Process::start(&world);
    assert_eq!(process.sectors(&data(0), 1), Ok(vec![2]));
    assert_eq!(process.sectors(&data(1), 1), Err(StoreErrorKind::NotFound));
}

#[test]
fn a_sync_covers_only_changes_whose_end_was_reported_before_it() {
    let world = world(5);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 1));
    process.run(sync(&[data(0)]));
    process.submit(write(&data(0), 2, 1, Durability::Cached));
    while world.step() {}
    process.submit(sync(&[data(0)]));
    while world.step() {}
    world.cut_power(Survival::Nothing);
    assert_eq!(Process::start(&world).sectors(&data(0), 1), Ok(vec![1]));
}

#[test]
fn a_failed_sync_is_not_repaired_by_a_later_one() {
    let lost = (0..20).filter(|seed| {
        let world = world(*seed);
        let mut process = Process::start(&world);
        process.run(create(&data(0), 1, 1));
        world.set_faults(Faults { sync_fails: 1, ..Faults::NONE });
        assert!(process.run(sync(&[data(0)])).result.is_err());
        world.set_faults(Faults::NONE);
        assert!(process.run(sync(&[data(0)])).result.is_ok());
        world.cut_power(Survival::Nothing);
        Process::start(&world).sectors(&data(0), 1).is_err()
    });
    assert!((1..20).contains(&lost.count()));
}

#[test]
fn a_durable_write_is_durable_when_it_completes_and_may_be_torn_before() {
    let mut torn = 0;
    for seed in 0..50 {
        let world = world(seed);
        let mut process = Process::start(&world);
        process.run(publish(&journal(), 1, PublishMode::Exclusive));
        process.run(write(&journal(), 2, 2, Durability::Durable));
        process.submit(write(&journal(), 3, 4, Durability::Durable));
        world.step();
        world.cut_power(Survival::BySector);
        let sectors = Process::start(&world).sectors(&journal(), 4).unwrap();
        assert!(sectors[..2].iter().all(|byte| [2, 3].contains(byte)), "{sectors:?}");
        torn += u32::from(sectors.contains(&3) && sectors != [3; 4]);
    }
    assert!(torn > 5, "{torn}");
}

#[test]
fn a_publication_is_there_whole_or_not_at_all() {
    let mut seen = [0; 3];
    for seed in 0..100 {
        let world = world(seed);
        let mut process = Process::start(&world);
        process.run(publish(&journal(), 1, PublishMode::Exclusive));
        process.submit(publish(&journal(), 2, PublishMode::Replace));
        world.cut_power(*Rng::new(seed).pick(&Survival::ALL));
        let sectors = Process::start(&world).sectors(&journal(), 4).unwrap();
        assert!(sectors == [1; 4] || sectors == [2; 4], "{sectors:?}");
        seen[usize::from(sectors[0])] += 1;
    }
    assert!(seen[1] > 0 && seen[2] > 0, "{seen:?}");
}

/// A process dies with a write of 1 in flight; its successor takes the lock and writes 2 at once.
fn successor_reads_its_own_write(seed: u64, habits: Habits) -> bool {
    let world = World::new(Rng::new(seed), habits);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 0, 1));
    process.submit(write(&data(0), 1, 1, Durability::Cached));
    world.kill_all();
    let mut process = Process::start(&world);
    process.run(write(&data(0), 2, 1, Durability::Cached));
    while world.step() {}
    process.sectors(&data(0), 1) == Ok(vec![2])
}

#[test]
fn c5_a_successor_gets_the_lock_only_after_late_io_has_ended() {
    assert!((0..100).all(|seed| successor_reads_its_own_write(seed, HABITS)));
    let broken = Habits { lock_ignores_late_io: true, ..HABITS };
    assert!(!(0..100).all(|seed| successor_reads_its_own_write(seed, broken)), "the broken lock must show");
}

#[test]
fn a_living_holder_keeps_everybody_else_out_until_it_lets_go() {
    let world = world(6);
    let process = Process::start(&world);
    assert_eq!(
        process.store.lock(VOLUME, LockMode::Exclusive, b"second").map(|_| ()).unwrap_err().kind(),
        StoreErrorKind::Held
    );
    drop(process);
    let second = SimStore::open(&world, world.start_process(), FreeLock::ProvesTheEnd);
    assert!(second.lock(VOLUME, LockMode::Exclusive, b"second").is_ok());
    assert_eq!(second.holder(VOLUME).unwrap().as_deref(), Some(&b"second"[..]));
}

#[test]
fn a_second_creation_of_a_name_is_noticed() {
    let world = world(7);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 1));
    process.run(Op::Remove { object: data(0) });
    assert!(world.violations().is_empty());
    process.run(create(&data(0), 1, 1));
    assert_eq!(world.violations().len(), 1);
}

#[test]
fn a_change_without_the_lease_is_noticed() {
    let world = world(8);
    let mut process = Process::start(&world);
    process.run(create(&data(0), 1, 1));
    process.channel = SimStore::open(&world, world.start_process(), FreeLock::ProvesTheEnd).channel(None).unwrap();
    process.run(write(&data(0), 2, 1, Durability::Cached));
    assert_eq!(world.violations().len(), 1);
}

#[test]
fn a_blocking_caller_is_served_by_wait_alone() {
    let world = world(9);
    let mut process = Process::start(&world);
    process.channel.submit(Token(3), create(&data(0), 1, 1));
    let mut done = Vec::new();
    while done.is_empty() {
        process.channel.wait(None);
        process.channel.reap(&mut done);
    }
    assert_eq!((done[0].token, process.channel.in_flight()), (Token(3), 0));
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let world = world(seed);
        let mut process = Process::start(&world);
        for block in 0..20 {
            process.submit(create(&data(block), 1, 8));
        }
        while world.step() {}
        world.digest()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
