//! Listings, in name order whatever order the directories are in.
//!
//! Names, volumes and a volume's metadata are read and sorted as a whole for each page: they are few. A volume's data
//! objects may be many millions, and their order (by epoch, then block) is not that of their directories. One pass keeps
//! the lowest names behind the page's beginning, up to a bound, and serves the following pages from them: a listing need
//! not show what came or went since it began.

use super::home::Home;
use super::layout::{self, Directory};
use crate::store::{ListScope, ObjectName, StoreError};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

/// Names that one pass over a volume's data keeps: 16 bytes each.
const PASS_MAX: usize = 1 << 20;

/// What is left of the last pass over a volume's data.
#[derive(Default)]
pub(super) struct Pass(Mutex<Option<Remainder>>);

struct Remainder {
    volume: VolumeId,
    /// Where the next page begins.
    after: (Epoch, BlockIndex),
    /// The names behind that, in descending order.
    names: Vec<(Epoch, BlockIndex)>,
    /// Whether there may be more than these.
    cut: bool,
}

/// Runs [`Op::List`](crate::store::Op::List). Blocks.
pub(super) fn list(
    home: &Home,
    scope: ListScope,
    after: Option<ObjectName>,
    limit: usize,
) -> Result<Vec<ObjectName>, StoreError> {
    let listed = match scope {
        ListScope::Names => entries(home, Directory::Names, layout::parse_name).map(|names| page(names, after, limit)),
        ListScope::Metadata(volume) => {
            let parse = |entry: &str| layout::parse_metadata(volume, entry);
            entries(home, Directory::Volume(volume), parse).map(|names| page(names, after, limit))
        }
        ListScope::Volumes => volumes(home, after.as_ref(), limit),
        ListScope::Data(volume) => data(home, volume, after, limit),
    };
    listed.map_err(|error| StoreError::from_io(error.into(), "list", scope_text(scope)))
}

fn scope_text(scope: ListScope) -> String {
    match scope {
        ListScope::Names => "names".to_owned(),
        ListScope::Volumes => "volumes".to_owned(),
        ListScope::Metadata(volume) => format!("the metadata of volume {volume}"),
        ListScope::Data(volume) => format!("the objects of volume {volume}"),
    }
}

fn page(mut names: Vec<ObjectName>, after: Option<ObjectName>, limit: usize) -> Vec<ObjectName> {
    if let Some(after) = after {
        names.retain(|name| *name > after);
    }
    names.sort_unstable();
    names.truncate(limit);
    names
}

