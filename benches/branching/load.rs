//! Random 4 KiB requests on all queues of a socket, one thread a queue, by a driver that sleeps until it is interrupted.

use crate::driver::{Driver, Queue, Request, Settings};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// Which pages, in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Each of the first `pages` with equal chance.
    Random { pages: u64 },
    /// Each of the first `pages` (a power of two) once, scattered: the places `from` to `end` of that order.
    Once { pages: u64, from: u64, end: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) direction: Direction,
}

/// One request that was answered: times since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) at: Duration,
    pub(crate) latency: Duration,
}

/// What a run gave, by queue.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// Empty unless they were asked for.
    pub(crate) answers: Vec<Vec<Answer>>,
}

impl Outcome {
    pub(crate) fn iops(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

pub(crate) struct Load {
    driver: Driver,
    shape: Shape,
}

impl Load {
    pub(crate) fn connect(socket: &Path, shape: Shape) -> io::Result<Self> {
        let settings =
            Settings { queues: shape.queues, slots: shape.depth, slot_bytes: PAGE_LEN, ..Settings::default() };
        let driver = Driver::connect(socket, settings)?;
        let content: Vec<u8> = (1..=u8::MAX).cycle().take(PAGE_LEN).collect();
        driver.queues.iter().for_each(|queue| (0..shape.depth).for_each(|slot| queue.fill(slot, &content)));
        Ok(Self { driver, shape })
    }

    /// For a time, or until the order is at its end.
    pub(crate) fn run(&mut self, order: Order, duration: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let deadline = start + duration;
        self.run_until(order, start, Recording::Off, &move || Instant::now() >= deadline)
    }

    /// Until `stop` is set, with every answer's time.
    pub(crate) fn record_until(&mut self, order: Order, start: Instant, stop: &AtomicBool) -> io::Result<Outcome> {
        self.run_until(order, start, Recording::On, &|| stop.load(Ordering::Relaxed))
    }

    fn run_until(
        &mut self,
        order: Order,
        start: Instant,
        recording: Recording,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<Outcome> {
        let (shape, queues) = (self.shape, u64::from(self.shape.queues));
        let mut outcome = Outcome { requests: 0, elapsed: Duration::ZERO, answers: Vec::new() };
        thread::scope(|scope| {
            let runs: Vec<_> = (0_u64..)
                .zip(&mut self.driver.queues)
                .map(|(index, queue)| {
                    let places = Places { order, next: index, step: queues, random: (index + 1) << 32 };
                    let run = Run { queue, shape, places, start, recording, requests: 0, answers: Vec::new() };
                    scope.spawn(move || run.run(is_over))
                })
                .collect();
            for run in runs {
                let (requests, answers) = run.join().map_err(|_| io::Error::other("a queue's thread panicked"))??;
                outcome.requests += requests;
                outcome.answers.push(answers);
            }
            outcome.elapsed = start.elapsed();
            Ok(outcome)
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Off,
    On,
}

/// One queue's share of an order.
struct Places {
    order: Order,
    next: u64,
    step: u64,
    random: u64,
}

impl Places {
    fn next(&mut self) -> Option<u64> {
        match self.order {
            Order::Random { pages } => {
                self.random = mix(self.random);
                Some(self.random % pages)
            }
            Order::Once { pages, from, end } => {
                let place = self.next + from;
                self.next += self.step;
                (place < end).then(|| scatter(place, pages))
            }
        }
    }
}

/// A permutation of the numbers below a power of two: multiplying by an odd number, and mixing high bits into low ones.
fn scatter(place: u64, pages: u64) -> u64 {
    assert!(pages.is_power_of_two());
    let mask = pages - 1;
    let mut place = place;
    for _ in 0..3 {
        place = place.wrapping_mul(0x9E37_79B9_7F4A_7C15) & mask;
        place ^= place >> (pages.trailing_zeros() / 2).max(1);
    }
    place
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

struct Run<'a> {
    queue: &'a mut Queue,
    shape: Shape,
    places: Places,
    start: Instant,
    recording: Recording,
    requests: u64,
    answers: Vec<Answer>,
}

impl Run<'_> {
    fn run(mut self, is_over: &(dyn Fn() -> bool + Sync)) -> io::Result<(u64, Vec<Answer>)> {
        let mut free: Vec<u16> = (0..self.shape.depth).collect();
        let mut submitted = vec![Instant::now(); usize::from(self.shape.depth)];
        let mut ended = false;
        loop {
            ended = ended || is_over();
            let now = Instant::now();
            while let Some(slot) = free.pop() {
                let place = if ended { None } else { self.places.next() };
                let Some(page) = place else {
                    free.push(slot);
                    ended = true;
                    break;
                };
                submitted[usize::from(slot)] = now;
                self.queue.submit(slot, self.request(page))?;
            }
            if ended && free.len() == usize::from(self.shape.depth) {
                return Ok((self.requests, self.answers));
            }
            self.queue.kick()?;
            if !self.queue.wait(ANSWER_MAX)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.reap(&mut free, &submitted)?;
        }
    }

    fn request(&self, page: u64) -> Request {
        match self.shape.direction {
            Direction::Read => Request::Read { offset: page * PAGE, len: PAGE_LEN },
            Direction::Write => Request::Write { offset: page * PAGE, len: PAGE_LEN },
        }
    }

    fn reap(&mut self, free: &mut Vec<u16>, submitted: &[Instant]) -> io::Result<()> {
        let Run { queue, start, recording, requests, answers, .. } = self;
        let now = Instant::now();
        let mut failure = None;
        queue.reap(|slot, result| {
            failure = failure.take().or(result.err());
            *requests += 1;
            if *recording == Recording::On {
                answers.push(Answer { at: now - *start, latency: now - submitted[usize::from(slot)] });
            }
            free.push(slot);
        });
        failure.map_or(Ok(()), Err)
    }
}
