//! `export`: a volume's content as a raw image.
//!
//! The image is of one moment: a snapshot's, or a disk's that is opened with its lease, so that nobody writes to it
//! meanwhile; a disk that somebody else has open is refused. And opening it so replays what a dead daemon had completed and not flushed. Zeros
//! become holes where the target can have them; then blocks that were never written are not even looked at, so that a
//! huge and nearly empty volume takes as long as its data.

use super::info::info;
use super::job::Job;
use super::stream;
use super::transfer::{THREADS, TransferError, in_parallel, nonzero_runs};
use crate::map::format::header::VolumeKind;
use crate::store::{Buffer, Store};
use crate::units::{ByteRange, ByteSize, VolumeName};
use crate::volume::{Access, OpenOptions, Port, Request, Volume};
use std::fs::File;
use std::io::{self, Seek};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone)]
pub struct ExportReport {
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes that were not zero.
    pub written: u64,
}

/// Blocks until the image is written and durable. `target` is a file (its old content goes), a block device or a pipe.
///
/// # Errors
/// When the volume is not there, held or damaged, or the target cannot take it.
pub fn export(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    options: &OpenOptions,
    target: File,
    job: &Job,
) -> Result<ExportReport, TransferError> {
    // A disk is opened for writing, so that nobody else writes; a snapshot is read by anybody at any time.
    let access = match info(store, name)?.kind {
        VolumeKind::Disk => Access::ReadWrite,
        VolumeKind::Snapshot => Access::ReadOnly,
    };
    let volume = Volume::open(store, name, &OpenOptions { access, ..options.clone() })?;
    let copied = copy_out(&volume, target, job);
    let closed = volume.close().map_err(TransferError::from);
    let report = copied?;
    closed.map(|()| report)
}

fn copy_out(volume: &Arc<Volume>, file: File, job: &Job) -> Result<ExportReport, TransferError> {
    let size = volume.size().bytes();
    let target = Target::prepare(file, size)?;
    job.set_total(size);
    let (next, written) = (Mutex::new(0), AtomicU64::new(0));
    in_parallel(target.threads(), |stop| {
        let port = Port::open(volume)?;
        while !stop.load(Ordering::Relaxed) {
            if job.is_cancelled() {
                return Err(TransferError::Cancelled);
            }
            let Some(range) = next_piece(&port, &target, &next)? else { break };
            let bytes = read(&port, range)?;
            written.fetch_add(target.write(range.offset, &bytes, job)?, Ordering::Relaxed);
            job.reached(range.offset + range.len);
        }
        Ok(())
    })?;
    job.reached(size);
    volume.confirm_reads()?;
    target.finish()?;
    Ok(ExportReport { size, written: written.into_inner() })
}

/// Takes the next piece, at most a block, from what is left after `next`; `None` at the end.
fn next_piece(port: &Port, target: &Target, next: &Mutex<u64>) -> Result<Option<ByteRange>, TransferError> {
    let (size, block_bytes) = (port.volume().size().bytes(), port.volume().object_size().bytes());
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = ByteRange::new(*next, size - *next);
    let piece = match target {
        Target::Sparse(_) => port.block_on(port.allocated(rest))?,
        Target::Device(_) | Target::Stream(_) => Some(ByteRange::new(rest.offset, block_bytes.min(rest.len))),
    };
    let piece = piece.filter(|piece| piece.len != 0);
    *next = piece.map_or(size, |piece| piece.offset + piece.len);
    Ok(piece)
}

fn read(port: &Port, range: ByteRange) -> Result<Vec<u8>, TransferError> {
    let len = usize::try_from(range.len).expect("a piece is at most 16 MiB");
    let request = Request::Read { range, buffer: Buffer::zeroed(len) };
    let buffer = port.block_on(port.request(request))?.expect("a read returns its buffer");
    Ok(buffer.to_vec())
}

/// What the image is written to.
enum Target {
    /// Empty and of the volume's size: zeros need not be written.
    Sparse(File),
    /// A device with old content: everything is written.
    Device(File),
    /// A pipe or terminal: everything, in order, by one thread.
    Stream(File),
}

impl Target {
    fn prepare(mut file: File, size: u64) -> Result<Self, TransferError> {
        let kind = file.metadata().map_err(TransferError::WriteImage)?.file_type();
        if kind.is_file() {
            file.set_len(0).map_err(TransferError::WriteImage)?;
            file.set_len(size).map_err(|error| match error.kind() {
                io::ErrorKind::FileTooLarge => TransferError::NoFileSoLarge(ByteSize(size)),
                _ => TransferError::WriteImage(error),
            })?;
            Ok(Self::Sparse(file))
        } else if kind.is_block_device() {
            let has = file.seek(io::SeekFrom::End(0)).map_err(TransferError::WriteImage)?;
            let too_small = TransferError::TargetTooSmall { has: ByteSize(has), needs: ByteSize(size) };
            if has < size { Err(too_small) } else { Ok(Self::Device(file)) }
        } else {
            Ok(Self::Stream(file))
        }
    }

    fn threads(&self) -> usize {
        match self {
            Self::Sparse(_) | Self::Device(_) => THREADS,
            Self::Stream(_) => 1,
        }
    }

    /// Returns how many bytes were not zero.
    fn write(&self, offset: u64, bytes: &[u8], job: &Job) -> Result<u64, TransferError> {
        let runs = nonzero_runs(bytes);
        match self {
            Self::Sparse(file) => {
                runs.iter().try_for_each(|run| file.write_all_at(&bytes[run.clone()], offset + run.start as u64))
            }
            Self::Device(file) => file.write_all_at(bytes, offset),
            Self::Stream(file) => return stream::write(file, bytes, job).map(|()| len_of(&runs)),
        }
        .map_err(TransferError::WriteImage)?;
        Ok(len_of(&runs))
    }

    fn finish(self) -> Result<(), TransferError> {
        match self {
            Self::Sparse(file) | Self::Device(file) => file.sync_all().map_err(TransferError::WriteImage),
            Self::Stream(_) => Ok(()),
        }
    }
}

fn len_of(runs: &[Range<usize>]) -> u64 {
    runs.iter().map(|run| run.len() as u64).sum()
}
