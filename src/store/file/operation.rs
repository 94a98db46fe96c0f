//! A read, write or creation on its way through a ring: what its next entry is, and what a result makes of it.

use super::blocking;
use super::home::{Home, RESOLVE, failed};
use super::layout;
use super::open_file::{OpenFile, Writing};
use super::sync;
use super::transfer::{self, ATTEMPTS, Direction, Fit, SEGMENTS_MAX};
use crate::store::reply::Reply;
use crate::store::{Buffer, Durability, ObjectName, Op, Outcome, Persistence, StoreError, StoreErrorKind, Token};
use io_uring::{opcode, squeue, types};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

pub(super) struct Operation {
    token: Token,
    kind: Kind,
    object: ObjectName,
    offset: u64,
    buffer: Buffer,
    /// `None` until it is opened.
    file: Option<Arc<OpenFile>>,
    /// Bytes moved so far.
    moved: usize,
    attempts: u32,
    /// Of a write that has begun.
    writing: Option<Writing>,
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write(Durability),
    Create { size: u64 },
}

/// What most operations do without.
#[derive(Default)]
struct Rare {
    path: CString,
    how: types::OpenHow,
    /// Aligned memory in the buffer's stead.
    bounced: Option<Buffer>,
    /// What is left after a short transfer.
    rest: Option<Buffer>,
}

/// What comes next.
pub(super) enum Progress {
    /// [`Operation::entry`] once more.
    Again,
    /// The file is open; the transfer can begin.
    Opened(Arc<OpenFile>),
    /// A helper thread does it from the beginning.
    Helper,
    /// The data is durable, the object's name may not be: a helper thread sees to that.
    Settle,
    Done(Result<Outcome, StoreError>),
}

impl Operation {
    /// Gives back what is not for the ring.
    #[expect(clippy::result_large_err, reason = "an operation is handed on, not an error")]
    pub(super) fn from_op(token: Token, op: Op) -> Result<Self, Op> {
        let (kind, object, offset, buffer) = match op {
            Op::Read { object, offset, buffer } => (Kind::Read, object, offset, buffer),
            Op::Write { object, offset, buffer, durability } => (Kind::Write(durability), object, offset, buffer),
            Op::Create { object, offset, buffer, size } => (Kind::Create { size }, object, offset, buffer),
            other => return Err(other),
        };
        let (file, rare, writing) = (None, None, None);
        Ok(Self { token, kind, object, offset, buffer, file, moved: 0, attempts: 0, writing, rare })
    }

    /// The operation as it was submitted.
    pub(super) fn into_op(self) -> (Token, Op) {
        let Self { token, kind, object, offset, buffer, .. } = self;
        let op = match kind {
            Kind::Read => Op::Read { object, offset, buffer },
            Kind::Write(durability) => Op::Write { object, offset, buffer, durability },
            Kind::Create { size } => Op::Create { object, offset, buffer, size },
        };
        (token, op)
    }

    pub(super) fn into_parts(self) -> (Token, Buffer) {
        (self.token, self.buffer)
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn object(&self) -> &ObjectName {
        &self.object
    }

    pub(super) fn is_create(&self) -> bool {
        matches!(self.kind, Kind::Create { .. })
    }

    pub(super) fn set_file(&mut self, file: Arc<OpenFile>) {
        self.file = Some(file);
        // The opening's attempts are over; the transfer has not begun.
        self.attempts = 0;
    }

    /// Whether this is nothing for the ring: the place in the file does not fit O_DIRECT, or there is nothing to move.
    pub(super) fn needs_helper(&self, home: &Home) -> bool {
        if self.buffer.is_empty() || i64::try_from(self.offset).is_err() {
            return true;
        }
        let Some(file) = &self.file else { return false };
        transfer::fit(file, home.file_system.direct, self.offset, &self.buffer) == Fit::Buffered
    }

    fn direction(&self) -> Direction {
        match self.kind {
            Kind::Read => Direction::Read,
            Kind::Write(durability) => Direction::Write(durability),
            Kind::Create { .. } => Direction::Write(Durability::Cached),
        }
    }

    fn operation(&self) -> &'static str {
        match self.kind {
            Kind::Read => "read",
            Kind::Write(_) => "write",
            Kind::Create { .. } => "create",
        }
    }

