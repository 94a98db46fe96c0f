//! Changes of data indexes on their way, many in one operation.
//!
//! RADOS lists objects by the hash of their names. To list them in order, each is an entry in the omap of its shard's
//! index object: **written before the object is created, removed after the object was**, so a listing never misses an
//! object, and at worst names one that does not exist. What a channel's operations want of one index object while a
//! change of it is under way goes together into the next:
//!
//! ```text
//!   create ─► add ─┐  first in this shard: announce it in ID.m
//!   create ─► add ─┴─► one omap operation ─► all their objects, at once
//!   remove ─► the object ─► drop ─────────► one omap operation ─► done
//! ```
//! Pure: it decides what is to be started, the channel starts it.

use super::compound::WriteOp;
use super::error::Failure;
use super::key::{self, Key, Shard};
use super::library::Library;
use super::operation::Operation;
use crate::store::ObjectName;
use crate::units::VolumeId;
use rustc_hash::FxHashMap;
use std::mem;

/// Entries in one operation: some 40 KiB.
const BATCH_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Index {
    shards: FxHashMap<Place, State>,
    /// Where something may be started.
    ready: Vec<Place>,
}

type Place = (VolumeId, Shard);

#[derive(Default)]
struct State {
    announced: Announced,
    adding: Lane,
    dropping: Lane,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Announced {
    #[default]
    No,
    UnderWay,
    Yes,
}

/// Operations that want the same change.
#[derive(Default)]
struct Lane {
    under_way: bool,
    waiting: Vec<Operation>,
}

/// One change of one index object, and the operations that wait for it.
pub(super) struct Batch {
    place: Place,
    change: Change,
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The shard becomes known.
    Announce,
    /// Objects that will be created.
    Add,
    /// Objects that were removed.
    Drop,
}

impl Index {
    /// A creation waits for its object's entry, a removal for the entry's end.
    pub(super) fn push(&mut self, operation: Operation) {
        let place = place(operation.object());
        let state = self.shards.entry(place).or_default();
        let lane = if operation.is_create() { &mut state.adding } else { &mut state.dropping };
        lane.waiting.push(operation);
        if lane.waiting.len() == 1 && !lane.under_way {
            self.ready.push(place);
        }
    }

    /// What is to be started now.
    pub(super) fn next(&mut self) -> Option<Batch> {
        while let Some(place) = self.ready.last().copied() {
            if let Some(batch) = self.shards.get_mut(&place).and_then(|state| state.next(place)) {
                return Some(batch);
            }
            self.ready.pop();
        }
        None
    }

    /// The batch has ended. Returns the operations that can go on, or that have failed with it.
    pub(super) fn ended(&mut self, batch: Batch, answer: Result<(), Failure>) -> Vec<Operation> {
        let Batch { place, change, mut operations } = batch;
        let state = self.shards.entry(place).or_default();
        match (change, answer) {
            (Change::Announce, Ok(())) => state.announced = Announced::Yes,
            (Change::Announce, Err(_)) => {
                state.announced = Announced::No;
                operations = mem::take(&mut state.adding.waiting);
            }
            (Change::Add, _) => state.adding.under_way = false,
            (Change::Drop, _) => state.dropping.under_way = false,
        }
        self.ready.push(place);
        operations
    }
}

fn place(object: &ObjectName) -> Place {
    match object {
        ObjectName::Data { volume, block, .. } => (*volume, Shard::of(*block)),
        other => unreachable!("{other} has no data index"),
    }
}

impl State {
    fn next(&mut self, place: Place) -> Option<Batch> {
        if let Some(operations) = self.dropping.take() {
            return Some(Batch { place, change: Change::Drop, operations });
        }
        match self.announced {
            Announced::UnderWay => None,
            Announced::No if self.adding.waiting.is_empty() => None,
            Announced::No => {
                self.announced = Announced::UnderWay;
                Some(Batch { place, change: Change::Announce, operations: Vec::new() })
            }
            Announced::Yes => self.adding.take().map(|operations| Batch { place, change: Change::Add, operations }),
        }
    }
}

impl Lane {
    /// All that wait, if nothing is under way and there are any.
    fn take(&mut self) -> Option<Vec<Operation>> {
        if self.under_way || self.waiting.is_empty() {
            return None;
        }
        self.under_way = true;
        let later = self.waiting.split_off(self.waiting.len().min(BATCH_MAX));
        Some(mem::replace(&mut self.waiting, later))
    }
}

impl Batch {
    /// The object that is changed.
    pub(super) fn object(&self) -> Key {
        let (volume, shard) = self.place;
        match self.change {
            Change::Announce => key::metadata_index(volume),
            Change::Add | Change::Drop => key::data_index(volume, shard),
        }
    }

