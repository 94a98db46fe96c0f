//! The rules that the store itself can see being broken.
//!
//! | rule | what is watched |
//! |---|---|
//! | C6 | a data name is created at most once, in all processes together |
//! | invariant 4 | once a volume had a lease, only processes that have it change the volume, over its channels or over ones of no lease |
//! | C2 | under one lease, all metadata written carries one generation; headers, journals and segments of that one only |
//! | formats | a segment is published once and never written; a header is only ever published |
//! | invariant 2 | what a snapshot or clone began with is never written in place (`shared.rs`) |
//! | C14 | one record at a time is appended to a journal |

use super::State;
use super::pending::{Incarnation, Origin};
use archvhost::store::{ObjectName, Op, PublishMode};
use archvhost::units::{Generation, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Rules {
    created: BTreeSet<ObjectName>,
    leased: BTreeSet<VolumeId>,
    generations: BTreeMap<(VolumeId, Incarnation), Generation>,
    /// Processes whose lock was seized: they do not know it at once.
    cut_off: BTreeSet<(VolumeId, Incarnation)>,
    violations: Vec<String>,
}

impl Rules {
    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    pub(super) fn lease_seized(&mut self, volume: VolumeId, from: Incarnation) {
        self.cut_off.insert((volume, from));
    }

    pub(super) fn lease_taken(&mut self, volume: VolumeId, process: Incarnation) {
        self.leased.insert(volume);
        // The same process may close the volume and open it again, which raises the generation.
        self.generations.remove(&(volume, process));
    }

    pub(super) fn violate(&mut self, broken: String) {
        self.violations.push(broken);
    }

    fn require(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(broken());
        }
    }
}

impl State {
    pub(super) fn check_rules(&mut self, origin: Origin, op: &Op) {
        match op {
            Op::Read { .. } | Op::Sync { .. } | Op::SyncAll | Op::Stat { .. } | Op::List { .. } => {}
            Op::Create { object, .. } => {
                self.check_lease(origin, object);
                let fresh = self.rules.created.insert(object.clone());
                let is_data = matches!(object, ObjectName::Data { .. });
                self.rules.require(fresh && is_data, || format!("C6: {object} is created a second time"));
            }
            Op::Write { object, .. } | Op::Zero { object, .. } => {
                self.check_lease(origin, object);
                self.check_generation(origin, object);
                self.check_appends(origin, op, object);
                let writable = matches!(object, ObjectName::Data { .. } | ObjectName::Journal { .. });
                self.rules.require(writable, || format!("{object} is written in place"));
            }
            // Collection removes what nobody names, whoever has the lease.
            Op::Remove { object } if origin.lease.is_some() => self.check_lease(origin, object),
            Op::Remove { .. } => {}
            Op::Publish { object, mode, .. } => {
                self.check_lease(origin, object);
                self.check_generation(origin, object);
                let there = self.objects.get(object).is_some_and(|object| object.visible().is_some());
                let replaces_segment =
                    there && *mode == PublishMode::Replace && matches!(object, ObjectName::Segment { .. });
                self.rules.require(!replaces_segment, || format!("{object} is replaced"));
                let is_data = matches!(object, ObjectName::Data { .. });
                self.rules.require(!is_data, || format!("{object} is published"));
            }
        }
    }

    fn check_lease(&mut self, origin: Origin, object: &ObjectName) {
        let Some(volume) = object.volume() else { return };
        let allowed = !self.rules.leased.contains(&volume)
            || self.rules.cut_off.contains(&(volume, origin.incarnation))
            || (origin.lease.is_none_or(|lease| lease == volume) && self.has_lease(origin.incarnation, volume));
        self.rules.require(allowed, || format!("invariant 4: {object} is changed without the lease"));
    }

    /// A holder writes only metadata of its own generation.
    fn check_generation(&mut self, origin: Origin, object: &ObjectName) {
        let (ObjectName::Header { volume, generation }
        | ObjectName::Journal { volume, generation, .. }
        | ObjectName::Segment { volume, generation, .. }) = object
        else {
            return;
        };
        if origin.lease.is_some() {
            let ours = *self.rules.generations.entry((*volume, origin.incarnation)).or_insert(*generation);
            self.rules.require(ours == *generation, || format!("C2: {object} is written by generation {}", ours.0));
        }
    }

    fn check_appends(&mut self, origin: Origin, op: &Op, object: &ObjectName) {
        let is_journal = matches!(object, ObjectName::Journal { .. });
        let same = |other: &Op| matches!(other, Op::Write { object: written, .. } if written == object);
        let parallel = matches!(op, Op::Write { .. })
            && is_journal
            && self.pending.iter().any(|p| p.origin.incarnation == origin.incarnation && same(&p.op));
        self.rules.require(!parallel, || format!("C14: two records are appended to {object} at once"));
    }
}
