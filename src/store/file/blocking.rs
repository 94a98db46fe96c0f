//! One operation by blocking calls, on a helper thread: what no ring does, and everything where there is no ring.

use super::home::{Home, failed};
use super::layout::{self, Directory};
use super::open_file::{OpenFile, Writing};
use super::transfer::{self, Direction, Fit};
use super::{list, publish, reserve, sync};
use crate::store::reply::Reply;
use crate::store::{Buffer, Durability, ObjectName, Op, Outcome, Persistence, Space, StoreError};
use crate::units::ByteRange;
use rustix::fs::{AtFlags, FallocateFlags};
use rustix::io::Errno;
use std::sync::Arc;

/// Zeros are written in pieces of this size where the file system cannot do it itself.
const ZEROS: usize = 1 << 20;

/// Hands the operation to a helper thread, which answers. Does not block.
pub(super) fn start(home: &Arc<Home>, op: Op, reply: Reply) {
    if let Op::Sync { objects } = op {
        return sync::start(home, objects, reply);
    }
    let home_too = Arc::clone(home);
    home.pool.run(move || {
        let (result, buffer) = execute(&home_too, op);
        reply.send(result, buffer);
    });
}

fn execute(home: &Arc<Home>, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>) {
    match op {
        Op::Read { object, offset, buffer } => (read(home, &object, offset, &buffer), Some(buffer)),
        Op::Write { object, offset, buffer, durability } => {
            (write(home, &object, offset, &buffer, durability), Some(buffer))
        }
        Op::Create { object, offset, buffer, size: _ } => (create(home, &object, offset, &buffer), Some(buffer)),
        Op::Zero { object, offset, len, space } => (zero(home, &object, ByteRange::new(offset, len), space), None),
        Op::Remove { object } => (remove(home, &object).map(|()| Outcome::Done), None),
        Op::Publish { object, content, mode, room } => {
            let published = publish::publish(home, &object, &content, (mode, room));
            (published.map(|()| Outcome::Done), Some(content))
        }
        Op::Stat { object } => (stat(home, &object), None),
        Op::List { scope, after, limit } => (list::list(home, scope, after, limit).map(Outcome::Names), None),
        Op::SyncAll => (sync::whole_store(home).map(|()| Outcome::Done), None),
        Op::Sync { .. } => unreachable!("syncs have several parts and do not come here"),
    }
}

fn read(home: &Arc<Home>, name: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
    let file = home.open(name, "read")?;
    transfer::run(home, &file, Direction::Read, offset, buffer).map(|()| Outcome::Done)
}

fn write(
    home: &Arc<Home>,
    name: &ObjectName,
    offset: u64,
    buffer: &Buffer,
    durability: Durability,
) -> Result<Outcome, StoreError> {
    let file = home.open(name, "write")?;
    let writing = Writing::begin(&file, transfer::range(offset, buffer));
    let cached = !file.direct || transfer::fit(&file, home.file_system.direct, offset, buffer) == Fit::Buffered;
    if cached && durability == Durability::Cached {
        file.set_unsynced();
    }
    transfer::run(home, &file, Direction::Write(durability), offset, buffer)?;
    let persistence = writing.end();
    if durability == Durability::Durable {
        sync::settle(home, name)?;
        return Ok(Outcome::Changed(Persistence::Durable));
    }
    let persistence = if cached { Persistence::Object } else { persistence };
    consider_learning(home, &file, persistence);
    Ok(Outcome::Changed(persistence))
}

/// After a write: looks at the file's extents when that is likely to make later writes cheap to flush.
pub(super) fn consider_learning(home: &Arc<Home>, file: &Arc<OpenFile>, persistence: Persistence) {
    let matters = persistence == Persistence::Object && home.file_system.one_flush && file.direct;
    if !matters || !file.is_worth_learning() {
        return;
    }
    let (file, home_too) = (Arc::clone(file), Arc::clone(home));
    home.pool.run(move || {
        let learning = file.begin_learning();
        match file.sync() {
            Ok(()) => file.learn_written(learning),
            // The kernel tells it once: it is kept for the sync that somebody waits for.
            Err(error) => home_too.sync.keep_failure(&file, error),
        }
    });
}

fn create(home: &Arc<Home>, name: &ObjectName, offset: u64, buffer: &Buffer) -> Result<Outcome, StoreError> {
    let file = home.create(name)?;
    if !buffer.is_empty() {
        file.set_unsynced();
        let _writing = Writing::begin(&file, transfer::range(offset, buffer));
        transfer::run(home, &file, Direction::Write(Durability::Cached), offset, buffer)?;
    }
    Ok(Outcome::Changed(Persistence::Object))
}

fn zero(home: &Arc<Home>, name: &ObjectName, range: ByteRange, space: Space) -> Result<Outcome, StoreError> {
    let file = home.open(name, "zero")?;
    if range.len != 0 {
        file.set_unsynced();
        file.punch(|| zero_range(home, &file, range, space))?;
    }
    Ok(Outcome::Changed(Persistence::Object))
}

fn zero_range(home: &Arc<Home>, file: &OpenFile, range: ByteRange, space: Space) -> Result<(), StoreError> {
    let mode = match space {
        Space::Free => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Space::Keep => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    };
    match rustix::fs::fallocate(file.fd(), mode, range.offset, range.len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(home, file, range),
        other => other.map_err(|error| failed(error, "zero", &file.name)),
    }
}

/// Writes zeros as far as the file reaches; what lies behind reads as zeros already.
fn write_zeros(home: &Arc<Home>, file: &OpenFile, range: ByteRange) -> Result<(), StoreError> {
    let end = range.offset.saturating_add(range.len).min(size(file)?);
    let zeros = Buffer::zeroed(ZEROS);
    let mut at = range.offset;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
        transfer::run(home, file, Direction::Write(Durability::Cached), at, &zeros.slice(0, len))?;
        at += u64::try_from(len).expect("at most ZEROS");
    }
    Ok(())
}

fn remove(home: &Home, name: &ObjectName) -> Result<(), StoreError> {
    match rustix::fs::unlinkat(&home.root, layout::path(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error, "remove", name)),
    }
    home.forget(name);
    remove_empty_directories(home, Directory::of(name));
    reserve::refill(home);
    Ok(())
}

/// Directories of data go with their last object. One that is not empty stays, which is the usual case and no error.
fn remove_empty_directories(home: &Home, directory: Directory) {
    match directory {
        Directory::Shard(..) | Directory::VolumeData(_) => {
            if rustix::fs::unlinkat(&home.root, directory.path(), AtFlags::REMOVEDIR).is_ok()
                && let Some(parent) = directory.parent()
            {
                remove_empty_directories(home, parent);
            }
        }
        Directory::Volume(volume) => super::lock::remove_unused(home, volume),
        Directory::Root | Directory::Names | Directory::Volumes | Directory::Data | Directory::Reserve => {}
    }
}

/// By name: a descriptor that is kept open would still show an object whose file somebody deleted.
fn stat(home: &Home, name: &ObjectName) -> Result<Outcome, StoreError> {
    let size = home.size_of(name).map_err(|error| failed(error, "look at", name))?;
    Ok(Outcome::Size(size))
}

fn size(file: &OpenFile) -> Result<u64, StoreError> {
    let status = rustix::fs::fstat(file.fd()).map_err(|error| failed(error, "look at", &file.name))?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}