    pub(super) fn op(&self, library: &'static Library) -> WriteOp {
        let op = WriteOp::new(library);
        let entries: Vec<Key> = self.operations.iter().map(|operation| key::entry(operation.object())).collect();
        match self.change {
            Change::Announce => op.add_entries([key::shard_entry(self.place.1).as_c_str()].into_iter()),
            Change::Add => op.add_entries(entries.iter().map(Key::as_c_str)),
            Change::Drop => op.remove_entries(entries.iter().map(Key::as_c_str)),
        }
    }

    /// What the answer means: entries of an index that is not there are gone.
    pub(super) fn answer<T>(&self, answer: Result<T, Failure>) -> Result<(), Failure> {
        match (self.change, answer) {
            (Change::Drop, Err(Failure(libc::ENOENT))) => Ok(()),
            (_, answer) => answer.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Buffer, Op, Token};
    use crate::units::{BlockIndex, Epoch};

    fn data(block: u64) -> ObjectName {
        ObjectName::Data { volume: VolumeId([1; 16]), epoch: Epoch(1), block: BlockIndex(block) }
    }

    fn create(block: u64) -> Operation {
        let op = Op::Create { object: data(block), offset: 0, buffer: Buffer::zeroed(0), size: 1 };
        Operation::from_op(Token(block), op).ok().unwrap()
    }

    fn remove(block: u64) -> Operation {
        Operation::from_op(Token(block), Op::Remove { object: data(block) }).ok().unwrap()
    }

    fn blocks(operations: &[Operation]) -> Vec<ObjectName> {
        operations.iter().map(|operation| operation.object().clone()).collect()
    }

    #[test]
    fn the_first_creation_in_a_shard_announces_it_once() {
        let mut index = Index::default();
        index.push(create(1));
        index.push(create(2));
        let announcement = index.next().unwrap();
        assert_eq!((announcement.change, announcement.operations.len()), (Change::Announce, 0));
        assert!(index.next().is_none());
        assert!(index.ended(announcement, Ok(())).is_empty());
        let batch = index.next().unwrap();
        assert_eq!((batch.change, blocks(&batch.operations)), (Change::Add, vec![data(1), data(2)]));
        index.ended(batch, Ok(()));
        index.push(create(3));
        assert_eq!(index.next().unwrap().change, Change::Add);
    }

    #[test]
    fn what_comes_while_a_change_is_under_way_goes_with_the_next() {
        let mut index = Index::default();
        index.push(remove(1));
        let first = index.next().unwrap();
        index.push(remove(2));
        index.push(remove(3));
        assert!(index.next().is_none());
        assert_eq!(blocks(&index.ended(first, Ok(()))), [data(1)]);
        let second = index.next().unwrap();
        assert_eq!((second.change, blocks(&second.operations)), (Change::Drop, vec![data(2), data(3)]));
    }

    #[test]
    fn all_that_waits_fails_with_an_announcement_and_the_next_tries_again() {
        let mut index = Index::default();
        index.push(create(1));
        let announcement = index.next().unwrap();
        index.push(create(2));
        let failed = index.ended(announcement, Err(Failure(libc::ENOSPC)));
        assert_eq!(blocks(&failed), [data(1), data(2)]);
        assert!(index.next().is_none());
        index.push(create(3));
        assert_eq!(index.next().unwrap().change, Change::Announce);
    }

    #[test]
    fn a_batch_is_bounded_and_nothing_is_lost() {
        let mut index = Index::default();
        let count = u64::try_from(2 * BATCH_MAX + 1).unwrap();
        (0..count).for_each(|block| index.push(remove(block)));
        let mut sizes = Vec::new();
        while let Some(batch) = index.next() {
            sizes.push(index.ended(batch, Ok(())).len());
        }
        assert_eq!(sizes, [BATCH_MAX, BATCH_MAX, 1]);
    }
}