/// What a directory's entries parse to; nothing if it does not exist.
pub(super) fn entries<T>(
    home: &Home,
    directory: Directory,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Errno> {
    let mut found = Vec::new();
    visit(home, directory, |entry| found.extend(parse(entry)))?;
    Ok(found)
}

fn visit(home: &Home, directory: Directory, mut visit: impl FnMut(&str)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(&home.root, directory.path(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for entry in Dir::new(opened)? {
        // What is not text is no name of ours.
        entry?.file_name().to_str().into_iter().for_each(&mut visit);
    }
    Ok(())
}

/// The lowest header of each volume behind the volume of `after`.
fn volumes(home: &Home, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, Errno> {
    let after = after.and_then(ObjectName::volume);
    let mut volumes = entries(home, Directory::Volumes, layout::parse_volume)?;
    volumes.retain(|volume| after.is_none_or(|after| *volume > after));
    volumes.sort_unstable();
    let mut names = Vec::new();
    for volume in volumes {
        if names.len() == limit {
            break;
        }
        let generation = lowest_header(home, volume)?;
        names.extend(generation.map(|generation| ObjectName::Header { volume, generation }));
    }
    Ok(names)
}

/// Looks that must find no header before there is none: reading a directory while a holder makes header *g* + 1 and removes
/// header *g* may show neither.
const EMPTY_LOOKS: usize = 4;

/// The generation of a volume's lowest header.
pub(super) fn lowest_header(home: &Home, volume: VolumeId) -> Result<Option<Generation>, Errno> {
    let header = |entry: &str| match layout::parse_metadata(volume, entry) {
        Some(ObjectName::Header { generation, .. }) => Some(generation),
        _ => None,
    };
    for _ in 0..EMPTY_LOOKS {
        let lowest = entries(home, Directory::Volume(volume), header)?.into_iter().min();
        if lowest.is_some() {
            return Ok(lowest);
        }
    }
    Ok(None)
}

fn data(home: &Home, volume: VolumeId, after: Option<ObjectName>, limit: usize) -> Result<Vec<ObjectName>, Errno> {
    let after = match after {
        Some(ObjectName::Data { epoch, block, .. }) => Some((epoch, block)),
        // Every other kind of name comes before all data.
        Some(_) | None => None,
    };
    let mut remainder = match home.pass.take(volume, after) {
        Some(remainder) if !(remainder.cut && remainder.names.len() < limit) => remainder,
        _ => pass(home, volume, after)?,
    };
    let first = remainder.names.len() - limit.min(remainder.names.len());
    let page: Vec<_> = remainder.names.drain(first..).rev().collect();
    if let Some(last) = page.last() {
        home.pass.put(Remainder { after: *last, ..remainder });
    }
    Ok(page.into_iter().map(|(epoch, block)| ObjectName::Data { volume, epoch, block }).collect())
}

/// Looks at every object of the volume and keeps the lowest names behind `after`.
fn pass(home: &Home, volume: VolumeId, after: Option<(Epoch, BlockIndex)>) -> Result<Remainder, Errno> {
    let mut lowest = BinaryHeap::new();
    let mut cut = false;
    for shard in entries(home, Directory::VolumeData(volume), layout::parse_shard)? {
        visit(home, Directory::Shard(volume, shard), |entry| {
            let Some(name) = layout::parse_data(entry).filter(|name| after.is_none_or(|after| *name > after)) else {
                return;
            };
            lowest.push(name);
            if lowest.len() > PASS_MAX {
                lowest.pop();
                cut = true;
            }
        })?;
    }
    let mut names = lowest.into_sorted_vec();
    names.reverse();
    Ok(Remainder { volume, after: after.unwrap_or((Epoch(0), BlockIndex(0))), names, cut })
}

impl Pass {
    /// The remainder that begins exactly there. A listing that begins at the beginning always looks anew.
    fn take(&self, volume: VolumeId, after: Option<(Epoch, BlockIndex)>) -> Option<Remainder> {
        let mut remainder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remainder.take_if(|remainder| remainder.volume == volume && Some(remainder.after) == after)
    }

    fn put(&self, remainder: Remainder) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(remainder);
    }
}

/// Whether a directory has only such entries.
pub(super) fn holds_only(home: &Home, directory: Directory, such: impl Fn(&str) -> bool) -> Result<bool, Errno> {
    let mut others = false;
    visit(home, directory, |entry| others |= !matches!(entry, "." | "..") && !such(entry))?;
    Ok(!others)
}

/// All directories of the store that hold files, and those above them.
pub(super) fn directories(home: &Home) -> Result<Vec<Directory>, Errno> {
    let mut all = vec![Directory::Root, Directory::Names, Directory::Volumes, Directory::Data];
    all.extend(entries(home, Directory::Volumes, layout::parse_volume)?.into_iter().map(Directory::Volume));
    for volume in entries(home, Directory::Data, layout::parse_volume)? {
        all.push(Directory::VolumeData(volume));
        let shards = entries(home, Directory::VolumeData(volume), layout::parse_shard)?;
        all.extend(shards.into_iter().map(|shard| Directory::Shard(volume, shard)));
    }
    Ok(all)
}

/// The paths of all objects' files in a directory.
pub(super) fn files(home: &Home, directory: Directory) -> Result<Vec<CString>, Errno> {
    let is_object = |entry: &str| match directory {
        Directory::Names => layout::parse_name(entry).is_some(),
        Directory::Volume(volume) => layout::parse_metadata(volume, entry).is_some(),
        Directory::Shard(..) => layout::parse_data(entry).is_some(),
        Directory::Reserve | Directory::Root | Directory::Volumes | Directory::Data | Directory::VolumeData(_) => false,
    };
    entries(home, directory, |entry| is_object(entry).then(|| directory.entry(entry)))
}
