//! Streams: what `export --from OLD NEW` writes and `import` reads; docs/stream-format.md has the bytes.
//!
//! ```text
//!   this thread: maps ─ differences ─► reads, several at once ─► records ─► another: bytes, digest ─► pipe
//! ```
//! Only snapshots are exported: their content has a name of its own (an id), never changes, and so can be the base of a later
//! stream, or gone on with tomorrow.

pub mod format;
pub mod receive;
pub mod received;
pub mod token;

use super::export::ExportReport;
use super::job::Job;
use super::stream;
use super::transfer::{TransferError, nonzero_runs};
use crate::map::format::header::{Header, VolumeKind};
use crate::store::{Buffer, Store, io};
use crate::units::{ByteRange, VolumeId, VolumeName};
use crate::volume::open::read_header;
use crate::volume::{Access, OpenOptions, Port, Request, Volume, VolumeError, VolumeErrorKind};
use format::{Base, DATA_BYTES_MAX, Encoder, Head, Record};
use futures_util::future::try_join_all;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use token::Token;

/// Ranges read at once: enough for a disk, and at most 8 MiB.
const READS: usize = 8;

/// Records that wait for the pipe: as many again.
const RECORDS_WAITING: usize = 8;

#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// What is exported: a snapshot.
    pub name: VolumeName,
    /// The snapshot that the other side has already; all of `name` is exported without one.
    pub from: Option<VolumeName>,
    /// As an interrupted import told it: where to go on.
    pub resume: Option<String>,
}

/// Blocks until the stream is written. The job counts bytes of the volume that were compared and, where needed, sent.
///
/// # Errors
/// As [`super::export::export`], and when the two are not snapshots, or not those that the token names.
pub fn export_stream(
    store: &Arc<dyn Store>,
    request: &StreamRequest,
    options: &OpenOptions,
    target: File,
    job: &Job,
) -> Result<ExportReport, TransferError> {
    let token = request.resume.as_deref().map(str::parse::<Token>).transpose()?;
    let options = OpenOptions { access: Access::ReadOnly, ..options.clone() };
    let to = Snapshot::open(store, &request.name, &options)?;
    let from = request.from.as_ref().map(|from| Snapshot::open(store, from, &options)).transpose()?;
    let head = head(&to, from.as_ref(), token)?;
    let size = head.size.bytes();
    job.set_total(size);
    let (records, waiting) = sync_channel(RECORDS_WAITING);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&head, waiting, target, job));
        let read = produce(&to.volume, from.as_ref().map(|from| &from.volume), &head, records, job);
        let written = match writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        read.and_then(|data| written.map(|()| data))
    })?;
    job.reached(size);
    Ok(ExportReport { size, written })
}

/// An open snapshot.
struct Snapshot {
    volume: Arc<Volume>,
    header: Header,
}

impl Snapshot {
    fn open(store: &Arc<dyn Store>, name: &VolumeName, options: &OpenOptions) -> Result<Self, VolumeError> {
        let volume = Volume::open(store, name, options)?;
        let id = volume.id();
        let (header, _) = io::block_on(store, None, |io| async move { read_header(&io, id, name).await })?;
        if header.kind != VolumeKind::Snapshot {
            let text = format!("{name} is no snapshot: streams are made of snapshots (archvhost snapshot {name} …)");
            return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text));
        }
        Ok(Self { volume, header })
    }

    /// Whose content it has: another snapshot's, if it was received and not changed since.
    fn content(&self) -> VolumeId {
        self.header.content.unwrap_or(self.header.id)
    }
}

fn head(to: &Snapshot, from: Option<&Snapshot>, token: Option<Token>) -> Result<Head, TransferError> {
    let base = from.map(|from| Base { id: from.content(), name: from.volume.name() });
    let name = to.volume.name();
    if let Some(base) = base.as_ref().filter(|base| base.id == to.content()) {
        let text = format!("{name} has the same content as {}: there is nothing to export", base.name);
        return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text).into());
    }
    let size = to.volume.size();
    let fits = |token: &Token| {
        token.to == to.content() && token.from == base.as_ref().map(|base| base.id) && token.position <= size.bytes()
    };
    if let Some(token) = token.filter(|token| !fits(token)) {
        return Err(TransferError::OtherToken(token));
    }
    Ok(Head {
        object_size: to.volume.object_size(),
        to: to.content(),
        name,
        from: base,
        size,
        position: token.map_or(0, |token| token.position),
        created: to.header.created,
    })
}

/// Sends what differs as records. Returns the bytes of data.
fn produce(
    to: &Arc<Volume>,
    from: Option<&Arc<Volume>>,
    head: &Head,
    records: SyncSender<Record>,
    job: &Job,
) -> Result<u64, TransferError> {
    let port = Port::open(to)?;
    let mut sender = Sender { records, full: from.is_none(), zero: None, data_bytes: 0, zero_bytes: 0 };
    let size = head.size.bytes();
    let mut at = head.position;
    while let Some(part) = port.block_on(port.differences(from, at))? {
        let mut ranges = Vec::with_capacity(READS);
        for difference in part.differences {
            for range in pieces(difference.range, size) {
                ranges.push((range, difference.zero));
                if ranges.len() == READS && send(&port, &mut ranges, &mut sender, job)? == Wanted::No {
                    return Ok(sender.data_bytes);
                }
            }
        }
        if send(&port, &mut ranges, &mut sender, job)? == Wanted::No {
            return Ok(sender.data_bytes);
        }
        at = part.next;
        job.reached(at.min(size));
    }
    // A stream without an end is not taken for whole.
    to.confirm_reads()?;
    from.map_or(Ok(()), |from| from.confirm_reads())?;
    sender.end();
    Ok(sender.data_bytes)
}

