//! The load on one volume: a thread for each queue, which keeps its slots busy with random requests, enters into the model what
//! completed, and compares what it reads. One connection; a new one for each life of the daemon or pause.

use super::content::{Clock, Content, Effect, SECTOR_BYTES};
use super::driver::{Driver, Queue, Request, Settings};
use super::findings::Findings;
use super::pattern::{self, mix};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const QUEUES: u16 = 2;
const SLOTS: u16 = 8;
/// Longest read or write.
pub(crate) const SLOT_BYTES: usize = 64 << 10;
/// A device that finishes nothing for so long, with requests in flight, is stuck.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How often the orders are looked at.
const TICK: Duration = Duration::from_millis(10);

/// What a volume's load needs to know of it, for as long as the volume exists.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: Mutex<String>,
    pub(crate) content: Mutex<Content>,
    /// Requests of this kind cover up to so many sectors.
    pub(crate) zero_sectors_max: usize,
}

impl Target {
    pub(crate) fn new(name: &str, content: Content, zero_sectors_max: usize) -> Arc<Self> {
        Arc::new(Self { name: Mutex::new(name.to_owned()), content: Mutex::new(content), zero_sectors_max })
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all loads share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) findings: Findings,
    pub(crate) requests: AtomicU64,
}

const GO_ON: u8 = 0;
const DRAIN: u8 = 1;
const ABANDON: u8 = 2;

#[derive(Debug)]
pub(crate) struct Load {
    orders: Arc<AtomicU8>,
    threads: Vec<JoinHandle<()>>,
    target: Arc<Target>,
}

impl Load {
    pub(crate) fn start(socket: &Path, target: &Arc<Target>, world: &Arc<World>, seed: u64) -> io::Result<Self> {
        let settings = Settings { queues: QUEUES, slots: SLOTS, slot_bytes: SLOT_BYTES, ..Settings::default() };
        let driver = Driver::connect(socket, settings)?;
        let orders = Arc::new(AtomicU8::new(GO_ON));
        let threads = (0_u64..)
            .zip(driver.queues)
            .map(|(index, queue)| {
                let run = Run {
                    queue,
                    target: Arc::clone(target),
                    world: Arc::clone(world),
                    orders: Arc::clone(&orders),
                    random: mix(seed ^ (index << 60)),
                    in_flight: vec![None; usize::from(SLOTS)],
                };
                thread::spawn(move || run.run())
            })
            .collect();
        Ok(Self { orders, threads, target: Arc::clone(target) })
    }

    /// Waits for what is in flight, and disconnects.
    pub(crate) fn drain(self) {
        self.end(DRAIN);
    }

    /// The daemon is dead: what it did not complete stays unsure.
    pub(crate) fn abandon(self) {
        let target = Arc::clone(&self.target);
        self.end(ABANDON);
        target.content().release_all();
    }

    fn end(self, order: u8) {
        self.orders.store(order, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a load's thread reports, and does not panic");
        }
    }
}

#[derive(Debug, Clone)]
enum Job {
    Read(Range<usize>),
    Change { range: Range<usize>, number: u64 },
    Flush,
}

struct Run {
    queue: Queue,
    target: Arc<Target>,
    world: Arc<World>,
    orders: Arc<AtomicU8>,
    random: u64,
    in_flight: Vec<Option<Job>>,
}

