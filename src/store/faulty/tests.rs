//! That faults happen when and to what they should.

use super::{Action, Faults, FaultyStore, Rule};
use crate::store::io::{Io, block_on};
use crate::store::memory::MemoryStore;
use crate::store::{Buffer, Durability, ObjectName, Op, OpKind, Store, StoreError, StoreErrorKind};
use crate::units::{BlockIndex, Epoch, VolumeId};
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

fn data(block: u64) -> ObjectName {
    ObjectName::Data { volume: VolumeId([1; 16]), epoch: Epoch(1), block: BlockIndex(block) }
}

fn with_faults<T, F: Future<Output = Result<T, StoreError>>>(work: impl FnOnce(Io, Arc<Faults>) -> F) -> T {
    let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
    let faults = faulty.faults();
    let store: Arc<dyn Store> = Arc::new(faulty);
    block_on(&store, None, |io| work(io, faults)).unwrap()
}

async fn write(io: &Io, block: u64, byte: u8) -> Result<(), StoreError> {
    io.write(data(block), 0, Buffer::copied_from(&[byte]), Durability::Cached).await.map(drop)
}

async fn read(io: &Io, block: u64) -> Result<u8, StoreError> {
    Ok(io.read(data(block), 0, Buffer::zeroed(1)).await?.to_vec()[0])
}

#[test]
fn the_third_write_to_one_object_fails_twice_and_does_nothing() {
    with_faults(|io, faults| async move {
        for block in 1..3 {
            io.create(data(block), 0, Buffer::zeroed(1), 1).await?;
        }
        let one = |op: &Op| OpKind::of(op) == OpKind::Write && op.object() == Some(&data(1));
        faults.add(Rule::when(one, Action::Fail(libc::ENOSPC)).after(2).times(2));
        for (byte, fails) in [(1, false), (2, false), (3, true), (4, true), (5, false)] {
            write(&io, 2, byte).await?;
            let written = write(&io, 1, byte).await;
            assert_eq!(written.is_err(), fails, "{byte}");
            if let Err(error) = written {
                assert_eq!(error.kind(), StoreErrorKind::NoSpace);
                assert_eq!(read(&io, 1).await?, 2);
            }
        }
        Ok(())
    });
}

#[test]
fn a_write_that_fails_afterwards_has_happened() {
    with_faults(|io, faults| async move {
        io.create(data(1), 0, Buffer::zeroed(1), 1).await?;
        faults.add(Rule::on(OpKind::Write, Action::FailAfter(libc::EIO)).times(1));
        assert_eq!(write(&io, 1, 7).await.unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(read(&io, 1).await?, 7);
        Ok(())
    });
}

#[test]
fn a_held_operation_begins_when_its_rule_goes() {
    with_faults(|io, faults| async move {
        io.create(data(1), 0, Buffer::copied_from(&[1]), 1).await?;
        let rule = faults.add(Rule::on(OpKind::Write, Action::Hold));
        let op =
            Op::Write { object: data(1), offset: 0, buffer: Buffer::copied_from(&[2]), durability: Durability::Cached };
        let held = io.run(op);
        assert_eq!(read(&io, 1).await?, 1);
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            faults.remove(rule);
        });
        held.await.result?;
        assert_eq!(read(&io, 1).await?, 2);
        other.join().unwrap();
        Ok(())
    });
}

#[test]
fn a_delayed_operation_lets_others_pass() {
    with_faults(|io, faults| async move {
        io.create(data(1), 0, Buffer::copied_from(&[1]), 1).await?;
        let delay = Duration::from_millis(30);
        faults.add(Rule::on(OpKind::Stat, Action::Delay(delay)));
        let start = Instant::now();
        let slow = io.run(Op::Stat { object: data(1) });
        assert_eq!(read(&io, 1).await?, 1);
        slow.await.result?;
        assert!(start.elapsed() >= delay);
        Ok(())
    });
}

#[test]
fn random_faults_repeat_with_their_seed() {
    let run = |seed| {
        with_faults(|io, faults| async move {
            io.create(data(1), 0, Buffer::zeroed(1), 1).await?;
            faults.randomly(seed, 200_000, libc::EIO);
            let mut failed = Vec::new();
            for number in 0..200 {
                if read(&io, 1).await.is_err() {
                    failed.push(number);
                }
            }
            Ok(failed)
        })
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!((10..80).contains(&run(3).len()));
}
