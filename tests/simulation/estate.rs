//! Everything that should exist in the store: volumes and snapshots, each with what it may hold, and which of them were made
//! together.

use super::model::clock::Clock;
use super::model::cut::{Cut, JointCut};
use super::model::stamp::Value;
use super::model::{Model, Tick};
use archvhost::map::format::header::VolumeKind;
use archvhost::units::VolumeName;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Names a volume or snapshot of a run, whether it exists or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    There,
    /// A crash or a failure came while it was made: it exists, whole, or not at all.
    Doubtful,
    /// The verb that removes it has begun: nothing but that verb looks at it again.
    Leaving,
    Gone,
}

pub struct Known {
    pub name: VolumeName,
    pub kind: VolumeKind,
    /// What it was branched from.
    pub parent: Option<Key>,
    /// Its size.
    pub sectors: u64,
    /// The size that a verb has begun to give it.
    pub wanted_sectors: Option<u64>,
    pub model: Model,
    /// A rollback was cut short: if it is not as `model` says, it is as this says.
    pub otherwise: Option<(u64, Model)>,
    pub existence: Existence,
    /// Nobody has looked at it since the power failed.
    after_power_cut: bool,
    /// It was found after the death of its maker: the power may take it back.
    is_shaky: bool,
    /// What it was made with.
    group: Option<usize>,
    /// Where it came from, until its content was seen.
    cut: Option<Cut>,
}

/// Volumes that were captured at one instant.
struct Group {
    instants: JointCut,
    /// Whether they exist, as soon as that is known of one.
    exists: Option<bool>,
}

pub struct Estate {
    pub clock: Rc<Clock>,
    known: BTreeMap<Key, Known>,
    groups: Vec<Group>,
}

/// A capture under way.
#[derive(Debug, Clone)]
pub struct Capture {
    pub source: Key,
    pub new: Key,
    began: Tick,
}

impl Known {
    /// What it has for sure.
    pub fn usable_sectors(&self) -> u64 {
        self.sectors.min(self.wanted_sectors.unwrap_or(self.sectors))
    }
}

impl Estate {
    pub fn new() -> Self {
        Self { clock: Rc::default(), known: BTreeMap::new(), groups: Vec::new() }
    }

    /// A volume that was never written.
    pub fn add(&mut self, kind: VolumeKind, sectors: u64, existence: Existence) -> Key {
        let key = Key(u32::try_from(self.known.len()).expect("a few volumes"));
        let prefix = if kind == VolumeKind::Snapshot { "snapshot" } else { "disk" };
        let name = VolumeName::new(&format!("{prefix}-{}", key.0)).expect("a good name");
        let model = Model::new(&self.clock);
        let known = Known {
            name,
            kind,
            parent: None,
            sectors,
            wanted_sectors: None,
            model,
            otherwise: None,
            existence,
            after_power_cut: false,
            is_shaky: false,
            group: None,
            cut: None,
        };
        self.known.insert(key, known);
        key
    }

    pub fn get(&self, key: Key) -> &Known {
        &self.known[&key]
    }

    pub fn get_mut(&mut self, key: Key) -> &mut Known {
        self.known.get_mut(&key).expect("keys are of volumes that were added")
    }

    pub fn keys(&self, wanted: impl Fn(&Known) -> bool) -> Vec<Key> {
        self.known.iter().filter(|(_, known)| wanted(known)).map(|(key, _)| *key).collect()
    }

    /// Something of this kind begins to be captured from the source.
    pub fn begin_capture(&mut self, source: Key, kind: VolumeKind) -> Capture {
        let sectors = self.get(source).sectors;
        let new = self.add(kind, sectors, Existence::Doubtful);
        self.get_mut(new).parent = Some(source);
        Capture { source, new, began: self.get_mut(source).model.begin_cut() }
    }

    /// These were captured together, or perhaps were.
    pub fn end_captures(&mut self, captures: &[Capture], existence: Existence) {
        let ends = captures.iter().map(|capture| (capture.new, self.end_capture(capture)));
        let cuts: Vec<(Key, Cut)> = ends.collect();
        let instants = JointCut::new(cuts.iter().map(|(_, cut)| cut));
        let exists = (existence == Existence::There).then_some(true);
        for (new, cut) in cuts {
            let model = Model::captured(&cut, &self.clock);
            let group = self.groups.len();
            let known = self.get_mut(new);
            (known.model, known.existence) = (model, existence);
            (known.group, known.cut) = (Some(group), Some(cut));
        }
        if exists == Some(true) {
            // All of it is durable, in the source too.
            for capture in captures {
                self.get_mut(capture.source).model.flushed(capture.began);
            }
        }
        self.groups.push(Group { instants, exists });
    }

    fn end_capture(&mut self, capture: &Capture) -> Cut {
        self.get_mut(capture.source).model.end_cut(capture.began)
    }

