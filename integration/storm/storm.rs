//! The course of a storm: volumes are made and loaded; verbs are chosen at random until the time is over; then everything is
//! compared, checked, removed, and must be gone.

use super::captured::Captured;
use super::content::{Clock, Content, SECTOR_BYTES};
use super::daemon::{Daemon, Place, finish};
use super::findings::Findings;
use super::load::{Load, Target, World};
use super::pattern::mix;
use super::reading::read_all;
use super::sweeper::{Signals, Sweeper};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Words of what failed, or an I/O error of the storm's own.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) kill_one_in: u64,
    /// Verbs that are not used.
    pub(crate) skip: Vec<String>,
    pub(crate) verbose: bool,
}

impl Plan {
    pub(crate) fn skips(&self, verb: &str) -> bool {
        self.skip.iter().any(|skipped| skipped == verb)
    }
}

/// Volumes at the beginning: their sizes and object sizes.
const FIRST: [(&str, &str, &str); 3] = [("a", "24MiB", "1MiB"), ("b", "24MiB", "64KiB"), ("c", "32MiB", "4MiB")];

/// A command takes about this long; kills come anywhere within it.
const KILL_WITHIN_US: u64 = 60_000;

/// A volume with a load.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) target: Arc<Target>,
    pub(crate) socket: PathBuf,
    pub(crate) load: Option<Load>,
    /// The snapshot that it was cloned from, until it is flattened.
    pub(crate) origin: Option<String>,
    /// Its own snapshots, oldest first.
    pub(crate) snapshots: Vec<String>,
}

pub(crate) struct Storm<'a> {
    pub(crate) place: &'a Place,
    pub(crate) plan: &'a Plan,
    pub(crate) world: Arc<World>,
    pub(crate) signals: Arc<Signals>,
    daemon: Daemon,
    pub(crate) disks: BTreeMap<u64, Disk>,
    pub(crate) snapshots: BTreeMap<String, Captured>,
    random: u64,
    names: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The daemon was killed meanwhile, and is back: the verb may have done its work, or not.
    Killed,
}

/// A verb that was carried out, and the clock's numbers around it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) sent: u64,
    pub(crate) returned: u64,
}

pub(crate) fn run(place: &Place, plan: &Plan) -> Fallible<Value> {
    let world = Arc::new(World { clock: Clock::new(), findings: Findings::default(), requests: AtomicU64::new(0) });
    let signals = Arc::new(Signals::default());
    let daemon = Daemon::start(place)?;
    let sweeper = Sweeper::start(place, plan, &world, &signals);
    let mut storm = Storm {
        place,
        plan,
        world,
        signals,
        daemon,
        disks: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        random: mix(plan.seed),
        names: 0,
        counts: BTreeMap::new(),
    };
    let went = storm.rage();
    sweeper.stop();
    // What it says then is of a store that something went wrong in.
    if storm.world.findings.count() == 0 {
        went?;
        storm.settle()?;
        storm.clear()?;
    }
    Ok(storm.report())
}

