//! What people ask for while guests work: snapshots, clones. Each verb runs beside the guests' requests, may fail where
//! a fault explains it, and may be cut short by a crash anywhere.

use super::daemon::text;
use super::estate::{Capture, Existence, Key};
use super::life::{Life, OpenEnd, Stop};
use archvhost::admin::branch::{Branch, CloneRequest, branch, clone_snapshot};
use archvhost::map::format::header::VolumeKind;
use archvhost::volume::{Access, VolumeError};

/// Verbs at a time.
const VERBS_MAX: usize = 2;

/// Volumes and snapshots at a time.
const KNOWN_MAX: usize = 7;

#[derive(Debug, Clone)]
pub enum Verb {
    /// Snapshots of open volumes, or a clone of one, all of the same instant.
    Branch(Vec<Capture>),
    /// A clone of a snapshot.
    Clone { new: Key },
}

impl Life<'_> {
    /// Starts some verb, if there is anything to be done.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn start_verb(&mut self) -> Result<(), Stop> {
        let there = self.estate.keys(|known| known.existence != Existence::Gone).len();
        if self.verbs.len() >= VERBS_MAX || there >= KNOWN_MAX {
            return Ok(());
        }
        match self.rng.below(5) {
            0..=2 => self.start_branch(VolumeKind::Snapshot),
            3 => self.start_branch(VolumeKind::Disk),
            _ => self.start_clone(),
        }
    }

    fn start_branch(&mut self, kind: VolumeKind) -> Result<(), Stop> {
        let busy = |key: &Key| {
            self.verbs
                .values()
                .any(|verb| matches!(verb, Verb::Branch(captures) if captures.iter().any(|c| c.source == *key)))
        };
        let mut sources: Vec<Key> = self.disks().into_iter().filter(|key| !busy(key)).collect();
        if kind == VolumeKind::Disk || self.rng.one_in(2) {
            while sources.len() > 1 {
                sources.swap_remove(self.rng.index(sources.len()));
            }
        }
        if sources.is_empty() {
            return Ok(());
        }
        let captures: Vec<Capture> = sources.into_iter().map(|key| self.estate.begin_capture(key, kind)).collect();
        let branches = captures.iter().filter_map(|capture| {
            let name = self.estate.get(capture.new).name.clone();
            Some(Branch { source: self.daemon.volume(capture.source)?, name, kind, size: None })
        });
        let branches: Vec<Branch> = branches.collect();
        let number = self.verb(Verb::Branch(captures));
        let work = move |io, store| async move { branch(&io, &store, &branches).await.map(drop) };
        self.daemon.start_verb(number, work).map_err(Stop::Violation)
    }

    fn start_clone(&mut self) -> Result<(), Stop> {
        let snapshots =
            self.estate.keys(|known| known.kind == VolumeKind::Snapshot && known.existence == Existence::There);
        if snapshots.is_empty() {
            return Ok(());
        }
        let snapshot = *self.rng.pick(&snapshots);
        let new = self.estate.add_clone(snapshot, Existence::Doubtful);
        let (source, name) = (self.estate.get(snapshot).name.clone(), self.estate.get(new).name.clone());
        let request = CloneRequest { source, name, size: None };
        let number = self.verb(Verb::Clone { new });
        let work = move |io, store| async move {
            let id = archvhost::volume::open::find(&io, &request.source).await?;
            clone_snapshot(&io, &store, id, &request).await
        };
        self.daemon.start_verb(number, work).map_err(Stop::Violation)
    }

    fn verb(&mut self, verb: Verb) -> u32 {
        self.counts.verbs += 1;
        let number = u32::try_from(self.counts.verbs).expect("a few verbs");
        self.world.say(|| format!("verb {number}: {verb:?}"));
        self.verbs.insert(number, verb);
        number
    }

    pub(super) fn verb_ended(&mut self, number: u32, result: Result<(), VolumeError>) -> Result<(), String> {
        let verb = self.verbs.remove(&number).expect("a verb ends once");
        self.world.say(|| format!("verb {number} ends: {:?}", result.as_ref().map_err(text)));
        let existence = match &result {
            Ok(()) => Existence::There,
            Err(error) if self.world.injected().any() && !self.must_succeed() => {
                let _explained = error;
                self.counts.verbs_failed += 1;
                Existence::Doubtful
            }
            Err(error) => return Err(format!("{verb:?} fails for no reason: {}", text(error))),
        };
        self.end_verb(verb, existence);
        Ok(())
    }

    /// The crash came while verbs were under way.
    pub fn cut_verbs_short(&mut self) {
        for verb in std::mem::take(&mut self.verbs).into_values() {
            self.end_verb(verb, Existence::Doubtful);
        }
    }

    fn end_verb(&mut self, verb: Verb, existence: Existence) {
        match verb {
            Verb::Branch(captures) => self.estate.end_captures(&captures, existence),
            Verb::Clone { new } => self.estate.get_mut(new).existence = existence,
        }
    }

    // ---- looking

    /// Opens something that is not open, reads all of it, and closes it again.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn look_at(&mut self, key: Key) -> Result<(), Stop> {
        if self.open.contains_key(&key) {
            return self.verify_one(key);
        }
        let doubtful = self.estate.get(key).existence == Existence::Doubtful;
        match self.open(key, Access::ReadOnly)? {
            OpenEnd::Open => {
                self.estate.decide(key, true).map_err(Stop::Violation)?;
                self.verify_one(key)?;
                self.close(key)
            }
            OpenEnd::NotFound if doubtful => self.estate.decide(key, false).map_err(Stop::Violation),
            OpenEnd::NotFound => Err(Stop::Violation(format!("{} does not exist any more", self.estate.get(key).name))),
            OpenEnd::Held | OpenEnd::Excused => Ok(()),
        }
    }
}
