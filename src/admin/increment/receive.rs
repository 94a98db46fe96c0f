//! Importing a stream: into a new volume when it is a full one, otherwise into a volume that has the content it starts from.
//!
//! ```text
//!   one thread: pipe ─► digest, checks ─► records ─► this one: writes, several at once ─► now and then: header {receiving}
//! ```
//! The volume's header says at every moment what the volume has (docs/stream-format.md, "Whose content"): it is marked before the
//! first change, the mark moves behind what is durable, and the last step makes it the content received. So an import that
//! ends early, however it ends, leaves a volume that nobody takes for whole, and that the rest of the stream completes.

use super::super::branch::Opened;
use super::super::create::{CreateRequest, create};
use super::super::import::{ImportReport, ImportRequest, undo, unfinished_name};
use super::super::info::info;
use super::super::job::Job;
use super::super::rename::{refuse_taken, rename};
use super::super::resize::{ResizeRequest, Shrink, resize};
use super::super::stream;
use super::super::transfer::TransferError;
use super::format::{Decoder, Head, Record, Source};
use super::received::header_of;
use super::token::Token;
use crate::map::format::header::{Header, Receiving, VolumeKind};
use crate::store::{Buffer, Space, Store, io};
use crate::units::{ByteRange, ByteSize, VolumeId, VolumeName};
use crate::volume::capture::Amendment;
use crate::volume::open::{find, read_header};
use crate::volume::{OpenOptions, Port, Request, Stability, Volume, VolumeError, VolumeErrorKind};
use futures_util::future::join_all;
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Records written at once, at most 8 MiB of them.
const WRITES: usize = 8;

/// Records that wait to be written: as many again.
const RECORDS_WAITING: usize = 8;

/// How much, and of how long, an interruption may lose.
const NOTE_BYTES: u64 = 256 << 20;
const NOTE_INTERVAL: Duration = Duration::from_secs(10);

/// Blocks until all of the stream is in the volume. `first` is what was read from the file already.
///
/// # Errors
/// When the stream is damaged or does not go with the volume, or the store fails.
pub fn receive(
    store: &Arc<dyn Store>,
    request: &ImportRequest,
    options: &OpenOptions,
    file: &File,
    first: Vec<u8>,
    job: &Job,
) -> Result<ImportReport, TransferError> {
    let stop = AtomicBool::new(false);
    let (decoder, head) = Decoder::new(Pipe { file, first, job, stop: &stop })?;
    if request.size.is_some_and(|size| size != head.size) {
        let text = format!("the stream is of a volume of {}: leave --size out", ByteSize(head.size.bytes()));
        return Err(VolumeError::new(VolumeErrorKind::OutOfRange, text).into());
    }
    job.set_total(head.size.bytes());
    let import = Import { store, options, head: &head, target: &request.name, job, stop: &stop };
    let written = match head.from {
        None => import.whole(decoder)?,
        Some(_) => import.into(&request.name, decoder)?,
    };
    Ok(ImportReport { volume: info(store, &request.name)?, written })
}

/// The stream's file, behind what was read of it before.
struct Pipe<'a> {
    file: &'a File,
    first: Vec<u8>,
    job: &'a Job,
    stop: &'a AtomicBool,
}

impl Source for Pipe<'_> {
    fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<(), TransferError> {
        let read_before = self.first.len().min(len);
        bytes.extend(self.first.drain(..read_before));
        let given_up = || self.job.is_cancelled() || self.stop.load(Ordering::Relaxed);
        stream::read_until(self.file, len - read_before, bytes, &given_up)
    }
}

#[derive(Clone, Copy)]
struct Import<'a> {
    store: &'a Arc<dyn Store>,
    options: &'a OpenOptions,
    head: &'a Head,
    /// The name that was asked for.
    target: &'a VolumeName,
    job: &'a Job,
    /// Set when nothing more is to be read.
    stop: &'a AtomicBool,
}

