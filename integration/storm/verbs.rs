//! What happens to the volumes in a storm, one function a verb; and what the model says of it afterwards.

use super::captured::Moment;
use super::content::{Content, SECTOR_BYTES, ZEROS};
use super::daemon::Place;
use super::reading::read_all;
use super::storm::{Disk, Fallible, Outcome, Storm};
use std::sync::Arc;

/// Volumes and snapshots at a time; more are not made until some are removed.
const DISKS_MAX: usize = 7;
const SNAPSHOTS_MAX: usize = 16;
/// No volume grows beyond this.
const SECTORS_MAX: usize = (64 << 20) / SECTOR_BYTES;

impl Storm<'_> {
    /// One verb, chosen at random.
    pub(crate) fn verb(&mut self) -> Fallible<()> {
        let disk = self.any_disk();
        let snapshot = self.any_snapshot();
        let (disks_full, snapshots_full) = (self.disks.len() >= DISKS_MAX, self.snapshots.len() >= SNAPSHOTS_MAX);
        let choice = self.below(100);
        let verb = match choice {
            0..22 if !snapshots_full => "snapshot",
            22..28 if !snapshots_full => "group",
            28..38 if !disks_full => "clone",
            38..44 if !disks_full => "clone-live",
            44..52 => "read",
            52..60 => "rollback",
            60..66 => "grow",
            66..70 => "shrink",
            70..76 => "flatten",
            76..80 => "rename",
            80..84 => "diff",
            84..88 => "compare",
            _ => "remove",
        };
        if self.plan.skips(verb) {
            return Ok(());
        }
        let result = match (verb, snapshot) {
            ("snapshot", _) => self.snapshot(&[disk]),
            ("group", _) => self.group_snapshot(),
            ("clone", Some(snapshot)) => self.clone_snapshot(&snapshot),
            ("clone-live", _) => self.clone_disk(disk),
            ("read", Some(snapshot)) => self.compare_snapshot(&snapshot).map(|_| ()),
            ("rollback", _) => self.roll_back(disk),
            ("grow", _) => self.grow(disk),
            ("shrink", _) => self.shrink(disk),
            ("flatten", _) => self.flatten(disk),
            ("rename", _) => self.rename(disk),
            ("diff", _) => self.diff(disk),
            ("compare", _) => self.compare(disk),
            ("remove", Some(snapshot)) if snapshots_full || self.below(2) == 0 => self.remove_snapshot(&snapshot),
            ("remove", _) => self.remove_disk(disk),
            _ => return Ok(()),
        };
        *self.counts.entry(verb).or_default() += 1;
        result
    }

    fn any_disk(&mut self) -> u64 {
        let which = self.choose(self.disks.len());
        *self.disks.keys().nth(which).expect("a storm has volumes")
    }

    fn any_snapshot(&mut self) -> Option<String> {
        let count = self.snapshots.len();
        let which = if count == 0 { 0 } else { self.choose(count) };
        self.snapshots.keys().nth(which).cloned()
    }

    fn name_of(&self, key: u64) -> String {
        self.disks[&key].target.name()
    }

    /// What a volume can be rolled back to, oldest first.
    fn line_of(&self, key: u64) -> Vec<String> {
        let disk = &self.disks[&key];
        let line = disk.origin.iter().chain(&disk.snapshots);
        line.filter(|name| self.snapshots.contains_key(*name)).cloned().collect()
    }

    // ---- capturing

    fn group_snapshot(&mut self) -> Fallible<()> {
        let keys: Vec<u64> = self.disks.keys().copied().collect();
        let first = self.choose(keys.len());
        let second = (first + 1 + self.choose(keys.len() - 1)) % keys.len();
        self.snapshot(&[keys[first], keys[second]])
    }

    /// Snapshots of one moment; half of them are read at once.
    fn snapshot(&mut self, keys: &[u64]) -> Fallible<()> {
        let names: Vec<String> = keys.iter().map(|_| self.next_name("s")).collect();
        let mut arguments = vec!["snapshot".to_owned()];
        for (place, (key, name)) in keys.iter().zip(&names).enumerate() {
            arguments.extend((place > 0).then(|| "--also".to_owned()));
            arguments.extend([self.name_of(*key), name.clone()]);
        }
        keys.iter().for_each(|key| self.disks[key].target.content().watch());
        let ran = self.carry_out(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut made = Vec::new();
        for (key, name) in keys.iter().zip(&names) {
            let captured = self.disks[key].target.content().captured(ran.sent, ran.returned);
            if ran.outcome == Outcome::Done || self.exists(name)? {
                made.push(name.clone());
                self.snapshots.insert(name.clone(), captured);
                self.disks.get_mut(key).expect("it is from there").snapshots.push(name.clone());
            }
        }
        if !made.is_empty() && made.len() < keys.len() {
            self.world.findings.add(format!("of the group {names:?} there is only {made:?}"));
        }
        if self.below(2) == 0 { self.compare_group(&made) } else { Ok(()) }
    }

    fn compare_group(&mut self, names: &[String]) -> Fallible<()> {
        let mut moment = Moment::ANY;
        for name in names {
            let Some(found) = self.compare_snapshot(name)? else { return Ok(()) };
            moment = moment.and(found);
        }
        if !moment.is_possible() {
            self.world.findings.add(format!("the snapshots {names:?} are not of one moment: {moment:?}"));
        }
        Ok(())
    }

    // ---- cloning

    fn clone_snapshot(&mut self, snapshot: &str) -> Fallible<()> {
        let name = self.next_name("c");
        let ran = self.carry_out(&["clone", snapshot, &name])?;
        if ran.outcome == Outcome::Killed && !self.exists(&name)? {
            return Ok(());
        }
        let content = self.snapshots[snapshot].to_content();
        self.adopt(&name, content, Some(snapshot.to_owned()))
    }

    fn clone_disk(&mut self, key: u64) -> Fallible<()> {
        let name = self.next_name("c");
        let source = self.name_of(key);
        self.disks[&key].target.content().watch();
        let ran = self.carry_out(&["clone", &source, &name])?;
        let captured = self.disks[&key].target.content().captured(ran.sent, ran.returned);
        if ran.outcome == Outcome::Killed && !self.exists(&name)? {
            return Ok(());
        }
        self.adopt(&name, captured.to_content(), None)
    }

    fn adopt(&mut self, name: &str, content: Content, origin: Option<String>) -> Fallible<()> {
        let info = self.place.run_json(&["info", name])?;
        let object_sectors =
            usize::try_from(info["object_size"].as_u64().ok_or("info tells no object size")?)? / SECTOR_BYTES;
        let key = self.enter(name, content, object_sectors, origin);
        self.attach(key)?;
        if self.below(3) == 0 {
            self.compare_disk(key)?;
        }
        self.resume(key)
    }

    // ---- changing

    fn roll_back(&mut self, key: u64) -> Fallible<()> {
        let line = self.line_of(key);
        if line.is_empty() {
            return Ok(());
        }
        let which = self.choose(line.len());
        let (name, snapshot) = (self.name_of(key), line[which].clone());
        self.pause(key);
        self.place.run(&["detach", &name])?;
        let disk = self.disks.remove(&key).expect("it is from there");
        let ran = self.carry_out(&["rollback", &name, &snapshot]);
        self.disks.insert(key, disk);
        let ran = ran?;
        self.attach(key)?;
        let content = self.snapshots[&snapshot].to_content();
        match ran.outcome {
            Outcome::Done => *self.disks[&key].target.content() = content,
            Outcome::Killed => self.settle_rollback(key, &snapshot, content)?,
        }
        self.compare_disk(key)?;
        self.resume(key)
    }

    /// After an interrupted rollback the volume is as before, or as the snapshot.
    fn settle_rollback(&mut self, key: u64, snapshot: &str, content: Content) -> Fallible<()> {
        let values = read_all(&self.disks[&key].socket)?;
        let captured = self.snapshots.get_mut(snapshot).expect("it is in the line");
        let is_rolled_back = match captured.known() {
            Some(known) => known == values,
            None => captured.clone().compare(&values).is_ok(),
        };
        if is_rolled_back {
            *self.disks[&key].target.content() = content;
        }
        Ok(())
    }

    fn grow(&mut self, key: u64) -> Fallible<()> {
        let before = self.disks[&key].target.content().len();
        // Whole objects or parts of them, as it comes.
        let more = (self.choose(64) + 1) * 128;
        if before + more > SECTORS_MAX {
            return Ok(());
        }
        let (name, bytes) = (self.name_of(key), ((before + more) * SECTOR_BYTES).to_string());
        let ran = self.carry_out(&["resize", &name, &bytes])?;
        let after = if ran.outcome == Outcome::Killed { self.sectors_of(&name)? } else { before + more };
        self.disks[&key].target.content().resize(after);
        Ok(())
    }

    /// What was cut off must not come back when the volume grows again.
    fn shrink(&mut self, key: u64) -> Fallible<()> {
        let before = self.disks[&key].target.content().len();
        let less = (self.choose(64) + 1) * 128;
        if less * 2 > before {
            return Ok(());
        }
        let (name, bytes) = (self.name_of(key), ((before - less) * SECTOR_BYTES).to_string());
        if self.place.run(&["resize", &name, &bytes]).is_ok() {
            self.world.findings.add(format!("{name} shrank without --shrink"));
        }
        self.pause(key);
        let ran = self.carry_out(&["resize", &name, &bytes, "--shrink"])?;
        let after = if ran.outcome == Outcome::Killed { self.sectors_of(&name)? } else { before - less };
        self.disks[&key].target.content().resize(after);
        if after == before {
            // Interrupted before the new size counted: what lies behind it may be gone already (docs/map-format.md).
            let number = self.world.clock.next();
            self.disks[&key].target.content().doubt(before - less, number);
        }
        if self.disks[&key].load.is_none() {
            self.resume(key)?;
        }
        self.grow(key)
    }

    fn flatten(&mut self, key: u64) -> Fallible<()> {
        let name = self.name_of(key);
        self.carry_out(&["flatten", &name])?;
        // Even if it was interrupted: nobody knows how far it came.
        self.disks.get_mut(&key).expect("it is from there").origin = None;
        Ok(())
    }

    /// A detached volume gets another name, and a new volume takes the old one.
    fn rename(&mut self, key: u64) -> Fallible<()> {
        let (old, new) = (self.name_of(key), self.next_name("r"));
        self.pause(key);
        self.place.run(&["detach", &old])?;
        let disk = self.disks.remove(&key).expect("it is from there");
        let ran = self.carry_out(&["rename", &old, &new]);
        let is_renamed = ran.is_ok() && self.exists(&new)?;
        if is_renamed {
            *disk.target.name.lock().expect("no holder panics") = new.clone();
        }
        self.disks.insert(key, disk);
        let ran = ran?;
        if is_renamed == self.exists(&old)? {
            self.world.findings.add(format!("{old} renamed to {new}: both are there, or neither"));
            return Ok(());
        }
        if ran.outcome == Outcome::Killed {
            // The name that does not count may be left behind.
            self.place.run(&["check", "--repair"])?;
        }
        self.attach(key)?;
        self.resume(key)?;
        if is_renamed && self.disks.len() < DISKS_MAX { self.create(&old, "4MiB", "256KiB") } else { Ok(()) }
    }

    // ---- comparing

    fn compare(&mut self, key: u64) -> Fallible<()> {
        self.pause(key);
        self.compare_disk(key)?;
        self.resume(key)
    }

    /// Every sector that differs between two snapshots of one volume lies in a range that `diff` tells.
    fn diff(&mut self, key: u64) -> Fallible<()> {
        let line = self.line_of(key);
        let [.., older, newer] = &line[..] else { return Ok(()) };
        for name in [older, newer] {
            if self.snapshots[name].known().is_none() {
                self.compare_snapshot(name)?;
            }
        }
        let told = told_differences(self.place, older, newer)?;
        let (Some(before), Some(after)) = (self.snapshots[older].known(), self.snapshots[newer].known()) else {
            return Ok(());
        };
        let end = before.len().max(after.len());
        // Where one is longer, the other counts as zeros.
        let value = |values: &[u64], sector: usize| values.get(sector).copied().unwrap_or(ZEROS);
        let missed = (0..end).find(|&sector| {
            value(before, sector) != value(after, sector) && !told.iter().any(|range| range.contains(&sector))
        });
        if let Some(sector) = missed {
            self.world.findings.add(format!("diff {older} {newer} does not tell sector {sector}"));
        }
        Ok(())
    }

    // ---- removing

    fn remove_snapshot(&mut self, name: &str) -> Fallible<()> {
        let ran = self.carry_out(&["remove", name])?;
        if ran.outcome == Outcome::Killed {
            self.finish_removing(name)?;
        }
        self.snapshots.remove(name);
        Ok(())
    }

    fn remove_disk(&mut self, key: u64) -> Fallible<()> {
        if self.disks.len() <= 3 {
            return Ok(());
        }
        self.pause(key);
        let name = self.name_of(key);
        self.place.run(&["detach", &name])?;
        let Disk { target, .. } = self.disks.remove(&key).expect("it is from there");
        assert!(Arc::strong_count(&target) == 1, "its load has ended");
        let ran = self.carry_out(&["remove", &name])?;
        if ran.outcome == Outcome::Killed {
            self.finish_removing(&name)?;
        }
        Ok(())
    }

    /// Of one that was interrupted. A collection may be quicker.
    fn finish_removing(&self, name: &str) -> Fallible<()> {
        if !self.exists(name)? {
            return Ok(());
        }
        match self.place.run(&["remove", name]) {
            Err(_) if !self.exists(name)? => Ok(()),
            ran => Ok(ran.map(drop)?),
        }
    }
}

/// What `diff` tells, in sectors.
fn told_differences(place: &Place, older: &str, newer: &str) -> Fallible<Vec<std::ops::Range<usize>>> {
    let told = place.run(&["diff", older, newer, "--json"])?;
    let ranges: Vec<serde_json::Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let number = |range: &serde_json::Value, field: &str| -> Fallible<usize> {
        Ok(usize::try_from(range[field].as_u64().ok_or_else(|| format!("diff tells a range without {field}"))?)?)
    };
    ranges
        .iter()
        .map(|range| {
            let (offset, len) = (number(range, "offset")?, number(range, "length")?);
            Ok(offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES))
        })
        .collect()
}
