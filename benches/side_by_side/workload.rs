//! The workloads, and the loop that drives one queue with one of them. Nothing is allocated per request.

use crate::driver::{Queue, Request};
use crate::histogram::Histogram;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// What the servers serve while the workload runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fixture {
    /// A fully written volume; a fully written raw file at the peer.
    File,
    /// A volume without storage behind it.
    Null,
    /// Eight attached volumes that nobody uses.
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pattern {
    RandomRead,
    RandomWrite,
    /// 32 random writes at once, and when all have completed a flush. Latencies are those of the flush.
    RandomWriteFlush,
    SequentialRead,
    SequentialWrite,
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) fixture: Fixture,
    pub(crate) pattern: Pattern,
    pub(crate) block_bytes: usize,
    /// Requests in flight in each queue.
    pub(crate) depth: u16,
    pub(crate) queues: u16,
    /// Only the volume's first bytes are used, so many.
    pub(crate) within_bytes: u64,
}

const fn row(name: &'static str, fixture: Fixture, pattern: Pattern, shape: (usize, u16, u16)) -> Workload {
    Workload { name, fixture, pattern, block_bytes: shape.0, depth: shape.1, queues: shape.2, within_bytes: u64::MAX }
}

impl Workload {
    const fn within(mut self, bytes: u64) -> Workload {
        self.within_bytes = bytes;
        self
    }
}

const KIB: usize = 1024;

/// A disk of usual size. Null volumes are larger, to have a row whose map does not fit the CPU's caches.
const USUAL: u64 = 64 << 30;

pub(crate) const WORKLOADS: [Workload; 17] = [
    row("read-4k-d1-q1", Fixture::File, Pattern::RandomRead, (4 * KIB, 1, 1)),
    row("read-4k-d1-q2", Fixture::File, Pattern::RandomRead, (4 * KIB, 1, 2)),
    row("read-4k-d32-q1", Fixture::File, Pattern::RandomRead, (4 * KIB, 32, 1)),
    row("read-4k-d32-q2", Fixture::File, Pattern::RandomRead, (4 * KIB, 32, 2)),
    row("write-4k-d1-q1", Fixture::File, Pattern::RandomWrite, (4 * KIB, 1, 1)),
    row("write-4k-d1-q2", Fixture::File, Pattern::RandomWrite, (4 * KIB, 1, 2)),
    row("write-4k-d32-q1", Fixture::File, Pattern::RandomWrite, (4 * KIB, 32, 1)),
    row("write-4k-d32-q2", Fixture::File, Pattern::RandomWrite, (4 * KIB, 32, 2)),
    row("write-4k-flush32", Fixture::File, Pattern::RandomWriteFlush, (4 * KIB, 32, 1)),
    row("seq-read-128k-d8", Fixture::File, Pattern::SequentialRead, (128 * KIB, 8, 1)),
    row("seq-write-128k-d8", Fixture::File, Pattern::SequentialWrite, (128 * KIB, 8, 1)),
    row("null-read-4k-d1", Fixture::Null, Pattern::RandomRead, (4 * KIB, 1, 1)).within(USUAL),
    row("null-read-4k-d32", Fixture::Null, Pattern::RandomRead, (4 * KIB, 32, 1)).within(USUAL),
    row("null-write-4k-d32", Fixture::Null, Pattern::RandomWrite, (4 * KIB, 32, 1)).within(USUAL),
    row("null-read-4k-d32-q2", Fixture::Null, Pattern::RandomRead, (4 * KIB, 32, 2)).within(USUAL),
    row("null-read-4k-d32-1t", Fixture::Null, Pattern::RandomRead, (4 * KIB, 32, 1)),
    row("idle-8-volumes", Fixture::Idle, Pattern::Nothing, (4 * KIB, 1, 1)),
];

/// How the driver learns of completions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// It sleeps until the device interrupts, as a guest's kernel does.
    Sleep,
    /// It looks at the ring again and again.
    Poll,
}

/// What one run of a workload gave.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) latency: Histogram,
}

/// Drives every queue with the workload, each from a thread of its own.
pub(crate) fn run(queues: &mut [Queue], workload: Workload, load: Load) -> io::Result<Outcome> {
    let mut all = Outcome::default();
    thread::scope(|scope| {
        let runs: Vec<_> = (0_u64..)
            .zip(queues)
            .map(|(index, queue)| scope.spawn(move || Run::new(queue, index, workload, load).run()))
            .collect();
        for run in runs {
            let outcome = run.join().map_err(|_| io::Error::other("a queue's thread panicked"))??;
            all.requests += outcome.requests;
            all.latency.merge(&outcome.latency);
        }
        Ok(all)
    })
}