    /// A clone of a snapshot: whatever that is.
    pub fn add_clone(&mut self, snapshot: Key, existence: Existence) -> Key {
        let new = self.add(VolumeKind::Disk, self.get(snapshot).sectors, existence);
        self.get_mut(new).parent = Some(snapshot);
        let model = self.get_mut(snapshot).model.branched();
        self.get_mut(new).model = model;
        new
    }

    /// It was opened for writing: its new header is durable.
    pub fn opened_for_writing(&mut self, key: Key) {
        self.get_mut(key).is_shaky = false;
    }

    /// It turned out whether the volume exists.
    ///
    /// # Errors
    /// When others of its group do and it does not, or the other way round.
    pub fn decide(&mut self, key: Key, exists: bool) -> Result<(), String> {
        let known = self.get_mut(key);
        let was_doubtful = known.existence == Existence::Doubtful;
        known.existence = if exists { Existence::There } else { Existence::Gone };
        known.is_shaky |= was_doubtful && exists && !known.after_power_cut;
        let name = known.name.clone();
        let Some(group) = known.group else { return Ok(()) };
        let others = self.groups[group].exists.replace(exists);
        if others.is_some_and(|others| others != exists) {
            return Err(format!("C8: {name} exists: {exists}, but what was made with it: {}", !exists));
        }
        Ok(())
    }

    /// A verb gives the volume another size: from now on its guest uses no more than it has for sure.
    pub fn begin_resize(&mut self, key: Key, sectors: u64) {
        let known = self.get_mut(key);
        known.wanted_sectors = Some(sectors);
        known.model.begin_shrink(sectors);
    }

    /// The size that the volume turned out to have.
    ///
    /// # Errors
    /// When nobody ever wanted that.
    pub fn has_size(&mut self, key: Key, sectors: u64) -> Result<(), String> {
        let known = self.get_mut(key);
        let rolled_back = known.otherwise.as_ref().map(|(sectors, _)| *sectors);
        let possible = [Some(known.sectors), known.wanted_sectors, rolled_back];
        if !possible.contains(&Some(sectors)) {
            return Err(format!("{} has {sectors} sectors, and should have one of {possible:?}", known.name));
        }
        known.sectors = sectors;
        if known.wanted_sectors.take() == Some(sectors) {
            known.model.truncate(sectors);
        }
        Ok(())
    }

    /// A rollback of a volume to a snapshot has ended, or was cut short.
    pub fn roll_back(&mut self, key: Key, snapshot: Key, existence: Existence) {
        let sectors = self.get(snapshot).sectors;
        let model = self.get_mut(snapshot).model.branched();
        let known = self.get_mut(key);
        if existence == Existence::There {
            (known.model, known.sectors, known.otherwise) = (model, sectors, None);
        } else {
            known.otherwise = Some((sectors, model));
        }
    }

    /// Everything that the volume holds, when a rollback of it was cut short: that tells what came of it.
    ///
    /// # Errors
    /// When it is neither as before nor as it should have become.
    pub fn found_after_rollback(&mut self, key: Key, submitted: Tick, found: &[(u64, Vec<u8>)]) -> Result<(), String> {
        let known = self.get_mut(key);
        let Some((_, other)) = known.otherwise.take() else { return Ok(()) };
        let check =
            |model: &mut Model| found.iter().try_for_each(|(first, bytes)| model.check_read(submitted, *first, bytes));
        if let Err(text) = check(&mut known.model) {
            known.model = other;
            check(&mut known.model).map_err(|other| format!("{}: {text}; rolled back: {other}", known.name))?;
        }
        Ok(())
    }

    /// All of the volume was read, with nothing in flight.
    ///
    /// # Errors
    /// When it cannot all have been there at one instant.
    pub fn looked(&mut self, key: Key, found: &BTreeMap<u64, Value>) -> Result<(), String> {
        let known = self.get_mut(key);
        if known.kind == VolumeKind::Snapshot || std::mem::take(&mut known.after_power_cut) {
            // What was found is on the disk, and will be there the next time too.
            known.model.settle();
        }
        let name = known.name.clone();
        let (Some(cut), Some(group)) = (known.cut.take(), known.group) else { return Ok(()) };
        self.groups[group].instants.found(&cut, found).map_err(|text| format!("{name}: {text}"))
    }

    pub fn daemon_died(&mut self) {
        self.known.values_mut().for_each(|known| known.model.daemon_died());
    }

    pub fn power_failed(&mut self) {
        for known in self.known.values_mut() {
            if std::mem::take(&mut known.is_shaky) && known.existence == Existence::There {
                known.existence = Existence::Doubtful;
                if let Some(group) = known.group {
                    self.groups[group].exists = None;
                }
            }
            known.model.power_failed();
            if let Some((_, model)) = &mut known.otherwise {
                model.power_failed();
            }
            known.after_power_cut = true;
        }
    }
}
