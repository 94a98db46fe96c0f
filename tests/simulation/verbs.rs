//! What people ask for while guests work: snapshots, clones, other sizes, removal, collection. Each verb runs beside the guests' requests, may fail where
//! a fault explains it, and may be cut short by a crash anywhere.

use super::daemon::{OpenFailure, text};
use super::estate::{Capture, Existence, Key};
use super::life::{Life, OpenEnd, Stop};
use super::workload::regions_within;
use archvhost::admin::branch::{Branch, CloneRequest, branch, clone_snapshot};
use archvhost::admin::collect::{CollectOptions, collect_with};
use archvhost::admin::job::Job;
use archvhost::admin::remove::remove_with;
use archvhost::admin::rollback::set_root;
use archvhost::map::entry::VolumeIndex;
use archvhost::map::format::header::VolumeKind;
use archvhost::store::Store;
use archvhost::store::io::Io;
use archvhost::units::{ByteRange, SECTOR_BYTES, VolumeSize};
use archvhost::volume::capture::Amendment;
use archvhost::volume::lease::{Taken, lock_shared};
use archvhost::volume::open::find;
use archvhost::volume::shrink::Resized;
use archvhost::volume::{Access, Port, VolumeError, VolumeErrorKind};
use std::sync::Arc;

/// Verbs at a time.
const VERBS_MAX: usize = 2;

/// Volumes and snapshots at a time.
const KNOWN_MAX: usize = 7;
const KNOWN_MAX_LAYERED: usize = 12;

#[derive(Debug, Clone)]
pub enum Verb {
    /// Snapshots of open volumes, or a clone of one, all of the same instant.
    Branch(Vec<Capture>),
    /// A clone of a snapshot.
    Clone {
        snapshot: Key,
        new: Key,
    },
    Resize(Key),
    Remove(Key),
    /// Makes a clone independent of all others.
    Flatten(Key),
    Rollback {
        disk: Key,
        snapshot: Key,
    },
    Collect,
}

impl Verb {
    /// Whether the verb works on this volume.
    fn concerns(&self, key: Key) -> bool {
        match self {
            Self::Branch(captures) => captures.iter().any(|capture| [capture.source, capture.new].contains(&key)),
            Self::Clone { snapshot, new: disk } | Self::Rollback { disk, snapshot } => {
                [*snapshot, *disk].contains(&key)
            }
            Self::Resize(other) | Self::Remove(other) | Self::Flatten(other) => *other == key,
            Self::Collect => false,
        }
    }
}

