//! Listings, in name order, out of the index objects' omaps, whose entries are sorted. Runs on helper threads, which it
//! blocks. Memory is bounded by a page of each shard, whatever the number of objects.
//!
//! An entry is there before its object and until after it. So a listing never misses an object; an entry without one is
//! left by a process that died between the two. Of headers it matters (the highest one *is* the volume), so each header
//! is looked at before it is listed. Of all others the name of what does not exist does no harm: whoever removes it takes
//! the entry away.

use super::error::Failure;
use super::home::Home;
use super::key::{self, FIRST, Key, NAMES, Shard};
use crate::store::{ListScope, ObjectName, StoreError};
use crate::units::{BlockIndex, Epoch, Generation, VolumeId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ffi::CStr;

/// Entries asked for at a time. Servers give at most this many (`osd_max_omap_entries_per_request`).
const PAGE_MAX: usize = 1024;

/// Entries of one shard asked for at a time when many shards are merged.
const SHARD_PAGE_MIN: usize = 64;

/// How often a volume's headers are looked for anew because all that were listed have gone meanwhile.
const LOOKS_MAX: usize = 100;

/// Runs [`Op::List`](crate::store::Op::List).
pub(super) fn list(
    home: &Home,
    scope: ListScope,
    after: Option<ObjectName>,
    limit: usize,
) -> Result<Vec<ObjectName>, StoreError> {
    let listed = match scope {
        _ if limit == 0 => Ok(Vec::new()),
        ListScope::Names => names(home, after, limit),
        ListScope::Volumes => volumes(home, after.as_ref(), limit),
        ListScope::Metadata(volume) => metadata(home, volume, after, limit),
        ListScope::Data(volume) => data(home, volume, after, limit),
    };
    listed.map_err(|failure| failure.at("list", scope_text(scope)))
}

fn scope_text(scope: ListScope) -> String {
    match scope {
        ListScope::Names => "names".to_owned(),
        ListScope::Volumes => "volumes".to_owned(),
        ListScope::Metadata(volume) => format!("the metadata of volume {volume}"),
        ListScope::Data(volume) => format!("the objects of volume {volume}"),
    }
}

/// The entries of one index object behind a place, as many as one wants, page by page.
struct Entries<'a> {
    home: &'a Home,
    object: &'a CStr,
    page: VecDeque<String>,
    page_max: usize,
    last: Key,
    more: bool,
}

impl<'a> Entries<'a> {
    fn behind(home: &'a Home, object: &'a CStr, after: &CStr, page_max: usize) -> Self {
        let last = key::listed(after.to_str().unwrap_or(""));
        Self { home, object, page: VecDeque::new(), page_max: page_max.min(PAGE_MAX), last, more: true }
    }

    fn next(&mut self) -> Result<Option<String>, Failure> {
        while self.page.is_empty() && self.more {
            let page = self.home.metadata.keys(self.object, self.last.as_c_str(), self.page_max)?;
            self.more = page.more;
            if let Some((last, _)) = page.entries.last() {
                self.last = key::listed(last);
            }
            self.page.extend(page.entries.into_iter().map(|(entry, _)| entry));
        }
        Ok(self.page.pop_front())
    }
}

fn names(home: &Home, after: Option<ObjectName>, limit: usize) -> Result<Vec<ObjectName>, Failure> {
    let after = after.as_ref().map(key::entry);
    let mut entries = Entries::behind(home, NAMES, after.as_ref().map_or(FIRST, Key::as_c_str), limit);
    let mut names = Vec::new();
    while names.len() < limit
        && let Some(entry) = entries.next()?
    {
        names.extend(key::parse_name(&entry));
    }
    Ok(names)
}