    /// The next entry for the ring; it points into `self`. `slot` is where the file is registered, if it is.
    pub(super) fn entry(&mut self, home: &Home, slot: Option<u32>) -> squeue::Entry {
        // Taken out for a moment, so that no reference is counted on the fast path.
        let Some(file) = self.file.take() else { return self.open_entry(home) };
        if self.moved == 0 && self.attempts == 0 {
            self.begin(home, &file);
        }
        let entry = match slot {
            Some(slot) => self.transfer_entry(types::Fixed(slot)),
            None => self.transfer_entry(types::Fd(file.fd().as_raw_fd())),
        };
        self.file = Some(file);
        entry
    }

    fn begin(&mut self, home: &Home, file: &Arc<OpenFile>) {
        if self.kind != Kind::Read {
            self.writing = Some(Writing::begin(file, transfer::range(self.offset, &self.buffer)));
            if !file.direct {
                file.set_unsynced();
            }
        }
        if transfer::fit(file, home.file_system.direct, self.offset, &self.buffer) == Fit::Bounce {
            let bounced = transfer::bounce_for(self.direction(), &self.buffer);
            self.rare.get_or_insert_default().bounced = Some(bounced);
        }
    }

    fn open_entry(&mut self, home: &Home) -> squeue::Entry {
        let mut flags = home.open_flags(&self.object);
        let mut how = types::OpenHow::new().resolve(RESOLVE.bits());
        if self.is_create() {
            flags |= OFlags::CREATE | OFlags::EXCL;
            how = how.mode(u64::from(super::setup::file_mode().bits()));
        }
        let path = layout::path(&self.object);
        let rare = self.rare.get_or_insert_default();
        rare.path = path;
        rare.how = how.flags(u64::from(flags.bits()));
        let root = types::Fd(home.root.as_raw_fd());
        opcode::OpenAt2::new(root, rare.path.as_ptr(), &raw const rare.how).build()
    }

    fn transfer_entry(&self, target: impl Target) -> squeue::Entry {
        let offset = self.offset + u64::try_from(self.moved).expect("a length in memory fits in 64 bits");
        let segments = self.memory().segments();
        match (self.direction(), segments) {
            (Direction::Read, [segment]) => target.read(segment, offset),
            (Direction::Read, segments) => target.readv(segments, offset),
            (Direction::Write(durability), [segment]) => target.write(segment, offset, flags(durability)),
            (Direction::Write(durability), segments) => target.writev(segments, offset, flags(durability)),
        }
    }

    /// What the next entry moves.
    fn memory(&self) -> &Buffer {
        let rare = self.rare.as_deref();
        rare.and_then(|rare| rare.rest.as_ref().or(rare.bounced.as_ref())).unwrap_or(&self.buffer)
    }

    /// Takes an entry's result.
    pub(super) fn completed(&mut self, home: &Arc<Home>, result: i32) -> Progress {
        let result = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
        let file = self.file.take();
        let progress = self.progress(home, file.as_ref(), result);
        self.file = file;
        progress
    }

    fn progress(&mut self, home: &Arc<Home>, file: Option<&Arc<OpenFile>>, result: Result<usize, Errno>) -> Progress {
        match (file, result) {
            (_, Err(Errno::AGAIN | Errno::INTR)) if self.attempts < ATTEMPTS => {
                self.attempts += 1;
                Progress::Again
            }
            (None, Ok(fd)) => self.opened(home, RawFd::try_from(fd).expect("a descriptor came from an i32")),
            // No descriptor free, or (creating) a directory missing: that takes blocking calls.
            (None, Err(Errno::MFILE | Errno::NFILE)) => Progress::Helper,
            (None, Err(Errno::NOENT)) if self.is_create() => Progress::Helper,
            (Some(file), Ok(count)) => self.moved_some(home, file, count),
            (Some(file), Err(Errno::INVAL)) if self.kind == Kind::Read && self.moved != 0 => {
                // A direct read continues behind a ragged end of the file only to be told that it is ragged.
                self.moved_some(home, file, 0)
            }
            (_, Err(error)) => Progress::Done(Err(failed(error, self.operation(), &self.object))),
        }
    }

    #[allow(unsafe_code, reason = "the ring hands out a raw descriptor")]
    fn opened(&mut self, home: &Arc<Home>, fd: RawFd) -> Progress {
        // SAFETY: the kernel opened this descriptor for this operation just now; nobody else has its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = self.object.clone();
        let file = if self.is_create() {
            home.adopt_new(name, fd)
        } else {
            let gone = || StoreError::new(StoreErrorKind::NotFound, self.operation(), &self.object);
            home.adopt(name, fd).ok_or_else(gone)
        };
        file.map_or_else(|error| Progress::Done(Err(error)), Progress::Opened)
    }