impl Run {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let name = self.target.name();
            self.world.findings.add(format!("{name}: {error}"));
        }
    }

    fn work(&mut self) -> io::Result<()> {
        let mut progress = Instant::now();
        loop {
            let order = self.orders.load(Ordering::SeqCst);
            match order {
                GO_ON => self.submit_all()?,
                DRAIN if self.in_flight.iter().all(Option::is_none) => return Ok(()),
                ABANDON => return self.reap().map(|_| ()),
                _ => {}
            }
            self.queue.wait(TICK)?;
            if self.reap()? > 0 || self.in_flight.iter().all(Option::is_none) {
                progress = Instant::now();
            }
            if progress.elapsed() > ANSWER_MAX && self.orders.load(Ordering::SeqCst) != ABANDON {
                return Err(io::Error::other(format!("no request finished for {} s", ANSWER_MAX.as_secs())));
            }
        }
    }

    fn submit_all(&mut self) -> io::Result<()> {
        for slot in 0..SLOTS {
            if self.in_flight[usize::from(slot)].is_none() {
                self.submit(slot)?;
            }
        }
        self.queue.kick()
    }

    fn submit(&mut self, slot: u16) -> io::Result<()> {
        let kind = self.below(100);
        let Some(range) = self.claim(kind) else { return Ok(()) };
        let (offset, len) = ((range.start * SECTOR_BYTES) as u64, range.len() * SECTOR_BYTES);
        let (job, request) = match kind {
            READ_FROM..ZERO_FROM => (Job::Read(range), Request::Read { offset, len }),
            FLUSH_FROM.. => {
                self.target.content().release(range);
                (Job::Flush, Request::Flush)
            }
            _ => {
                let (effect, request) = match kind {
                    ZERO_FROM..DISCARD_FROM => {
                        let unmap = kind.is_multiple_of(2);
                        (Effect::Zero, Request::WriteZeroes { offset, len: len as u64, unmap })
                    }
                    DISCARD_FROM.. => (Effect::MaybeZero, Request::Discard { offset, len: len as u64 }),
                    _ => (Effect::Write, Request::Write { offset, len }),
                };
                let number = self.begin(&range, effect);
                if effect == Effect::Write {
                    self.queue.fill(slot, &pattern_of(&range, number));
                }
                (Job::Change { range, number }, request)
            }
        };
        self.in_flight[usize::from(slot)] = Some(job);
        self.queue.submit(slot, request)
    }

    /// The number is drawn, and the change entered, under one lock, so that a capture sees either both or neither.
    fn begin(&self, range: &Range<usize>, effect: Effect) -> u64 {
        let mut content = self.target.content();
        let number = self.world.clock.next();
        content.submit(range.clone(), number, effect);
        number
    }

    fn claim(&mut self, kind: u64) -> Option<Range<usize>> {
        let len = self.target.content().len();
        let range = self.pick(kind, len);
        self.target.content().try_claim(range.clone()).then_some(range)
    }

    /// Mostly pages of 4 KiB, some large, some at odd sectors; half of them in a small part, where one write meets another.
    fn pick(&mut self, kind: u64, len: usize) -> Range<usize> {
        let is_large = (ZERO_FROM..FLUSH_FROM).contains(&kind) && self.below(4) == 0;
        let (align, count) = match self.below(10) {
            _ if is_large => (8, self.target.zero_sectors_max as u64),
            0 => (1, self.below(12) + 1),
            1 | 2 => (8, (self.below(16) + 1) * 8),
            _ => (8, 8),
        };
        let count = usize::try_from(count).unwrap_or(8).min(len);
        let part = if self.below(2) == 0 { (len / 16).max(count) } else { len };
        let start = usize::try_from(self.random >> 8).unwrap_or(0) % (part - count + 1) / align * align;
        start..start + count
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = mix(self.random);
        (self.random >> 16) % end
    }

    fn reap(&mut self) -> io::Result<usize> {
        let mut finished = Vec::new();
        self.queue.reap(|slot, result| finished.push((slot, result)));
        let count = finished.len();
        for (slot, result) in finished {
            let job = self.in_flight[usize::from(slot)].take().expect("a slot finishes once");
            result.map_err(|error| io::Error::other(format!("{job:?} failed: {error}")))?;
            self.finish(slot, job);
        }
        self.world.requests.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn finish(&self, slot: u16, job: Job) {
        match job {
            Job::Flush => {}
            Job::Change { range, number } => {
                let mut content = self.target.content();
                content.complete(range.clone(), number, self.world.clock.next());
                content.release(range);
            }
            Job::Read(range) => {
                let mut bytes = vec![0; range.len() * SECTOR_BYTES];
                self.queue.copy_out(slot, &mut bytes);
                let values = values_of(range.start, &bytes);
                let mut content = self.target.content();
                for (sector, value) in range.clone().zip(values) {
                    if let Err(allowed) = content.settle(sector, value) {
                        let name = self.target.name();
                        self.world.findings.add(format!("{name}: sector {sector} may hold {allowed:?}, holds {value}"));
                    }
                }
                content.release(range);
            }
        }
    }
}

/// Of a hundred requests: writes, then reads, then write-zeroes, then discards, then flushes.
const READ_FROM: u64 = 58;
const ZERO_FROM: u64 = 88;
const DISCARD_FROM: u64 = 92;
const FLUSH_FROM: u64 = 96;

fn pattern_of(range: &Range<usize>, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; range.len() * SECTOR_BYTES];
    for (sector, bytes) in range.clone().zip(bytes.chunks_exact_mut(SECTOR_BYTES)) {
        let (index, place) = pattern::place_of(sector);
        pattern::fill_sector(bytes, index, place, number);
    }
    bytes
}

/// The number of the write that each sector came from; a number that no write has when it is damaged.
pub(crate) fn values_of(first: usize, bytes: &[u8]) -> Vec<u64> {
    let value = |(sector, bytes)| {
        let (index, place) = pattern::place_of(sector);
        match pattern::origin(bytes, index, place) {
            pattern::Origin::Write(number) => number,
            pattern::Origin::Damaged => u64::MAX,
        }
    };
    (first..).zip(bytes.chunks_exact(SECTOR_BYTES)).map(value).collect()
}