/// Whether anybody still takes the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Wanted {
    Yes,
    No,
}

/// The range, as far as it lies below `size`, in pieces that one record takes.
fn pieces(range: ByteRange, size: u64) -> impl Iterator<Item = ByteRange> {
    let end = (range.offset + range.len).min(size);
    let mut at = range.offset;
    std::iter::from_fn(move || {
        let len = end.checked_sub(at).filter(|rest| *rest != 0)?.min(DATA_BYTES_MAX as u64);
        at += len;
        Some(ByteRange::new(at - len, len))
    })
}

/// Reads ranges, all at once, and sends what is in them; nothing is read of those that are zero.
fn send(
    port: &Port,
    ranges: &mut Vec<(ByteRange, bool)>,
    sender: &mut Sender,
    job: &Job,
) -> Result<Wanted, TransferError> {
    if job.is_cancelled() {
        return Err(TransferError::Cancelled);
    }
    let reads = ranges.iter().map(|(range, zero)| {
        let (range, zero) = (*range, *zero);
        async move {
            let len = if zero { 0 } else { usize::try_from(range.len).expect("a record's data") };
            let buffer = Buffer::zeroed(len);
            let read = if zero { None } else { port.request(Request::Read { range, buffer }).await? };
            Ok::<_, VolumeError>((range, read.map(|buffer| buffer.to_vec())))
        }
    });
    let read = port.block_on(try_join_all(reads))?;
    ranges.clear();
    for (range, bytes) in read {
        let wanted = match bytes {
            Some(bytes) => sender.data(range.offset, &bytes),
            None => sender.zero(range),
        };
        if wanted == Wanted::No {
            return Ok(Wanted::No);
        }
        job.reached(range.offset + range.len);
    }
    Ok(Wanted::Yes)
}

/// Makes records of what was read: zeros become zero records, or nothing in a full stream, whose receiver starts with zeros.
struct Sender {
    records: SyncSender<Record>,
    full: bool,
    /// Zeros that may go on.
    zero: Option<ByteRange>,
    data_bytes: u64,
    zero_bytes: u64,
}

impl Sender {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Wanted {
        let mut at = 0;
        for run in nonzero_runs(bytes) {
            let zeros = ByteRange::new(offset + at as u64, (run.start - at) as u64);
            at = run.end;
            self.data_bytes += run.len() as u64;
            let record = Record::Data { offset: offset + run.start as u64, bytes: bytes[run].to_vec() };
            if self.zero(zeros) == Wanted::No || self.flush() == Wanted::No || self.send(record) == Wanted::No {
                return Wanted::No;
            }
        }
        self.zero(ByteRange::new(offset + at as u64, (bytes.len() - at) as u64))
    }

    fn zero(&mut self, range: ByteRange) -> Wanted {
        if range.len == 0 || self.full {
            return Wanted::Yes;
        }
        match &mut self.zero {
            Some(zero) if zero.offset + zero.len == range.offset => {
                zero.len += range.len;
                Wanted::Yes
            }
            _ => {
                let wanted = self.flush();
                self.zero = Some(range);
                wanted
            }
        }
    }

    fn flush(&mut self) -> Wanted {
        match self.zero.take() {
            Some(zero) => {
                self.zero_bytes += zero.len;
                self.send(Record::Zero(zero))
            }
            None => Wanted::Yes,
        }
    }

    fn end(&mut self) {
        if self.flush() == Wanted::Yes {
            let _told_by_the_writer = self.send(Record::End { data: self.data_bytes, zero: self.zero_bytes });
        }
    }

    fn send(&self, record: Record) -> Wanted {
        if self.records.send(record).is_ok() { Wanted::Yes } else { Wanted::No }
    }
}

/// Writes the stream as long as records come; without an end record when there is none.
fn write(head: &Head, records: Receiver<Record>, mut target: File, job: &Job) -> Result<(), TransferError> {
    let is_file = target.metadata().map_err(TransferError::WriteImage)?.is_file();
    if is_file {
        target.set_len(0).map_err(TransferError::WriteImage)?;
    }
    let mut put = |bytes: &[u8]| match is_file {
        true => target.write_all(bytes).map_err(TransferError::WriteImage),
        false => stream::write(&target, bytes, job),
    };
    let (mut encoder, bytes) = Encoder::new(head);
    put(&bytes)?;
    for record in records {
        put(&encoder.record(&record))?;
    }
    if is_file {
        target.sync_all().map_err(TransferError::WriteImage)?;
    }
    Ok(())
}
