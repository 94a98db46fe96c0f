//! `import`: a new volume with the content of a raw image. Streams begin with a magic of their own, and are handed on to
//! [`super::increment::receive`].
//!
//! Either the whole image is in the volume, durable, or there is no volume of that name: the volume is filled under a name
//! that says what it is (`importing.web1.7f3a90c1`) and gets its own when it is complete. A transfer that fails or is
//! cancelled removes it; one that dies leaves it in the list, and collection removes it. Holes and zeros of the image take no space in the volume.

use super::create::{CreateRequest, create_as};
use super::increment::format::MAGIC;
use super::increment::receive::receive;
use super::info::{VolumeInfo, info};
use super::job::Job;
use super::remove::{Removal, remove};
use super::rename::{refuse_taken, rename};
use super::stream;
use super::transfer::{THREADS, TransferError, in_parallel, nonzero_runs};
use crate::map::format::header::{Header, HeaderState};
use crate::store::{self, Buffer, Store};
use crate::units::{
    ByteRange, ByteSize, Epoch, Generation, ObjectSize, SECTOR_BYTES, VolumeId, VolumeName, VolumeSize,
};
use crate::volume::{OpenOptions, Port, Request, Stability, Volume};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone)]
pub struct ImportRequest {
    pub name: VolumeName,
    /// The image's own size, rounded up to a sector, when not given.
    pub size: Option<VolumeSize>,
    /// A stream says its own.
    pub object_size: ObjectSize,
    pub format: ImageFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// A stream if it begins like one, otherwise raw.
    RawOrStream,
    /// Raw whatever its first bytes are: a guest can write any bytes there.
    Raw,
}

#[derive(Debug, Clone)]
pub struct ImportReport {
    pub volume: VolumeInfo,
    /// Bytes that were not zero and so went into objects.
    pub written: u64,
}

/// Blocks until the image is in the volume. `image` is a file, a block device or a pipe.
///
/// # Errors
/// When the name is taken, the image cannot be read or does not fit, or the store fails; with a stream also as
/// [`receive`](super::increment::receive::receive).
pub fn import(
    store: &Arc<dyn Store>,
    request: &ImportRequest,
    options: &OpenOptions,
    image: File,
    job: &Job,
) -> Result<ImportReport, TransferError> {
    let mut image = Image::new(image)?;
    if request.format == ImageFormat::RawOrStream && image.begins_with(MAGIC, job)? {
        return receive(store, request, options, &image.file, image.first, job);
    }
    let size = volume_size(request.size, &image)?;
    refuse_taken(store, &request.name)?;
    let id = VolumeId::random();
    let begin = CreateRequest { name: unfinished_name(&request.name, id), size, object_size: request.object_size };
    let unfinished = store::io::block_on(store, None, |io| async move { create_as(&io, store, id, &begin).await })?;
    let filled = fill(store, &unfinished, options, image, job).and_then(|written| {
        rename(store, &unfinished.name, &request.name, options)?;
        Ok(written)
    });
    match filled {
        Ok(written) => Ok(ImportReport { volume: info(store, &request.name)?, written }),
        Err(failure) => Err(undo(store, &unfinished.name, failure)),
    }
}

/// `unlike` keeps imports apart. Leaves room in [`NAME_BYTES_MAX`](crate::units::NAME_BYTES_MAX) whatever the name.
pub(super) fn unfinished_name(name: &VolumeName, unlike: VolumeId) -> VolumeName {
    const KEPT: usize = 64;
    let kept = &name.as_str()[..name.as_str().len().min(KEPT)];
    VolumeName::new(&format!("{IMPORTING}{kept}.{}", digits(unlike))).expect("legal characters, and fewer than fit")
}

/// Whether it is what an import of a raw image leaves when it is killed; nobody goes on with it. A stream's name has other digits.
pub(super) fn was_abandoned(header: &Header) -> bool {
    let importing = header.name.as_str().strip_prefix(IMPORTING);
    let ours = importing.is_some_and(|rest| rest.ends_with(&format!(".{}", digits(header.id))));
    // Between its steps it is closed, or was not opened yet, and its lock is free although its importer lives.
    // And one that was opened again, or that a snapshot was made of, is somebody's.
    let untouched = header.generation <= Generation(2) && header.shared_epoch == Epoch(0);
    ours && untouched && header.state == HeaderState::Live && header.receiving.is_none()
}