impl Import<'_> {
    /// A full stream: under another name until it is complete.
    fn whole(self, decoder: Decoder<Pipe<'_>>) -> Result<u64, TransferError> {
        let head = self.head;
        refuse_taken(self.store, self.target)?;
        let name = unfinished_name(self.target, head.to);
        if head.position == 0 {
            let request = CreateRequest { name: name.clone(), size: head.size, object_size: head.object_size };
            create(self.store, &request).map_err(|error| self.there_already(&name, error))?;
        }
        let written = match self.into(&name, decoder) {
            Ok(written) => written,
            Err(failure @ TransferError::Interrupted { .. }) => return Err(failure),
            // Nothing of it is worth keeping.
            Err(failure) if head.position == 0 => return Err(undo(self.store, &name, failure)),
            Err(failure) => return Err(failure),
        };
        rename(self.store, &name, self.target, self.options).map_err(|error| TransferError::Interrupted {
            failure: Box::new(error.into()),
            way_on: format!("all of {} is in volume {name}: `archvhost rename {name} NAME` names it", head.name),
        })?;
        Ok(written)
    }

    /// The volume to be filled exists: an earlier import has left it.
    fn there_already(self, name: &VolumeName, error: VolumeError) -> TransferError {
        if error.kind() != VolumeErrorKind::Exists {
            return error.into();
        }
        let header = io::block_on(self.store, None, |io| async move {
            let id = find(&io, name).await?;
            read_header(&io, id, name).await.map(|(header, _)| header)
        });
        let way_on = match header {
            Ok(Header { receiving: Some(Receiving { to, position }), .. }) if to == self.head.to => {
                self.way_on(name, position)
            }
            Ok(Header { content, .. }) if content == Some(self.head.to) => {
                format!("it is complete: `archvhost rename {name} {}` names it", self.target)
            }
            Ok(_) | Err(_) => format!("`archvhost remove {name}` makes room"),
        };
        TransferError::Interrupted { failure: Box::new(error.into()), way_on }
    }

    fn way_on(self, name: &VolumeName, position: u64) -> String {
        let head = self.head;
        let from = head.from.as_ref();
        let token = Token { from: from.map(|base| base.id), to: head.to, position };
        let base = from.map(|base| format!(" --from {}", base.name)).unwrap_or_default();
        let give_up = if from.is_none() { format!("; `archvhost remove {name}` gives it up") } else { String::new() };
        format!(
            "volume {name} has {} of {}: `archvhost export {} -{base} --resume {token} | archvhost import {}` goes on{give_up}",
            ByteSize(position),
            ByteSize(head.size.bytes()),
            head.name,
            self.target
        )
    }

    /// Into a volume that exists.
    fn into(self, name: &VolumeName, decoder: Decoder<Pipe<'_>>) -> Result<u64, TransferError> {
        let volume = Volume::open(self.store, name, self.options)?;
        let received = self.into_open(&volume, decoder);
        let closed = volume.close().map_err(TransferError::from);
        let written = received?;
        closed.map(|()| written)
    }

    fn into_open(self, volume: &Arc<Volume>, decoder: Decoder<Pipe<'_>>) -> Result<u64, TransferError> {
        let header = header_of(self.store, volume)?;
        let position = self.start(&header)?;
        let port = Port::open(volume)?;
        let content = header.content;
        let mut target =
            Target { import: self, volume, port, content, position, noted: position, touched: false, written: 0 };
        target.amend(content, Some(Receiving { to: self.head.to, position }))?;
        match target.fill(decoder) {
            Ok(()) => {}
            Err(failure) if !target.touched => {
                // Nothing has changed, so nothing needs to be told.
                target.amend(content, header.receiving)?;
                return Err(failure);
            }
            Err(failure) => return Err(target.interrupted(failure)),
        }
        Ok(target.written)
    }

    /// Where the stream goes on; refuses a volume that it does not go with.
    fn start(self, header: &Header) -> Result<u64, TransferError> {
        let Head { to, from, position, name: snapshot, .. } = self.head;
        let name = &header.name;
        let refuse = |text: String| Err(VolumeError::new(VolumeErrorKind::Busy, text).into());
        if header.kind != VolumeKind::Disk {
            return refuse(format!("{name} is a snapshot, which does not change"));
        }
        let base = from.as_ref().map(|base| base.id);
        if header.receiving.is_none() && header.content == Some(*to) {
            return refuse(format!("volume {name} has the content of {snapshot} ({to}) already"));
        }
        if header.content != base {
            let has = header.content.map_or("none that is known, or its own".to_owned(), |content| content.to_string());
            let needs =
                from.as_ref().map_or("nothing yet".into(), |base| format!("that of {} ({})", base.name, base.id));
            return refuse(format!("the stream needs a volume with the content {needs}; volume {name} has {has}"));
        }
        match header.receiving {
            Some(receiving) if receiving.to != *to => refuse(format!(
                "volume {name} is half received from another stream, to {}: that one must be finished first",
                receiving.to
            )),
            Some(receiving) if receiving.position < *position => refuse(format!(
                "the stream begins at byte {position}, and volume {name} has only {}: {}",
                receiving.position,
                self.way_on(name, receiving.position)
            )),
            Some(receiving) => Ok(receiving.position),
            None if *position != 0 => {
                refuse(format!("the stream begins at byte {position}, and volume {name} has nothing of it"))
            }
            None => Ok(0),
        }
    }
}

/// A volume that is being filled.
struct Target<'a> {
    import: Import<'a>,
    volume: &'a Arc<Volume>,
    port: Port,
    /// What it had before.
    content: Option<VolumeId>,
    /// Below it, everything is there; and how far the header says so.
    position: u64,
    noted: u64,
    /// Something may have been changed.
    touched: bool,
    written: u64,
}

/// The only open volume that there is.
struct Only<'a>(&'a Arc<Volume>);

impl Opened for Only<'_> {
    fn open_volume(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        (*name == self.0.name()).then(|| Arc::clone(self.0))
    }
}