#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The part of the volume that is used, in bytes.
    pub(crate) span: u64,
    pub(crate) duration: Duration,
    pub(crate) waiting: Waiting,
}

/// A device that finishes nothing for so long is stuck.
const ANSWER_MAX: Duration = Duration::from_secs(10);

struct Run<'a> {
    queue: &'a mut Queue,
    workload: Workload,
    load: Load,
    random: u64,
    next_block: u64,
    submitted: Vec<Instant>,
    finished: Vec<u16>,
    in_flight: u16,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(queue: &'a mut Queue, index: u64, workload: Workload, load: Load) -> Self {
        let slots = usize::from(queue.slots());
        Run {
            queue,
            workload,
            load,
            random: 0x9e37_79b9_7f4a_7c15 ^ (index << 40),
            next_block: 0,
            submitted: vec![Instant::now(); slots],
            finished: Vec::with_capacity(slots),
            in_flight: 0,
            outcome: Outcome::default(),
        }
    }

    fn run(mut self) -> io::Result<Outcome> {
        let deadline = Instant::now() + self.load.duration;
        match self.workload.pattern {
            Pattern::RandomWriteFlush => self.run_batches(deadline)?,
            _ => self.run_steadily(deadline)?,
        }
        Ok(self.outcome)
    }

    /// Keeps `depth` requests in flight.
    fn run_steadily(&mut self, deadline: Instant) -> io::Result<()> {
        self.finished.extend(0..self.workload.depth);
        let mut now = Instant::now();
        while now < deadline {
            self.submit_finished(now)?;
            self.wait()?;
            now = Instant::now();
            self.reap(now, true)?;
        }
        while self.in_flight > 0 {
            self.wait()?;
            self.reap(Instant::now(), true)?;
        }
        Ok(())
    }

    /// `depth` writes, all of them awaited, then a flush.
    fn run_batches(&mut self, deadline: Instant) -> io::Result<()> {
        while Instant::now() < deadline {
            self.finished.clear();
            self.finished.extend(0..self.workload.depth);
            self.submit_finished(Instant::now())?;
            while self.in_flight > 0 {
                self.wait()?;
                self.reap(Instant::now(), false)?;
            }
            self.outcome.requests += u64::from(self.workload.depth);
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.submitted[0] = Instant::now();
        self.queue.submit(0, Request::Flush)?;
        self.in_flight += 1;
        self.queue.kick()?;
        while self.in_flight > 0 {
            self.wait()?;
            self.reap(Instant::now(), true)?;
        }
        self.outcome.requests -= 1;
        Ok(())
    }

    /// Uses every slot that came back for a new request, and notifies the device once.
    fn submit_finished(&mut self, now: Instant) -> io::Result<()> {
        while let Some(slot) = self.finished.pop() {
            let request = self.next_request();
            self.submitted[usize::from(slot)] = now;
            self.queue.submit(slot, request)?;
            self.in_flight += 1;
        }
        self.queue.kick()
    }

    fn next_request(&mut self) -> Request {
        let len = self.workload.block_bytes;
        let block_bytes = len as u64;
        let blocks = self.load.span / block_bytes;
        let block = match self.workload.pattern {
            Pattern::SequentialRead | Pattern::SequentialWrite => {
                self.next_block = (self.next_block + 1) % blocks;
                self.next_block
            }
            _ => self.next_random() % blocks,
        };
        let offset = block * block_bytes;
        match self.workload.pattern {
            Pattern::RandomRead | Pattern::SequentialRead => Request::Read { offset, len },
            _ => Request::Write { offset, len },
        }
    }

    /// Xorshift (Marsaglia, 2003).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.load.waiting {
            Waiting::Poll => self.spin(),
            Waiting::Sleep if self.queue.wait(ANSWER_MAX)? => Ok(()),
            Waiting::Sleep => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Looks at the clock only once in a while: that costs more than looking at the ring.
    fn spin(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + ANSWER_MAX;
        while Instant::now() < give_up {
            for _ in 0..10_000 {
                if self.queue.has_finished() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn reap(&mut self, now: Instant, is_recorded: bool) -> io::Result<()> {
        let Run { queue, submitted, finished, outcome, in_flight, .. } = self;
        let mut failure = None;
        let count = queue.reap(|slot, result| {
            failure = failure.take().or(result.err());
            if is_recorded {
                outcome.latency.record(now - submitted[usize::from(slot)]);
            }
            finished.push(slot);
            *in_flight -= 1;
        });
        if is_recorded {
            outcome.requests += count as u64;
        }
        failure.map_or(Ok(()), Err)
    }
}