impl Life<'_> {
    /// Starts some verb, if there is anything to be done.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn start_verb(&mut self) -> Result<(), Stop> {
        if self.verbs.len() >= VERBS_MAX {
            return Ok(());
        }
        let known = self.estate.keys(|known| known.existence != Existence::Gone).len();
        let most = if self.plan.is_layered { KNOWN_MAX_LAYERED } else { KNOWN_MAX };
        let verb = if self.plan.is_layered && !self.rng.one_in(8) { 0 } else { self.rng.below(15) };
        match verb {
            0..=3 if known < most => self.start_branch(VolumeKind::Snapshot),
            4 if known < most => self.start_branch(VolumeKind::Disk),
            5 if known < most => self.start_clone(),
            6 | 7 => self.start_resize(),
            8 | 9 if !self.daemon.is_second_host() => self.start_removal(),
            10 => self.start_flattening(),
            11 | 12 if !self.daemon.is_second_host() => self.start_rollback(),
            _ => self.start_collection(),
        }
    }

    fn is_busy(&self, key: Key) -> bool {
        self.verbs.values().any(|verb| verb.concerns(key))
    }

    fn idle_disks(&self) -> Vec<Key> {
        self.disks().into_iter().filter(|key| !self.is_busy(*key)).collect()
    }

    /// Cuts through a place that guests work on, or puts the end back to where it was.
    fn start_resize(&mut self) -> Result<(), Stop> {
        // After one that failed nobody knows the size before the next opening.
        let mut disks = self.idle_disks();
        disks.retain(|key| self.estate.get(*key).wanted_sectors.is_none());
        if disks.is_empty() {
            return Ok(());
        }
        let key = *self.rng.pick(&disks);
        let before = self.estate.get(key).sectors;
        let regions = regions_within(self.plan, self.plan.size.sectors());
        let region = self.rng.pick(&regions).clone();
        let sectors = if self.rng.one_in(3) {
            self.plan.size.sectors()
        } else {
            self.rng.between(region.start, region.end).max(self.plan.regions[0].start + 1)
        };
        let size = VolumeSize::new(sectors * SECTOR_BYTES).expect("positive");
        if sectors == before {
            return Ok(());
        }
        // A guest gives up what lies behind the end before it asks for less.
        self.drain()?;
        self.estate.begin_resize(key, sectors);
        let number = self.verb(Verb::Resize(key));
        let work = move |port: Port| async move {
            if sectors < before {
                let shrunk = port.shrink(size, &Job::default()).await?;
                assert_eq!(shrunk, Resized::Done, "nobody cancelled it");
                return Ok(());
            }
            let volume = Arc::clone(port.volume());
            volume.grow(size).await.map(drop)
        };
        self.daemon.start_verb_on(key, number, work).map_err(Stop::Violation)
    }

    /// As the verb does it: block by block, beside the guest.
    fn start_flattening(&mut self) -> Result<(), Stop> {
        let disks = self.idle_disks();
        if disks.is_empty() {
            return Ok(());
        }
        let key = *self.rng.pick(&disks);
        // From now on it may have none.
        self.estate.get_mut(key).parent = None;
        let number = self.verb(Verb::Flatten(key));
        let work = move |port: Port| async move {
            let volume = Arc::clone(port.volume());
            let object_size = volume.object_size();
            let mut at = 0;
            while at < volume.size().bytes() {
                let rest = ByteRange::new(at, volume.size().bytes() - at);
                let Some(piece) = port.allocated(rest).await? else { break };
                let block = object_size.block_of(piece.offset);
                port.detach(block, |owner, _| owner != VolumeIndex::OWN).await?;
                at = (block.0 + 1) * object_size.bytes();
            }
            volume.amend(Amendment::NoParent).await
        };
        self.daemon.start_verb_on(key, number, work).map_err(Stop::Violation)
    }

    /// A disk that is not open becomes again what one of its snapshots is, or the one that it was cloned from.
    fn start_rollback(&mut self) -> Result<(), Stop> {
        let there = self.estate.keys(|known| known.existence == Existence::There && known.otherwise.is_none());
        let there: Vec<Key> =
            there.into_iter().filter(|key| !self.open.contains_key(key) && !self.is_busy(*key)).collect();
        let (disks, snapshots): (Vec<Key>, Vec<Key>) =
            there.into_iter().partition(|key| self.estate.get(*key).kind == VolumeKind::Disk);
        let is_parent = |child: Key, parent: Key| self.estate.get(child).parent == Some(parent);
        let pairs = disks.iter().flat_map(|disk| snapshots.iter().map(|snapshot| (*disk, *snapshot)));
        let pairs: Vec<(Key, Key)> = pairs.filter(|(d, s)| is_parent(*d, *s) || is_parent(*s, *d)).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let (disk, snapshot) = *self.rng.pick(&pairs);
        // First its last state is made whole, whatever became of its last holder.
        match self.open(disk, Access::ReadWrite)? {
            OpenEnd::Open => self.close(disk)?,
            OpenEnd::Held | OpenEnd::Excused | OpenEnd::NotFound => return Ok(()),
        }
        let (volume, kept) = (self.estate.get(disk).name.clone(), self.estate.get(snapshot).name.clone());
        let lease = match self.daemon.lease(&volume) {
            Ok(lease) => lease,
            Err(OpenFailure::Crashed) => return Err(Stop::Crash),
            Err(_) => return Ok(()),
        };
        let number = self.verb(Verb::Rollback { disk, snapshot });
        let work = move |io: Io, store: Arc<dyn Store>, taken: Taken| async move {
            let id = find(&io, &kept).await?;
            let kept_lease = lock_shared(&store, id, &kept)?;
            set_root(&io, &store, (&taken.lease, &kept_lease), &volume, &kept).await
        };
        self.daemon.start_verb_under(lease, number, work).map_err(Stop::Violation)
    }

    /// Anything but the last disk may go, whatever descends from it.
    fn start_removal(&mut self) -> Result<(), Stop> {
        let leaving = self.estate.keys(|known| known.existence == Existence::Leaving);
        let there = self.estate.keys(|known| known.existence == Existence::There);
        let disks = there.iter().filter(|key| self.estate.get(**key).kind == VolumeKind::Disk).count();
        let may_go = |key: &Key| {
            let last = disks == 1 && self.estate.get(*key).kind == VolumeKind::Disk;
            !last && !self.open.contains_key(key)
        };
        let candidates: Vec<Key> =
            if leaving.is_empty() { there.into_iter().filter(may_go).collect() } else { leaving };
        let candidates: Vec<Key> = candidates.into_iter().filter(|key| !self.is_busy(*key)).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let key = *self.rng.pick(&candidates);
        self.remove(key).map(drop)
    }

    /// Begins to remove it. False when it cannot be had now.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn remove(&mut self, key: Key) -> Result<bool, Stop> {
        let known = self.estate.get(key);
        let (name, leaving) = (known.name.clone(), known.existence != Existence::There);
        let lease = match self.daemon.lease(&name) {
            Ok(lease) => lease,
            Err(OpenFailure::Crashed) => return Err(Stop::Crash),
            Err(OpenFailure::NotFound) if leaving => {
                self.estate.get_mut(key).existence = Existence::Gone;
                return Ok(true);
            }
            Err(OpenFailure::Held) => return Ok(false),
            Err(OpenFailure::Failed(_)) if self.world.injected().any() => return Ok(false),
            Err(error) => return Err(Stop::Violation(format!("{name} cannot be removed: {error:?}"))),
        };
        self.estate.get_mut(key).existence = Existence::Leaving;
        let number = self.verb(Verb::Remove(key));
        let options = self.daemon.lease_options();
        let work = move |io, store, taken| async move {
            let job = Job::default();
            remove_with(&io, &store, &taken, &name, &options, &job).await.map(drop)
        };
        self.daemon.start_verb_under(lease, number, work).map_err(Stop::Violation)?;
        Ok(true)
    }

    /// # Errors
    /// See [`Stop`].
    pub fn start_collection(&mut self) -> Result<(), Stop> {
        if self.verbs.values().any(|verb| matches!(verb, Verb::Collect)) {
            return Ok(());
        }
        let number = self.verb(Verb::Collect);
        let volumes = self.daemon.volumes();
        let options = CollectOptions { dry_run: false, memory_bytes: 1 << 12, spill_dir: self.soft_dir.spill() };
        let work = move |io, store| async move {
            let job = Job::default();
            collect_with(&io, &store, &volumes, &options, &job).await.map(drop)
        };
        self.daemon.start_verb(number, work).map_err(Stop::Violation)
    }

    fn start_branch(&mut self, kind: VolumeKind) -> Result<(), Stop> {
        let mut sources: Vec<Key> = self.idle_disks();
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
        let snapshots: Vec<Key> = snapshots.into_iter().filter(|key| !self.is_busy(*key)).collect();
        if snapshots.is_empty() {
            return Ok(());
        }
        let snapshot = *self.rng.pick(&snapshots);
        let new = self.estate.add_clone(snapshot, Existence::Doubtful);
        let (source, name) = (self.estate.get(snapshot).name.clone(), self.estate.get(new).name.clone());
        let request = CloneRequest { source, name, size: None };
        let number = self.verb(Verb::Clone { snapshot, new });
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
            Err(error) if self.is_explained(error) => {
                self.counts.verbs_failed += 1;
                Existence::Doubtful
            }
            Err(error) => return Err(format!("{verb:?} fails for no reason: {}", text(error))),
        };
        self.end_verb(verb, existence);
        Ok(())
    }

    /// A collection locks what it settles, for a moment.
    fn is_explained(&self, error: &VolumeError) -> bool {
        let collecting = self.verbs.values().any(|verb| matches!(verb, Verb::Collect));
        let held = error.kind() == VolumeErrorKind::Held && collecting;
        held || (self.world.injected().any() && !self.must_succeed())
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
            Verb::Clone { new, .. } => self.estate.get_mut(new).existence = existence,
            Verb::Resize(key) => {
                // If it failed, nobody knows before the next opening.
                if existence == Existence::There
                    && let Some(sectors) = self.estate.get(key).wanted_sectors
                {
                    self.estate.has_size(key, sectors).expect("it was wanted");
                    self.daemon.capacity_changed(key);
                }
            }
            Verb::Remove(key) => {
                if existence == Existence::There {
                    self.estate.get_mut(key).existence = Existence::Gone;
                }
            }
            Verb::Rollback { disk, snapshot } => self.estate.roll_back(disk, snapshot, existence),
            Verb::Flatten(_) | Verb::Collect => {}
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