impl Target<'_> {
    fn fill(&mut self, decoder: Decoder<Pipe<'_>>) -> Result<(), TransferError> {
        let size = self.import.head.size;
        if self.volume.size() < size {
            self.resize(Shrink::Refuse)?;
        }
        let (sender, records) = sync_channel(RECORDS_WAITING);
        thread::scope(|scope| {
            scope.spawn(move || decode(decoder, &sender));
            let taken = self.take(records);
            self.import.stop.store(true, Ordering::Relaxed);
            taken
        })?;
        if self.volume.size() > size {
            self.resize(Shrink::Allow)?;
        }
        self.amend(Some(self.import.head.to), None)
    }

    fn resize(&mut self, shrink: Shrink) -> Result<(), TransferError> {
        let Import { store, options, head, job, .. } = self.import;
        let request = ResizeRequest { volume: self.volume.name(), size: head.size, shrink };
        self.touched = true;
        resize(store, &request, &Only(self.volume), options, job)?;
        Ok(())
    }

    /// Writes all records, as they come.
    fn take(&mut self, records: Receiver<Result<Record, TransferError>>) -> Result<(), TransferError> {
        let mut noted_at = Instant::now();
        loop {
            let first = match records.recv_timeout(NOTE_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.note()?;
                    noted_at = Instant::now();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(reader_gone()),
            };
            let mut batch = vec![first];
            batch.extend(records.try_iter().take(WRITES - 1));
            // What came before a failure is good.
            let failure = batch.pop_if(|last| last.is_err());
            let batch: Vec<Record> = batch.into_iter().collect::<Result<_, _>>()?;
            self.write(&batch)?;
            match (failure, batch.last()) {
                (Some(failure), _) => return failure.map(drop),
                (None, Some(Record::End { .. })) => return Ok(()),
                (None, _) => {}
            }
            if self.position - self.noted >= NOTE_BYTES || noted_at.elapsed() >= NOTE_INTERVAL {
                self.note()?;
                noted_at = Instant::now();
            }
        }
    }

    fn write(&mut self, batch: &[Record]) -> Result<(), TransferError> {
        let (port, job) = (&self.port, self.import.job);
        self.touched |= batch.iter().any(|record| !matches!(record, Record::End { .. }));
        let writes = batch.iter().map(|record| async move {
            match record {
                Record::Data { offset, bytes } => {
                    let (range, buffer) = (ByteRange::new(*offset, bytes.len() as u64), Buffer::copied_from(bytes));
                    let request = Request::Write { range, buffer, stability: Stability::Cached };
                    port.request(request).await.map(drop).map_err(TransferError::from)
                }
                Record::Zero(range) => zero(port, *range, job).await,
                Record::End { .. } => Ok(()),
            }
        });
        // All of them end before the first failure is told.
        port.block_on(join_all(writes)).into_iter().collect::<Result<(), _>>()?;
        for record in batch {
            let end = match record {
                Record::Data { offset, bytes } => {
                    self.written += bytes.len() as u64;
                    offset + bytes.len() as u64
                }
                Record::Zero(range) => range.offset + range.len,
                Record::End { .. } => continue,
            };
            self.position = self.position.max(end);
            self.import.job.reached(end);
        }
        Ok(())
    }

    /// Makes durable what there is, and then how far that goes.
    fn note(&mut self) -> Result<(), TransferError> {
        if self.position != self.noted {
            self.amend(self.content, Some(Receiving { to: self.import.head.to, position: self.position }))?;
            self.noted = self.position;
        }
        Ok(())
    }

    fn amend(&self, content: Option<VolumeId>, receiving: Option<Receiving>) -> Result<(), TransferError> {
        self.port.block_on(self.volume.amend(Amendment::Content { content, receiving }))?;
        Ok(())
    }

    fn interrupted(&mut self, failure: TransferError) -> TransferError {
        if let Err(error) = self.note() {
            tracing::warn!(volume = %self.volume.name(), %error, "cannot note how far the import came");
        }
        let way_on = self.import.way_on(&self.volume.name(), self.noted);
        TransferError::Interrupted { failure: Box::new(failure), way_on }
    }
}

/// Zeros what the volume has of the range, which may be as large as the volume: a piece of a block at a time.
async fn zero(port: &Port, range: ByteRange, job: &Job) -> Result<(), TransferError> {
    let (mut at, end) = (range.offset, range.offset + range.len);
    while at < end {
        if job.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        let Some(piece) = port.allocated(ByteRange::new(at, end - at)).await? else { break };
        let request = Request::WriteZeroes { range: piece, space: Space::Free, stability: Stability::Cached };
        port.request(request).await?;
        at = piece.offset + piece.len;
    }
    Ok(())
}

/// Hands on what the stream has, to its end or to the first failure.
fn decode(mut decoder: Decoder<Pipe<'_>>, records: &SyncSender<Result<Record, TransferError>>) {
    loop {
        let record = decoder.record();
        let last = matches!(record, Err(_) | Ok(Record::End { .. }));
        if records.send(record).is_err() || last {
            return;
        }
    }
}

fn reader_gone() -> TransferError {
    TransferError::ReadImage(ErrorKind::BrokenPipe.into())
}