impl Storm<'_> {
    fn rage(&mut self) -> Fallible<()> {
        for (name, size, object_size) in FIRST {
            self.create(name, size, object_size)?;
        }
        let deadline = Instant::now() + self.plan.duration;
        while Instant::now() < deadline && self.world.findings.count() == 0 {
            if !self.daemon.is_running() {
                return Err("the daemon died by itself".into());
            }
            self.verb()?;
            let pause = self.below(50);
            thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    /// Reads everything once more.
    fn settle(&mut self) -> Fallible<()> {
        let keys: Vec<u64> = self.disks.keys().copied().collect();
        for key in keys {
            self.pause(key);
            self.compare_disk(key)?;
        }
        let names: Vec<String> = self.snapshots.keys().cloned().collect();
        for name in names {
            self.compare_snapshot(&name)?;
        }
        Ok(())
    }

    /// Removes everything in any order; afterwards nothing may be left.
    fn clear(&mut self) -> Fallible<()> {
        let keys: Vec<u64> = self.disks.keys().copied().collect();
        for key in keys {
            let name = self.disks[&key].target.name();
            self.place.run(&["detach", &name])?;
        }
        if !self.plan.skips("check") {
            // What is left over is told as well, until it was collected.
            self.place.run(&["gc"])?;
            let report = self.place.run_json(&["check"])?;
            if report["findings"].as_array().is_none_or(|findings| !findings.is_empty()) {
                self.world.findings.add(format!("check at the end: {report}"));
            }
        }
        let mut names: Vec<String> = self.snapshots.keys().cloned().collect();
        names.extend(self.disks.values().map(|disk| disk.target.name()));
        while !names.is_empty() {
            let which = self.choose(names.len());
            let name = names.swap_remove(which);
            self.place.run(&["remove", &name])?;
        }
        // What a daemon that was killed had just made is kept until the next collection can tell.
        if self.plan.skips("gc") {
            return Ok(());
        }
        for _ in 0..COLLECTIONS_MAX {
            self.place.run(&["gc"])?;
        }
        let left = self.place.files_of_volumes()?;
        if !left.is_empty() {
            self.world.findings.add(format!(
                "{} files are left in the store, as {:?}",
                left.len(),
                &left[..left.len().min(5)]
            ));
        }
        if !self.daemon.stop()? {
            self.world.findings.add("the daemon did not end in order".to_owned());
        }
        Ok(())
    }

    fn report(&self) -> Value {
        json!({
            "seed": self.plan.seed,
            "requests": self.world.requests.load(Ordering::Relaxed),
            "verbs": self.counts,
            "collections": self.signals.collections.load(Ordering::Relaxed),
            "checks": self.signals.checks.load(Ordering::Relaxed),
            "kills": self.signals.kills.load(Ordering::Relaxed) / 2,
            "wrong": self.world.findings.count(),
            "findings": self.world.findings.texts(),
        })
    }

    // ---- what verbs are made of

    /// Carries out a verb, and perhaps kills the daemon while it does. A failure of its own ends the storm.
    pub(crate) fn carry_out(&mut self, arguments: &[&str]) -> Fallible<Ran> {
        if self.plan.verbose {
            eprintln!("storm: {arguments:?}");
        }
        let is_killed = self.plan.kill_one_in != 0 && self.below(self.plan.kill_one_in) == 0;
        let sent = self.world.clock.next();
        if !is_killed {
            self.place.run(arguments)?;
            return Ok(Ran { outcome: Outcome::Done, sent, returned: self.world.clock.next() });
        }
        let child = self.place.command(arguments).spawn()?;
        let delay = self.below(KILL_WITHIN_US);
        thread::sleep(Duration::from_micros(delay));
        self.signals.kills.fetch_add(1, Ordering::SeqCst);
        self.daemon.kill()?;
        let _ = finish(child, arguments);
        let loads = self.disks.iter_mut().filter_map(|(key, disk)| disk.load.take().map(|load| (*key, load)));
        let loads: Vec<(u64, Load)> = loads.collect();
        let loaded: Vec<u64> = loads.iter().map(|(key, _)| *key).collect();
        loads.into_iter().for_each(|(_, load)| load.abandon());
        let returned = self.world.clock.next();
        self.daemon = Daemon::start(self.place)?;
        for key in self.disks.keys().copied().collect::<Vec<_>>() {
            self.attach(key)?;
        }
        for key in loaded {
            self.resume(key)?;
        }
        self.signals.kills.fetch_add(1, Ordering::SeqCst);
        Ok(Ran { outcome: Outcome::Killed, sent, returned })
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.random = mix(self.random);
        (self.random >> 16) % end
    }

    pub(crate) fn choose(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap_or(0)
    }

    pub(crate) fn next_name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Whether the name leads to a volume. One that an interrupted rename left behind is listed, with an error.
    pub(crate) fn exists(&self, name: &str) -> Fallible<bool> {
        let listed = self.place.run_json(&["list"])?;
        let volumes = listed.as_array().ok_or("list prints no array")?;
        Ok(volumes.iter().any(|volume| volume["name"] == name && volume["error"].is_null()))
    }

    pub(crate) fn sectors_of(&self, name: &str) -> Fallible<usize> {
        let info = self.place.run_json(&["info", name])?;
        let bytes = info["size"].as_u64().ok_or("info tells no size")?;
        Ok(usize::try_from(bytes)? / SECTOR_BYTES)
    }

    pub(crate) fn create(&mut self, name: &str, size: &str, object_size: &str) -> Fallible<()> {
        self.place.run(&["create", name, "--size", size, "--object-size", object_size])?;
        let info = self.place.run_json(&["info", name])?;
        let object_bytes = info["object_size"].as_u64().ok_or("info tells no object size")?;
        let object_sectors = usize::try_from(object_bytes)? / SECTOR_BYTES;
        let content = Content::unwritten(self.sectors_of(name)?);
        let key = self.enter(name, content, object_sectors, None);
        self.attach(key)?;
        self.resume(key)
    }

    /// A volume that exists gets its place here.
    pub(crate) fn enter(&mut self, name: &str, content: Content, object_sectors: usize, origin: Option<String>) -> u64 {
        self.names += 1;
        let key = self.names;
        let target = Target::new(name, content, object_sectors * 2);
        let socket = self.place.socket(key);
        self.disks.insert(key, Disk { target, socket, load: None, origin, snapshots: Vec::new() });
        key
    }

    /// A killed daemon's lock is there until the kernel has ended its last write, which takes a moment on a busy machine.
    pub(crate) fn attach(&self, key: u64) -> Fallible<()> {
        let disk = &self.disks[&key];
        let (name, socket) = (disk.target.name(), disk.socket.to_string_lossy());
        let deadline = Instant::now() + LOCK_LEFT_MAX;
        loop {
            match self.place.run(&["attach", &name, "--socket", &socket, "--queues", "2"]) {
                Err(error) if error.contains("is in use by process") && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(50));
                }
                attached => return Ok(attached.map(|_| ())?),
            }
        }
    }

    pub(crate) fn pause(&mut self, key: u64) {
        let disk = self.disks.get_mut(&key).expect("the caller has it from here");
        if let Some(load) = disk.load.take() {
            load.drain();
        }
    }

    pub(crate) fn resume(&mut self, key: u64) -> Fallible<()> {
        let seed = self.below(u64::MAX);
        let disk = self.disks.get_mut(&key).expect("the caller has it from here");
        disk.load = Some(Load::start(&disk.socket, &disk.target, &self.world, seed)?);
        Ok(())
    }

    /// Reads a paused disk and compares it with what it may hold.
    pub(crate) fn compare_disk(&mut self, key: u64) -> Fallible<()> {
        let disk = &self.disks[&key];
        let values = read_all(&disk.socket)?;
        let mut content = disk.target.content();
        let name = disk.target.name();
        if values.len() != content.len() {
            self.world.findings.add(format!("{name} has {} sectors instead of {}", values.len(), content.len()));
            return Ok(());
        }
        let wrong: Vec<String> = (values.iter().enumerate())
            .filter_map(|(sector, &value)| {
                let allowed = content.settle(sector, value).err()?;
                Some(format!("sector {sector} may hold {allowed:?}, holds {value}"))
            })
            .collect();
        if !wrong.is_empty() {
            let first = &wrong[..wrong.len().min(5)];
            self.world.findings.add(format!("{name}: {} sectors are wrong: {first:?}", wrong.len()));
        }
        Ok(())
    }

    /// Attaches a snapshot, reads it all, and compares it.
    pub(crate) fn compare_snapshot(&mut self, name: &str) -> Fallible<Option<super::captured::Moment>> {
        let socket = self.place.socket(0);
        let path = socket.to_string_lossy();
        self.place.run(&["attach", name, "--socket", &path, "--queues", "1", "--read-only"])?;
        let values = read_all(&socket)?;
        self.place.run(&["detach", name])?;
        let captured = self.snapshots.get_mut(name).expect("the caller has it from here");
        match captured.compare(&values) {
            Ok(moment) => Ok(Some(moment)),
            Err(wrong) => {
                self.world.findings.add(format!("snapshot {name}: {wrong:?}"));
                Ok(None)
            }
        }
    }
}

const COLLECTIONS_MAX: usize = 3;
const LOCK_LEFT_MAX: Duration = Duration::from_secs(20);
