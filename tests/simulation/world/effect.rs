//! What an operation does, piece by piece, and whether it will fail.

use super::content::{Content, SECTOR, Sector};
use super::faults::Faults;
use super::object::{OpId, SimObject};
use super::pending::Pending;
use super::{State, Unsynced};
use archvhost::store::{Buffer, Durability, ObjectName, Op, Persistence, PublishMode, StoreError, StoreErrorKind};

impl State {
    /// Lets the op's sectors `done..done + count` take effect, or the whole of one that has no sectors.
    pub(super) fn take_effect(&mut self, index: usize, done: usize, count: usize) {
        if done == 0 {
            self.begin(index);
        } else {
            self.look_whether_it_vanished(index);
        }
        let pending = &self.pending[index];
        let id = pending.id;
        if pending.failure.is_some() && !self.happens_although_it_fails(index) {
            return;
        }
        let pending = &self.pending[index];
        match &pending.op {
            Op::Read { object, .. } => read(&self.objects, object, pending, done, count),
            Op::Write { object, .. } | Op::Create { object, .. } | Op::Zero { object, .. } => {
                let object = object.clone();
                if let Op::Write { offset, .. } | Op::Zero { offset, .. } = &pending.op {
                    let sector = |number: usize| offset + u64::try_from(number * SECTOR).expect("a small number");
                    self.refuse_if_shared(&object, &(sector(done)..sector(done + count)));
                }
                let pending = &self.pending[index];
                if let Some(target) = self.objects.get_mut(&object) {
                    change(target, pending, done, count);
                }
            }
            Op::Remove { object } => {
                let name = object.clone();
                self.begin_life(&name, id, None);
            }
            Op::Publish { object, content, .. } => {
                let (name, content) = (object.clone(), Content::new(content.to_vec()));
                self.begin_life(&name, id, Some(content));
                if matches!(name, ObjectName::Header { .. }) {
                    self.look_at_header(&name);
                }
            }
            Op::Sync { .. } | Op::SyncAll | Op::Stat { .. } | Op::List { .. } => {}
        }
    }

    /// What is decided when the operation reaches the store: whether its object is there; creation.
    fn begin(&mut self, index: usize) {
        let pending = &self.pending[index];
        let (id, origin) = (pending.id, pending.origin.incarnation);
        let exists = |name: &ObjectName| self.objects.get(name).is_some_and(|object| object.visible().is_some());
        let refusal = match &pending.op {
            Op::Read { object, .. } if !exists(object) => Some((StoreErrorKind::NotFound, "read", object)),
            Op::Write { object, .. } if !exists(object) => Some((StoreErrorKind::NotFound, "write", object)),
            Op::Zero { object, .. } if !exists(object) => Some((StoreErrorKind::NotFound, "zero", object)),
            Op::Stat { object } if !exists(object) => Some((StoreErrorKind::NotFound, "look at", object)),
            Op::Create { object, .. } if exists(object) => Some((StoreErrorKind::Exists, "create", object)),
            Op::Publish { object, mode: PublishMode::Exclusive, .. } if exists(object) => {
                Some((StoreErrorKind::Exists, "publish", object))
            }
            Op::Publish { object, content, .. } if content.len() > self.habits.publish_bytes_max => {
                Some((StoreErrorKind::NoSpace, "publish", object))
            }
            _ => None,
        };
        if let Some((kind, operation, object)) = refusal {
            self.pending[index].failure = Some(StoreError::new(kind, operation, object));
            return;
        }
        let changes = matches!(
            pending.op,
            Op::Write { .. } | Op::Create { .. } | Op::Zero { .. } | Op::Remove { .. } | Op::Publish { .. }
        );
        if changes {
            let volume = changed_object(&pending.op).and_then(ObjectName::volume);
            let persistence = Persistence::Object;
            let unsynced = Unsynced { persistence, origin, reported: false, volume, spoiled: false };
            self.unsynced.insert(id, unsynced);
        }
        let created = match &self.pending[index].op {
            Op::Create { object, .. } => Some(object.clone()),
            _ => None,
        };
        if let Some(name) = created
            && (self.pending[index].failure.is_none() || self.rng.one_in(2))
        {
            self.begin_life(&name, id, Some(Content::default()));
        }
    }

    /// A read whose object was removed between two of its pieces has not read it.
    fn look_whether_it_vanished(&mut self, index: usize) {
        if let Op::Read { object, .. } = &self.pending[index].op
            && self.objects.get(object).is_none_or(|found| found.visible().is_none())
        {
            self.pending[index].failure = Some(StoreError::new(StoreErrorKind::NotFound, "read", object));
        }
    }

    fn begin_life(&mut self, name: &ObjectName, id: OpId, base: Option<Content>) {
        let object = self.objects.entry(name.clone()).or_insert_with(SimObject::absent);
        if base.is_some() || object.visible().is_some() {
            object.begin_life(id, base);
        }
    }