const IMPORTING: &str = "importing.";

fn digits(id: VolumeId) -> String {
    id.to_string()[..8].to_owned()
}

pub(super) fn undo(store: &Arc<dyn Store>, name: &VolumeName, failure: TransferError) -> TransferError {
    // A job of its own: the import's may be cancelled, and is undone for that very reason.
    match remove(store, name, &Job::default()) {
        Ok(Removal::Finished | Removal::SpaceLater | Removal::Interrupted) => failure,
        Err(source) => TransferError::LeftBehind { name: name.to_string(), failure: Box::new(failure), source },
    }
}

fn volume_size(wanted: Option<VolumeSize>, image: &Image) -> Result<VolumeSize, TransferError> {
    match (wanted, image.len) {
        (Some(size), Some(len)) if len > size.bytes() => Err(TransferError::ImageTooLarge(ByteSize(size.bytes()))),
        (Some(size), _) => Ok(size),
        (None, Some(0)) => Err(TransferError::ImageEmpty),
        (None, Some(len)) => VolumeSize::new(len.next_multiple_of(SECTOR_BYTES))
            .map_err(|error| TransferError::ReadImage(io::Error::new(io::ErrorKind::FileTooLarge, error))),
        (None, None) => Err(TransferError::SizeUnknown),
    }
}

fn fill(
    store: &Arc<dyn Store>,
    info: &VolumeInfo,
    options: &OpenOptions,
    image: Image,
    job: &Job,
) -> Result<u64, TransferError> {
    let volume = Volume::open(store, &info.name, options)?;
    job.set_total(image.len.unwrap_or(0));
    let pieces = Pieces { image, len: info.object_size.bytes(), limit: info.size.bytes(), next: Mutex::new(0) };
    let written = AtomicU64::new(0);
    let copied = in_parallel(THREADS, |stop| copy(&volume, &pieces, &written, job, stop));
    let flushed = copied.and_then(|()| flush(&volume));
    let closed = volume.close().map_err(TransferError::from);
    flushed.and(closed).map(|()| written.into_inner())
}

fn flush(volume: &Arc<Volume>) -> Result<(), TransferError> {
    let port = Port::open(volume)?;
    port.block_on(port.request(Request::Flush))?;
    Ok(())
}

/// A sector, as a length in memory.
const SECTOR: usize = 512;
const _: () = assert!(SECTOR as u64 == SECTOR_BYTES);

/// One thread's share: pieces, until there are none left.
fn copy(
    volume: &Arc<Volume>,
    pieces: &Pieces,
    written: &AtomicU64,
    job: &Job,
    stop: &AtomicBool,
) -> Result<(), TransferError> {
    let port = Port::open(volume)?;
    let mut bytes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if job.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        let Some(offset) = pieces.take(&mut bytes, job)? else { break };
        write_piece(&port, offset, &bytes, written)?;
        job.reached(offset + bytes.len() as u64);
    }
    Ok(())
}

fn write_piece(port: &Port, offset: u64, bytes: &[u8], written: &AtomicU64) -> Result<(), TransferError> {
    for run in nonzero_runs(bytes) {
        let range = ByteRange::new(offset + run.start as u64, run.len() as u64);
        let buffer = Buffer::copied_from(&bytes[run]);
        port.block_on(port.request(Request::Write { range, buffer, stability: Stability::Cached }))?;
        written.fetch_add(range.len, Ordering::Relaxed);
    }
    Ok(())
}

/// The image, and its length where it can be known.
struct Image {
    file: File,
    len: Option<u64>,
    /// What was read already of one that is read in order.
    first: Vec<u8>,
}