    fn moved_some(&mut self, home: &Arc<Home>, file: &Arc<OpenFile>, count: usize) -> Progress {
        self.moved += count;
        let left = self.buffer.len() - self.moved;
        if left == 0 {
            return self.ended(home, file);
        }
        match (self.direction(), count) {
            (Direction::Read, 0) => {
                self.whole().fill_zero(self.moved, left);
                self.ended(home, file)
            }
            (Direction::Write(_), 0) => Progress::Done(Err(failed(Errno::IO, self.operation(), &self.object))),
            _ => {
                let rest = self.whole().slice(self.moved, left);
                self.rare.get_or_insert_default().rest = Some(rest);
                Progress::Again
            }
        }
    }

    /// The whole memory that is moved to or from.
    fn whole(&self) -> &Buffer {
        self.rare.as_deref().and_then(|rare| rare.bounced.as_ref()).unwrap_or(&self.buffer)
    }

    fn ended(&mut self, home: &Arc<Home>, file: &Arc<OpenFile>) -> Progress {
        match self.kind {
            Kind::Read => {
                if let Some(bounced) = self.rare.as_deref().and_then(|rare| rare.bounced.as_ref()) {
                    transfer::copy(bounced, &self.buffer);
                }
                Progress::Done(Ok(Outcome::Done))
            }
            Kind::Write(Durability::Durable) if transfer::has_settled_name(home, &self.object) => {
                Progress::Done(Ok(Outcome::Changed(Persistence::Durable)))
            }
            Kind::Write(Durability::Durable) => Progress::Settle,
            Kind::Write(Durability::Cached) => {
                let writing = self.writing.take().expect("a write begins before it ends");
                let persistence = writing.end();
                blocking::consider_learning(home, file, persistence);
                Progress::Done(Ok(Outcome::Changed(persistence)))
            }
            Kind::Create { .. } => Progress::Done(Ok(Outcome::Changed(Persistence::Object))),
        }
    }

    /// Makes the object's name durable on a helper thread, which then answers for the write.
    pub(super) fn settle(self, home: &Arc<Home>, reply: Reply) {
        let home_too = Arc::clone(home);
        home.pool.run(move || {
            let settled = sync::settle(&home_too, &self.object);
            reply.send(settled.map(|()| Outcome::Changed(Persistence::Durable)), Some(self.buffer));
        });
    }
}

fn flags(durability: Durability) -> i32 {
    match durability {
        Durability::Cached => 0,
        Durability::Durable => libc::RWF_DSYNC,
    }
}

/// A descriptor or a registered slot: the ring's entries are built alike for both, but by different types.
trait Target: Sized {
    fn read(self, segment: &libc::iovec, offset: u64) -> squeue::Entry;
    fn readv(self, segments: &[libc::iovec], offset: u64) -> squeue::Entry;
    fn write(self, segment: &libc::iovec, offset: u64, flags: i32) -> squeue::Entry;
    fn writev(self, segments: &[libc::iovec], offset: u64, flags: i32) -> squeue::Entry;
}

macro_rules! target {
    ($kind:ty) => {
        impl Target for $kind {
            fn read(self, segment: &libc::iovec, offset: u64) -> squeue::Entry {
                opcode::Read::new(self, segment.iov_base.cast(), len(segment)).offset(offset).build()
            }

            fn readv(self, segments: &[libc::iovec], offset: u64) -> squeue::Entry {
                opcode::Readv::new(self, segments.as_ptr(), count(segments)).offset(offset).build()
            }

            fn write(self, segment: &libc::iovec, offset: u64, flags: i32) -> squeue::Entry {
                let write = opcode::Write::new(self, segment.iov_base.cast_const().cast(), len(segment));
                write.offset(offset).rw_flags(flags).build()
            }

            fn writev(self, segments: &[libc::iovec], offset: u64, flags: i32) -> squeue::Entry {
                let write = opcode::Writev::new(self, segments.as_ptr(), count(segments));
                write.offset(offset).rw_flags(flags).build()
            }
        }
    };
}

target!(types::Fd);
target!(types::Fixed);

/// One call moves at most 2 GiB anyway; a longer segment is moved in several.
fn len(segment: &libc::iovec) -> u32 {
    const LEN_MAX: u32 = 1 << 30;
    u32::try_from(segment.iov_len).unwrap_or(LEN_MAX).min(LEN_MAX)
}

fn count(segments: &[libc::iovec]) -> u32 {
    u32::try_from(segments.len().min(SEGMENTS_MAX)).expect("bounded just now")
}
