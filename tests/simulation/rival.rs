//! A forced take-over: another host breaks the lock of a volume whose holder still lives, opens it, and serves it, while the old
//! holder goes on for a while without knowing (rules C2, C3, C4).
//!
//! ```text
//!   first host    requests in flight ─── stopped, or not ──► still writes and flushes ──► notices, or dies
//!   second host   break the lock ─► open ─► read everything ─► works: what it once read stays as it was
//! ```
//! What the old holder flushed before the second host had the volume is there; what it flushes later must fail. What it wrote and had
//! not flushed is there or not, as after a power cut, and once read it stays. What its guest asks for after that is nowhere.

use super::daemon::{Answer, Daemon, Host, OpenFailure};
use super::estate::Key;
use super::life::{Life, Stop, stamped};
use super::model::{Effect, Tick};
use super::plan::Way;
use super::workload::{Asked, ask};
use archvhost::volume::Access;
use std::collections::BTreeMap;

/// Turns of the old holder until it dies, at most.
const TURNS_MAX: u64 = 400;

/// The old holder, and its guest.
pub struct Rival {
    daemon: Daemon,
    key: Key,
    queues: usize,
    /// The second host is not there yet: what this one answers still counts.
    pub is_being_cut_off: bool,
    /// The second host has read everything: what is asked for from now on must not be seen.
    is_cut_off: bool,
    /// What its guest has asked for since then.
    late: BTreeMap<u32, Asked>,
    /// A late change has completed: no flush that covers it may succeed.
    has_lost: bool,
    /// The model's time of the take-over.
    then: Tick,
    in_flight: usize,
    turns_left: u64,
}

impl Life<'_> {
    /// # Errors
    /// See [`Stop`].
    pub fn take_over(&mut self) -> Result<(), Stop> {
        while !self.verbs.is_empty() {
            self.pump()?;
        }
        let Some(key) = self.disks().first().copied() else { return Ok(()) };
        self.world.forget_planned_crash();
        let readers: Vec<Key> = self.open.keys().copied().filter(|other| *other != key).collect();
        for reader in readers {
            self.close(reader)?;
        }
        let name = self.estate.get(key).name.clone();
        self.world.say(|| format!("the second host takes {name} over"));
        let second = Daemon::start_on(self.world, self.plan, Host::Second, self.soft_dir.others());
        let first = std::mem::replace(&mut self.daemon, second);
        let queues = self.open[&key].count;
        let turns_left = self.rng.below(TURNS_MAX);
        let in_flight = self.outstanding.len();
        let rival = Rival {
            daemon: first,
            key,
            queues,
            is_being_cut_off: true,
            is_cut_off: false,
            late: BTreeMap::new(),
            has_lost: false,
            then: 0,
            in_flight,
            turns_left,
        };
        self.rival = Some(rival);
        self.daemon.break_lock(&name).map_err(|text| Stop::Violation(format!("{name}: {text}")))?;
        self.open_on_second_host(key)?;
        // What the first one answered until now still counts.
        self.check_answers()?;
        self.outstanding.clear();
        self.estate.get_mut(key).model.power_failed();
        let then = self.estate.clock.tick();
        if let Some(rival) = &mut self.rival {
            rival.then = then;
            rival.is_being_cut_off = false;
        }
        self.verify_one(key)?;
        if let Some(rival) = &mut self.rival {
            rival.is_cut_off = true;
        }
        Ok(())
    }

    /// Its guest has ports. The first host stands still meanwhile, or does not.
    fn open_on_second_host(&mut self, key: Key) -> Result<(), Stop> {
        let name = self.estate.get(key).name.clone();
        let count = 1 + self.rng.index(2);
        let goes_on = self.rng.one_in(2);
        let (rng, answers) = (&mut *self.rng, &mut self.answers);
        let rival = self.rival.as_mut().expect("it was just made");
        let mut trouble = None;
        let mut beside = || {
            if goes_on && rng.one_in(2) {
                rival.daemon.turn_keeper(key);
                let queue = rng.index(rival.queues);
                trouble = rival.daemon.turn(key, queue, answers).err().or(trouble.take());
            }
        };
        let opened = self.daemon.open(key, &name, Access::ReadWrite, (Way::Ports, count), self.guest, &mut beside);
        match (opened, trouble) {
            (_, Some(text)) => Err(Stop::Violation(text)),
            (Err(OpenFailure::Crashed), None) => Err(Stop::Crash),
            (Err(error), None) => Err(Stop::Violation(format!("{name} cannot be taken over: {error:?}"))),
            (Ok(()), None) => {
                let queues = self.open.get_mut(&key).expect("it was open");
                queues.count = count;
                Ok(())
            }
        }
    }

    /// The old holder does something, as long as it lives.
    pub(super) fn turn_rival(&mut self) -> Result<(), String> {
        let Some(rival) = self.rival.as_mut().filter(|rival| !rival.is_being_cut_off) else { return Ok(()) };
        if !self.rng.one_in(3) {
            return Ok(());
        }
        if rival.turns_left == 0 {
            self.world.kill(rival.daemon.process);
            self.rival = None;
            return Ok(());
        }
        rival.turns_left -= 1;
        let queue = self.rng.index(rival.queues);
        let mut answers: Vec<Answer> = Vec::new();
        rival.daemon.turn_keeper(rival.key);
        rival.daemon.turn(rival.key, queue, &mut answers)?;
        for answer in answers {
            rival.in_flight = rival.in_flight.saturating_sub(1);
            match (rival.late.remove(&answer.tag), answer.result) {
                (Some(Asked::Flush), Ok(_)) => {
                    return Err("C3: a flush succeeds that covers what a holder wrote after it was cut off".to_owned());
                }
                (Some(Asked::Change { effect: Effect::Write, .. }), Ok(_)) => rival.has_lost = true,
                (Some(Asked::Read { .. } | Asked::Change { .. }) | None, _) | (Some(Asked::Flush), Err(_)) => {}
            }
        }
        if rival.is_cut_off && self.rng.one_in(4) && rival.in_flight < rival.queues {
            self.ask_rival(queue);
        }
        Ok(())
    }

    /// Nothing of this may ever be seen.
    fn ask_rival(&mut self, queue: usize) {
        let Some(rival) = &mut self.rival else { return };
        let asked = ask(self.rng, self.plan, self.estate.get(rival.key).usable_sectors());
        self.next_tag += 1;
        let tag = self.next_tag;
        let content = match &asked {
            Asked::Change { effect, sectors, .. } => {
                let model = &mut self.estate.get_mut(rival.key).model;
                let request = model.submit_late(rival.then, *effect, sectors.clone());
                if *effect == Effect::Write { stamped(request, sectors) } else { Vec::new() }
            }
            Asked::Read { .. } | Asked::Flush => Vec::new(),
        };
        if asked != Asked::Flush || rival.has_lost {
            rival.late.insert(tag, asked.clone());
        }
        self.world.say(|| format!("the old holder's guest, tag {tag}: {asked:?}"));
        rival.in_flight += 1;
        rival.daemon.submit(self.rng, rival.key, queue, tag, &asked, &content);
    }
}
