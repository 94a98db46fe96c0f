//! How an operation ends: what it reports, and what becomes durable by it.

use super::State;
use super::faults::PersistenceHabit;
use super::object::{OpId, SimObject};
use super::pending::{ChannelId, Pending};
use archvhost::store::{Completion, Durability, ListScope, ObjectName, Op, Outcome, Persistence};
use archvhost::units::Generation;
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(super) fn finish(&mut self, index: usize) {
        self.note("end", index);
        self.count_durable_step(index);
        let pending = self.pending.swap_remove(index);
        let outcome = self.outcome(&pending);
        self.count_header(&pending.op);
        let is_sync = matches!(pending.op, Op::Sync { .. } | Op::SyncAll);
        let (id, origin) = (pending.id, pending.origin);
        if self.lives(origin.incarnation) {
            self.failed_syncs.extend((is_sync && pending.failure.is_some()).then_some((id, origin.lease)));
            let completion = pending.completion(outcome);
            self.ended.entry(origin.channel).or_default().push((id, completion));
        }
    }

    /// The completions that a channel has not seen; from now on its owner knows of them.
    pub(super) fn reap(&mut self, channel: ChannelId) -> Vec<Completion> {
        let ended = self.ended.remove(&channel).unwrap_or_default();
        let report = |(id, completion)| {
            if let Some(unsynced) = self.unsynced.get_mut(&id) {
                unsynced.reported = true;
            }
            if let Some(volume) = self.failed_syncs.remove(&id) {
                self.unsure.extend(volume);
            }
            completion
        };
        ended.into_iter().map(report).collect()
    }

    /// What a sync submitted now makes durable: listed objects' changes and the device's, if their submitter knows that
    /// they ended. The changes of a dead process count once they have ended.
    pub(super) fn covered_by(&self, op: &Op) -> Vec<OpId> {
        let objects: Vec<&ObjectName> = match op {
            Op::Sync { objects } => objects.iter().collect(),
            Op::SyncAll => self.objects.keys().collect(),
            _ => return Vec::new(),
        };
        let in_flight: BTreeSet<OpId> = self.pending.iter().map(|pending| pending.id).collect();
        let listed: BTreeSet<OpId> =
            objects.into_iter().filter_map(|name| self.objects.get(name)).flat_map(SimObject::unsynced).collect();
        let known = self.unsynced.iter().filter(|(id, unsynced)| {
            let ended = unsynced.reported || (!self.lives(unsynced.origin) && !in_flight.contains(id));
            ended && !unsynced.spoiled && (listed.contains(id) || unsynced.persistence == Persistence::Device)
        });
        known.map(|(id, _)| *id).collect()
    }

    fn outcome(&mut self, pending: &Pending) -> Outcome {
        let failed = pending.failure.is_some();
        match &pending.op {
            Op::Sync { .. } | Op::SyncAll => {
                self.end_sync(pending, failed);
                Outcome::Done
            }
            Op::Publish { .. } | Op::Remove { .. } => {
                if !failed && self.is_durable_at_once(pending) {
                    self.settle(&[pending.id]);
                }
                Outcome::Done
            }
            Op::Read { .. } => Outcome::Done,
            Op::Write { object, durability, .. } => {
                let (object, durability) = (object.clone(), *durability);
                self.changed(&object, pending, durability)
            }
            Op::Create { object, .. } | Op::Zero { object, .. } => {
                let object = object.clone();
                self.changed(&object, pending, Durability::Cached)
            }
            Op::Stat { object } => {
                let visible = self.objects.get(object).and_then(SimObject::visible);
                Outcome::Size(visible.map_or(0, |content| u64::try_from(content.len()).expect("small")))
            }
            Op::List { scope, limit, .. } => Outcome::Names(self.list(*scope, pending, *limit)),
        }
    }

    /// A publication is several steps of its process: one that was in flight when the process died may be seen, but nobody
    /// made it durable.
    fn is_durable_at_once(&self, pending: &Pending) -> bool {
        let all_durable = self.habits.persistence == PersistenceHabit::AllDurable;
        let alive = self.lives(pending.origin.incarnation);
        all_durable || (alive && matches!(pending.op, Op::Publish { .. }))
    }

    /// A failed sync made durable some of what it should have; the rest of its volume, no later sync will. Others' it may have
    /// left to theirs.
    fn end_sync(&mut self, pending: &Pending, failed: bool) {
        if !failed {
            self.settle(&pending.covers);
            return;
        }
        let (done, spoiled): (Vec<OpId>, Vec<OpId>) = pending.covers.iter().partition(|_| self.rng.one_in(2));
        self.settle(&done);
        for id in spoiled {
            if let Some(unsynced) = self.unsynced.get_mut(&id) {
                unsynced.spoiled |= pending.origin.lease.is_some() && unsynced.volume == pending.origin.lease;
            }
        }
    }

    fn settle(&mut self, covered: &[OpId]) {
        let covered: BTreeSet<OpId> = covered.iter().copied().collect();
        for object in self.objects.values_mut().filter(|object| object.has_unsynced()) {
            object.settle(|id| covered.contains(&id));
        }
        self.unsynced.retain(|id, _| !covered.contains(id));
        self.objects.retain(|_, object| !object.is_forgotten());
    }

    fn changed(&mut self, name: &ObjectName, pending: &Pending, durability: Durability) -> Outcome {
        let persistence = self.persistence(name, pending, durability);
        if pending.failure.is_none() && persistence == Persistence::Durable {
            self.settle(&[pending.id]);
        } else if let Some(unsynced) = self.unsynced.get_mut(&pending.id) {
            unsynced.persistence = persistence;
        }
        Outcome::Changed(persistence)
    }

    /// An overwrite within an object that has no unsynced metadata may be in the device's cache; anything else waits for
    /// the object's own sync.
    fn persistence(&mut self, name: &ObjectName, pending: &Pending, durability: Durability) -> Persistence {
        let habit = self.habits.persistence;
        if durability == Durability::Durable || habit == PersistenceHabit::AllDurable {
            return Persistence::Durable;
        }
        let device = match habit {
            PersistenceHabit::AllDurable | PersistenceHabit::AllObject => false,
            PersistenceHabit::DeviceWherePossible => true,
            PersistenceHabit::Mixed => self.rng.one_in(2),
        };
        let clean = self.objects.get(name).is_some_and(|object| self.is_clean_overwrite(object, pending));
        if device && clean { Persistence::Device } else { Persistence::Object }
    }

    fn is_clean_overwrite(&self, object: &SimObject, pending: &Pending) -> bool {
        let metadata_pending = object
            .unsynced()
            .any(|id| id != pending.id && self.unsynced.get(&id).is_some_and(|u| u.persistence == Persistence::Object));
        let (offset, len) = pending.span().expect("a change of an object's bytes");
        object.existence_is_durable() && !metadata_pending && offset + len <= object.durable_len()
    }

    /// The names that a listing submitted now would find, if nothing came or went meanwhile.
    pub(super) fn names_now(&self, op: &Op) -> Vec<ObjectName> {
        let Op::List { scope, after, .. } = op else { return Vec::new() };
        let exists = self.objects.iter().filter(|(_, object)| object.visible().is_some()).map(|(name, _)| name);
        let behind = exists.filter(|name| after.as_ref().is_none_or(|after| *name > after));
        let mut last_volume = after.as_ref().and_then(ObjectName::volume).filter(|_| *scope == ListScope::Volumes);
        let in_scope = behind.filter(|name| match (*scope, name) {
            (ListScope::Names, ObjectName::Name(_)) => true,
            (ListScope::Volumes, ObjectName::Header { volume, .. }) => last_volume.replace(*volume) != Some(*volume),
            (
                ListScope::Metadata(id),
                ObjectName::Header { volume, .. }
                | ObjectName::Journal { volume, .. }
                | ObjectName::Segment { volume, .. },
            )
            | (ListScope::Data(id), ObjectName::Data { volume, .. }) => *volume == id,
            _ => false,
        });
        in_scope.cloned().collect()
    }

    /// What a listing finds that took its time: of names that came or went meanwhile, some.
    fn list(&mut self, scope: ListScope, pending: &Pending, limit: usize) -> Vec<ObjectName> {
        // Which of its headers stands for a volume does not matter.
        let key = |name: &ObjectName| match scope {
            ListScope::Volumes => name.volume().map(|volume| ObjectName::Header { volume, generation: Generation(0) }),
            _ => Some(name.clone()),
        };
        let mut found: BTreeMap<ObjectName, (ObjectName, u32)> = BTreeMap::new();
        for name in pending.listed.iter().cloned().chain(self.names_now(&pending.op)) {
            let key = key(&name).expect("only headers stand for volumes");
            let times = found.get(&key).map_or(0, |(_, times)| *times);
            found.insert(key, (name, times + 1));
        }
        let found = found.into_values().filter(|(_, times)| *times == 2 || self.rng.one_in(2));
        found.map(|(name, _)| name).take(limit).collect()
    }
}