    /// A failed change may have happened, in part or whole; a refused one never, nor a publication without space.
    fn happens_although_it_fails(&mut self, index: usize) -> bool {
        let pending = &self.pending[index];
        let is_publication = matches!(pending.op, Op::Publish { .. });
        let refused = |error: &StoreError| match error.kind() {
            StoreErrorKind::NotFound | StoreErrorKind::Exists => true,
            StoreErrorKind::NoSpace => is_publication,
            _ => false,
        };
        let harmless = matches!(pending.op, Op::Read { .. } | Op::Stat { .. } | Op::List { .. });
        !harmless && !pending.failure.as_ref().is_some_and(refused) && self.rng.one_in(2)
    }

    /// Draws the operation's fate.
    pub(super) fn failure_for(&mut self, op: &Op) -> Option<StoreError> {
        let Faults { read_fails, write_fails, create_fails, no_space, journal_fails, publish_fails, sync_fails } =
            self.faults;
        let io = StoreErrorKind::Io;
        let full = StoreErrorKind::NoSpace;
        let (odds, kind, counter, operation, object) = match op {
            Op::Read { object: object @ ObjectName::Data { .. }, .. } => {
                (read_fails, io, &mut self.injected.data, "read", Some(object))
            }
            Op::Read { .. } | Op::Stat { .. } | Op::List { .. } | Op::Remove { .. } => return None,
            Op::Write { durability: Durability::Durable, object: object @ ObjectName::Journal { .. }, .. } => {
                (journal_fails, io, &mut self.injected.metadata, "write", Some(object))
            }
            Op::Write { object, .. } | Op::Zero { object, .. } => {
                (write_fails, io, &mut self.injected.data, "write", Some(object))
            }
            Op::Create { object, .. } if self.rng.one_in(no_space) => {
                (1, full, &mut self.injected.no_space, "create", Some(object))
            }
            Op::Create { object, .. } => (create_fails, io, &mut self.injected.data, "create", Some(object)),
            Op::Publish { object, .. } if self.rng.one_in(no_space) => {
                (1, full, &mut self.injected.no_space, "publish", Some(object))
            }
            Op::Publish { object, .. } => (publish_fails, io, &mut self.injected.metadata, "publish", Some(object)),
            Op::Sync { .. } | Op::SyncAll => (sync_fails, io, &mut self.injected.sync, "sync", None),
        };
        if !self.rng.one_in(odds) {
            return None;
        }
        *counter += 1;
        let target = object.map_or_else(|| "the store".to_owned(), ToString::to_string);
        Some(StoreError::new(kind, operation, target))
    }
}

fn changed_object(op: &Op) -> Option<&ObjectName> {
    match op {
        Op::Write { object, .. }
        | Op::Create { object, .. }
        | Op::Zero { object, .. }
        | Op::Remove { object }
        | Op::Publish { object, .. } => Some(object),
        Op::Read { .. } | Op::Sync { .. } | Op::SyncAll | Op::Stat { .. } | Op::List { .. } => None,
    }
}

fn read(
    objects: &std::collections::BTreeMap<ObjectName, SimObject>,
    name: &ObjectName,
    pending: &Pending,
    done: usize,
    count: usize,
) {
    let (Some(content), Op::Read { buffer, .. }) = (objects.get(name).and_then(SimObject::visible), &pending.op) else {
        return;
    };
    // All pieces at once: they lie side by side.
    let (offset, len) = pending.span().expect("a read has a span");
    let first = offset / SECTOR + done;
    let start = offset.max(first * SECTOR);
    let end = (offset + len).min((first + count) * SECTOR);
    let mut bytes = vec![0; end - start];
    content.read(start, &mut bytes);
    buffer.copy_in(start - offset, &bytes);
}

fn change(object: &mut SimObject, pending: &Pending, done: usize, count: usize) {
    for piece in pieces(pending, done, count) {
        let Some(content) = object.visible() else { return };
        let mut sector: Sector = content.sector(piece.sector);
        let part = &mut sector[piece.in_sector..piece.in_sector + piece.len];
        match buffer(&pending.op) {
            Some(buffer) => buffer.copy_out(piece.in_buffer, part),
            None if piece.sector * SECTOR >= content.len() => continue,
            None => part.fill(0),
        }
        object.write_sector(pending.id, piece.sector, sector);
    }
}

fn buffer(op: &Op) -> Option<&Buffer> {
    match op {
        Op::Write { buffer, .. } | Op::Create { buffer, .. } => Some(buffer),
        _ => None,
    }
}

/// The part of an operation that lies in one sector.
struct Piece {
    sector: usize,
    in_sector: usize,
    in_buffer: usize,
    len: usize,
}

fn pieces(pending: &Pending, done: usize, count: usize) -> impl Iterator<Item = Piece> {
    let (offset, len) = pending.span().expect("only operations with a span have pieces");
    let first = offset / SECTOR;
    (first + done..first + done + count).map(move |sector| {
        let start = offset.max(sector * SECTOR);
        let end = (offset + len).min((sector + 1) * SECTOR);
        Piece { sector, in_sector: start - sector * SECTOR, in_buffer: start - offset, len: end - start }
    })
}