impl Image {
    fn new(mut file: File) -> Result<Self, TransferError> {
        let kind = file.metadata().map_err(TransferError::ReadImage)?.file_type();
        // A file that the caller has read from already is read on from there, like a pipe.
        let seekable = (kind.is_file() || kind.is_block_device()) && file.stream_position().is_ok_and(|at| at == 0);
        let len =
            if seekable { Some(file.seek(io::SeekFrom::End(0)).map_err(TransferError::ReadImage)?) } else { None };
        Ok(Self { file, len, first: Vec::new() })
    }

    /// Leaves a file at its beginning.
    fn begins_with(&mut self, magic: &[u8], job: &Job) -> Result<bool, TransferError> {
        if self.len.is_some() {
            self.file.rewind().map_err(TransferError::ReadImage)?;
            let mut first = vec![0; magic.len()];
            return match self.file.read_exact_at(&mut first, 0) {
                Ok(()) => Ok(first == magic),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                Err(error) => Err(TransferError::ReadImage(error)),
            };
        }
        stream::read(&self.file, magic.len(), &mut self.first, job)?;
        Ok(self.first == magic)
    }
}

/// Hands the image out piece by piece to several threads. Pieces that are holes are not handed out.
struct Pieces {
    image: Image,
    len: u64,
    limit: u64,
    next: Mutex<u64>,
}

impl Pieces {
    /// Fills `bytes` with the next piece, padded with zeros to whole sectors, and returns its offset.
    fn take(&self, bytes: &mut Vec<u8>, job: &Job) -> Result<Option<u64>, TransferError> {
        let offset = match self.image.len {
            Some(len) => self.take_at(len, bytes).map_err(TransferError::ReadImage)?,
            None => self.take_in_order(bytes, job)?,
        };
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        match offset {
            Some(offset) if !ByteRange::new(offset, bytes.len() as u64).fits(self.limit) => {
                Err(TransferError::ImageTooLarge(ByteSize(self.limit)))
            }
            offset => Ok(offset),
        }
    }

    fn take_at(&self, len: u64, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let offset = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let offset = self.next_data(*next)?.unwrap_or(len);
            let offset = offset - offset % self.len;
            let offset = offset.max(*next);
            *next = offset.saturating_add(self.len);
            offset
        };
        if offset >= len {
            bytes.clear();
            return Ok(None);
        }
        bytes.resize(usize::try_from(self.len.min(len - offset)).map_err(io::Error::other)?, 0);
        self.image.file.read_exact_at(bytes, offset)?;
        Ok(Some(offset))
    }

    /// Where data begins at or after `offset`; `None` when only a hole follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        use rustix::io::Errno;
        match rustix::fs::seek(&self.image.file, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            // Devices and old file systems know no holes: everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn take_in_order(&self, bytes: &mut Vec<u8>, job: &Job) -> Result<Option<u64>, TransferError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clear();
        let len = usize::try_from(self.len).expect("a piece is at most 16 MiB");
        if *next == 0 {
            bytes.extend_from_slice(&self.image.first);
        }
        stream::read(&self.image.file, len - bytes.len(), bytes, job)?;
        let offset = *next;
        *next += bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(file: File, limit: u64) -> Pieces {
        Pieces { image: Image::new(file).unwrap(), len: 64 << 10, limit, next: Mutex::new(0) }
    }

    #[test]
    fn holes_are_skipped_and_the_tail_is_padded_to_a_sector() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"end", 10 << 20).unwrap();
        let pieces = pieces(file, 20 << 20);
        let mut bytes = Vec::new();
        assert_eq!(pieces.take(&mut bytes, &Job::default()).unwrap(), Some(10 << 20));
        assert_eq!((bytes.len(), &bytes[..4]), (512, &b"end\0"[..]));
        assert_eq!(pieces.take(&mut bytes, &Job::default()).unwrap(), None);
    }

    #[test]
    fn a_pipe_that_brings_too_much_is_refused() {
        let (reader, mut writer) = io::pipe().unwrap();
        let sender = std::thread::spawn(move || io::Write::write_all(&mut writer, &[7; 1024]));
        let pieces = pieces(File::from(std::os::fd::OwnedFd::from(reader)), 512);
        assert!(matches!(pieces.take(&mut Vec::new(), &Job::default()), Err(TransferError::ImageTooLarge(_))));
        sender.join().unwrap().unwrap();
    }
}