/// The lowest header of each volume behind the volume of `after`.
fn volumes(home: &Home, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, Failure> {
    let after = after.and_then(ObjectName::volume);
    let first = after.map_or(0, |volume| volume.0[0] >> 4);
    let after = after.map(key::behind_headers);
    let mut names = Vec::new();
    for digit in first..key::VOLUME_SHARDS {
        let index = key::volumes(digit);
        let after = after.as_ref().filter(|_| digit == first).map_or(FIRST, Key::as_c_str);
        let mut entries = Entries::behind(home, index.as_c_str(), after, PAGE_MAX);
        let mut looked_at = None;
        while let Some(entry) = entries.next()? {
            let Some((volume, _)) = key::parse_header(&entry).filter(|(volume, _)| looked_at != Some(*volume)) else {
                continue;
            };
            looked_at = Some(volume);
            let generation = headers(home, volume)?.into_iter().next();
            names.extend(generation.map(|generation| ObjectName::Header { volume, generation }));
            if names.len() == limit {
                return Ok(names);
            }
        }
    }
    Ok(names)
}

/// The generations of which the volume has a header, ascending. Empty only if there was a moment without any.
fn headers(home: &Home, volume: VolumeId) -> Result<Vec<Generation>, Failure> {
    let mut entries = header_entries(home, volume)?;
    for _ in 0..LOOKS_MAX {
        let mut there = Vec::new();
        for generation in &entries {
            let header = key::object(&ObjectName::Header { volume, generation: *generation });
            match home.metadata.size(header.as_c_str()) {
                Ok(_) => there.push(*generation),
                Err(Failure(libc::ENOENT)) => {}
                Err(failure) => return Err(failure),
            }
        }
        if !there.is_empty() || entries.is_empty() {
            return Ok(there);
        }
        // A header that takes another's place is in the index before the other goes: if there is one, it is there now.
        let now = header_entries(home, volume)?;
        if now == entries {
            return Ok(Vec::new());
        }
        entries = now;
    }
    Err(Failure(libc::EAGAIN))
}

/// The volumes that have a lock object and whose id begins with this digit.
pub(super) fn locks(home: &Home, digit: u8) -> Result<Vec<VolumeId>, Failure> {
    let index = key::locks(digit);
    let mut entries = Entries::behind(home, index.as_c_str(), FIRST, PAGE_MAX);
    let mut volumes = Vec::new();
    while let Some(entry) = entries.next()? {
        volumes.extend(key::parse_lock(&entry));
    }
    Ok(volumes)
}

/// The generations of which the index lists a header, ascending.
pub(super) fn header_entries(home: &Home, volume: VolumeId) -> Result<Vec<Generation>, Failure> {
    let (index, before) = (key::volumes(volume.0[0] >> 4), key::before_headers(volume));
    let mut entries = Entries::behind(home, index.as_c_str(), before.as_c_str(), SHARD_PAGE_MIN);
    let mut generations = Vec::new();
    while let Some(entry) = entries.next()? {
        match key::parse_header(&entry) {
            Some((of, generation)) if of == volume => generations.push(generation),
            Some(_) => break,
            None => {}
        }
    }
    Ok(generations)
}

pub(super) fn metadata(
    home: &Home,
    volume: VolumeId,
    after: Option<ObjectName>,
    limit: usize,
) -> Result<Vec<ObjectName>, Failure> {
    let mut names: Vec<_> = match &after {
        Some(ObjectName::Journal { .. } | ObjectName::Segment { .. }) => Vec::new(),
        _ => headers(home, volume)?.into_iter().map(|generation| ObjectName::Header { volume, generation }).collect(),
    };
    names.retain(|name| after.as_ref().is_none_or(|after| name > after));
    names.truncate(limit);
    let after = match after {
        Some(after @ (ObjectName::Journal { .. } | ObjectName::Segment { .. })) => key::entry(&after),
        _ => key::listed(key::BEHIND_SHARDS.to_str().unwrap_or("")),
    };
    let index = key::metadata_index(volume);
    let mut entries = Entries::behind(home, index.as_c_str(), after.as_c_str(), limit);
    while names.len() < limit
        && let Some(entry) = entries.next()?
    {
        names.extend(key::parse_metadata(volume, &entry));
    }
    Ok(names)
}

/// All shards that were ever announced for the volume.
pub(super) fn shards(home: &Home, volume: VolumeId) -> Result<Vec<Shard>, Failure> {
    let index = key::metadata_index(volume);
    let mut entries = Entries::behind(home, index.as_c_str(), FIRST, PAGE_MAX);
    let mut shards = Vec::new();
    while let Some(shard) = entries.next()?.and_then(|entry| key::parse_shard(&entry)) {
        shards.push(shard);
    }
    Ok(shards)
}

/// Merges the shards: each is sorted.
fn data(home: &Home, volume: VolumeId, after: Option<ObjectName>, limit: usize) -> Result<Vec<ObjectName>, Failure> {
    let after = match after {
        Some(after @ ObjectName::Data { .. }) => key::entry(&after),
        // Every other kind of name comes before all data.
        Some(_) | None => key::listed(""),
    };
    let indexes: Vec<Key> = shards(home, volume)?.into_iter().map(|shard| key::data_index(volume, shard)).collect();
    let share = limit.checked_div(indexes.len()).unwrap_or(0) + SHARD_PAGE_MIN;
    let mut sources: Vec<Entries<'_>> = indexes
        .iter()
        .map(|index| Entries::behind(home, index.as_c_str(), after.as_c_str(), share.min(limit)))
        .collect();
    let mut heap = BinaryHeap::new();
    for (number, source) in sources.iter_mut().enumerate() {
        heap.extend(next_data(source)?.map(|name| Reverse((name, number))));
    }
    let mut names = Vec::new();
    while names.len() < limit
        && let Some(Reverse(((epoch, block), number))) = heap.pop()
    {
        names.push(ObjectName::Data { volume, epoch, block });
        heap.extend(next_data(&mut sources[number])?.map(|name| Reverse((name, number))));
    }
    Ok(names)
}

fn next_data(source: &mut Entries<'_>) -> Result<Option<(Epoch, BlockIndex)>, Failure> {
    while let Some(entry) = source.next()? {
        if let Some(name) = key::parse_data(&entry) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
