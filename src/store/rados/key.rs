//! What objects and index entries are called in RADOS. Pure; docs/store-drivers.md ("rados: the layout") has the same as a
//! table.
//!
//! ```text
//!   archvhost-store                 what this is, and the layout's version          metadata pool
//!   archvhost-names                 omap: NAME → name record                        metadata pool
//!   archvhost-volumes.X             omap: ID.GENERATION of each header of the       metadata pool
//!                                   volumes whose id begins with the digit X
//!   ID.h.GENERATION                 header                                          metadata pool
//!   ID.j.GENERATION.NUMBER          journal                                         metadata pool
//!   ID.s.GENERATION.NUMBER          segment                                         metadata pool
//!   ID.m                            omap: j.… and s.… of the volume, d.SHARD        metadata pool
//!   archvhost-locks.X               omap: ID of each volume that has a lock object  metadata pool
//!                                   and whose id begins with the digit X
//!   ID.lock                         the volume's lock (lock.rs)                     metadata pool
//!   ID.i.SHARD                      omap: EPOCH.BLOCK, BLOCK >> 15 = SHARD          metadata pool
//!   ID.d.EPOCH.BLOCK                data object                                     data pool
//! ```
//! Numbers are 16 hexadecimal digits (an object's number within a generation: 8), so that texts sort as their numbers do.

use crate::store::ObjectName;
use crate::units::{BlockIndex, Epoch, Generation, VolumeId, VolumeName};
use smallvec::SmallVec;
use std::ffi::CStr;
use std::fmt;

/// Keys of this length need no allocation: those of data objects have 68 bytes and the zero.
const INLINE: usize = 72;

/// Blocks whose objects share an index object, as a power of two. At most 32,768 blocks: with six generations of each the index is
/// still below the 200,000 keys from which Ceph warns.
const SHARD_BITS: u32 = 15;

/// The store's own object.
pub(super) const STORE: &CStr = c"archvhost-store";

/// The object whose omap has all name records.
pub(super) const NAMES: &CStr = c"archvhost-names";

/// How many objects share the index of volumes: one for each first digit of an id.
pub(super) const VOLUME_SHARDS: u8 = 16;

/// Sorts before every entry.
pub(super) const FIRST: &CStr = c"";

/// A text that ends with a zero byte, as librados wants it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(SmallVec<[u8; INLINE]>);

/// A part of a volume's blocks, whose objects are listed in one index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shard(pub(super) u64);

impl Shard {
    pub(super) fn of(block: BlockIndex) -> Self {
        Self(block.0 >> SHARD_BITS)
    }
}

impl Key {
    fn build(write: impl FnOnce(&mut Text)) -> Self {
        let mut text = Text(SmallVec::new());
        write(&mut text);
        text.0.push(0);
        Self(text.0)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("keys are made of names and numbers, which hold no zero byte")
    }

    pub(super) fn as_text(&self) -> &str {
        std::str::from_utf8(&self.0[..self.0.len() - 1]).expect("keys are made of ASCII")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_text(), f)
    }
}

/// A key under construction. Written by hand, because the data path makes one for every request and `write!` takes 15 times as long.
struct Text(SmallVec<[u8; INLINE]>);

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Text {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn id(&mut self, id: VolumeId) -> &mut Self {
        for byte in id.0 {
            self.0.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.digits::<16>(number)
    }

    fn short(&mut self, number: u32) -> &mut Self {
        self.digits::<8>(u64::from(number))
    }

    fn digits<const COUNT: usize>(&mut self, mut number: u64) -> &mut Self {
        let mut digits = [0; COUNT];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[usize::from(number.to_le_bytes()[0] & 15)];
            number >>= 4;
        }
        self.0.extend_from_slice(&digits);
        self
    }
}

/// The object's own key. A name record has none: it is an entry of [`NAMES`].
///
/// # Panics
/// For a name record.
pub(super) fn object(name: &ObjectName) -> Key {
    Key::build(|key| {
        match name {
            ObjectName::Name(_) => unreachable!("a name record is no object of its own"),
            ObjectName::Header { volume, generation } => key.id(*volume).text(".h.").number(generation.0),
            ObjectName::Journal { volume, generation, number } => {
                key.id(*volume).text(".j.").number(generation.0).text(".").short(*number)
            }
            ObjectName::Segment { volume, generation, number } => {
                key.id(*volume).text(".s.").number(generation.0).text(".").short(*number)
            }
            ObjectName::Data { volume, epoch, block } => {
                key.id(*volume).text(".d.").number(epoch.0).text(".").number(block.0)
            }
        };
    })
}

/// The object whose omap lists `name`.
///
/// # Panics
/// For a name record, which is listed by being there.
pub(super) fn index(name: &ObjectName) -> Key {
    match name {
        ObjectName::Name(_) => unreachable!("name records need no index"),
        ObjectName::Header { volume, .. } => volumes(volume.0[0] >> 4),
        ObjectName::Journal { volume, .. } | ObjectName::Segment { volume, .. } => metadata_index(*volume),
        ObjectName::Data { volume, block, .. } => data_index(*volume, Shard::of(*block)),
    }
}

/// What `name` is called in the omap of its [`index`].
pub(super) fn entry(name: &ObjectName) -> Key {
    Key::build(|key| {
        match name {
            ObjectName::Name(name) => key.text(name.as_str()),
            ObjectName::Header { volume, generation } => key.id(*volume).text(".").number(generation.0),
            ObjectName::Journal { generation, number, .. } => {
                key.text("j.").number(generation.0).text(".").short(*number)
            }
            ObjectName::Segment { generation, number, .. } => {
                key.text("s.").number(generation.0).text(".").short(*number)
            }
            ObjectName::Data { epoch, block, .. } => key.number(epoch.0).text(".").number(block.0),
        };
    })
}

/// Whether a store has this object from its beginning and for ever.
pub(super) fn is_in_every_store(object: &CStr) -> bool {
    object == NAMES || (0..VOLUME_SHARDS).any(|digit| object == volumes(digit).as_c_str())
}

/// The object that lists the headers of volumes whose id begins with this digit.
pub(super) fn volumes(digit: u8) -> Key {
    Key::build(|key| {
        key.text("archvhost-volumes.");
        key.0.push(DIGITS[usize::from(digit & 15)]);
    })
}

/// The object that lists the lock objects of volumes whose id begins with this digit.
pub(super) fn locks(digit: u8) -> Key {
    Key::build(|key| {
        key.text("archvhost-locks.");
        key.0.push(DIGITS[usize::from(digit & 15)]);
    })
}

/// A volume's lock object.
pub(super) fn lock(volume: VolumeId) -> Key {
    Key::build(|key| {
        key.id(volume).text(".lock");
    })
}

/// What a lock object is called in [`locks`].
pub(super) fn lock_entry(volume: VolumeId) -> Key {
    Key::build(|key| {
        key.id(volume);
    })
}

pub(super) fn parse_lock(entry: &str) -> Option<VolumeId> {
    entry.parse::<VolumeId>().ok().filter(|id| id.to_string() == entry)
}

/// Sorts behind all entries of the volume in [`volumes`], and before those of the next volume.
pub(super) fn behind_headers(volume: VolumeId) -> Key {
    Key::build(|key| {
        key.id(volume).text(".g");
    })
}

/// Sorts before all entries of the volume in [`volumes`], and behind those of the volume before it.
pub(super) fn before_headers(volume: VolumeId) -> Key {
    Key::build(|key| {
        key.id(volume);
    })
}

/// The object that lists a volume's journals, segments and shards.
pub(super) fn metadata_index(volume: VolumeId) -> Key {
    Key::build(|key| {
        key.id(volume).text(".m");
    })
}

/// Sorts behind the shards in [`metadata_index`], and before its journals and segments.
pub(super) const BEHIND_SHARDS: &CStr = c"d~";

/// What a shard is called in the omap of [`metadata_index`].
pub(super) fn shard_entry(shard: Shard) -> Key {
    Key::build(|key| {
        key.text("d.").number(shard.0);
    })
}

/// The object that lists the data objects of one shard.
pub(super) fn data_index(volume: VolumeId, shard: Shard) -> Key {
    Key::build(|key| {
        key.id(volume).text(".i.").number(shard.0);
    })
}

/// An entry as it came out of a listing.
pub(super) fn listed(entry: &str) -> Key {
    Key::build(|key| {
        key.text(entry);
    })
}

pub(super) fn parse_name(entry: &str) -> Option<ObjectName> {
    VolumeName::new(entry).ok().map(ObjectName::Name)
}

pub(super) fn parse_header(entry: &str) -> Option<(VolumeId, Generation)> {
    let (volume, generation) = entry.split_once('.')?;
    let volume = volume.parse::<VolumeId>().ok().filter(|id| id.to_string() == volume)?;
    Some((volume, Generation(number(generation)?)))
}

pub(super) fn parse_metadata(volume: VolumeId, entry: &str) -> Option<ObjectName> {
    let mut parts = entry.split('.');
    let (kind, generation, count) = (parts.next()?, number(parts.next()?)?, short(parts.next()?)?);
    let generation = Generation(generation);
    match (kind, parts.next()) {
        ("j", None) => Some(ObjectName::Journal { volume, generation, number: count }),
        ("s", None) => Some(ObjectName::Segment { volume, generation, number: count }),
        _ => None,
    }
}

pub(super) fn parse_shard(entry: &str) -> Option<Shard> {
    entry.strip_prefix("d.").and_then(number).map(Shard)
}

pub(super) fn parse_data(entry: &str) -> Option<(Epoch, BlockIndex)> {
    let (epoch, block) = entry.split_once('.')?;
    Some((Epoch(number(epoch)?), BlockIndex(number(block)?)))
}

fn number(text: &str) -> Option<u64> {
    digits(text, 16)
}

fn short(text: &str) -> Option<u32> {
    digits(text, 8).and_then(|number| u32::try_from(number).ok())
}

/// Numbers are written in one way only, so that no two keys are the same object.
fn digits(text: &str, count: usize) -> Option<u64> {
    let canonical = text.len() == count && text.bytes().all(|byte| DIGITS.contains(&byte));
    u64::from_str_radix(text, 16).ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId([0xab; 16]);
    const GENERATION: Generation = Generation(10);

    fn data(epoch: u64, block: u64) -> ObjectName {
        ObjectName::Data { volume: VOLUME, epoch: Epoch(epoch), block: BlockIndex(block) }
    }

    fn journal(generation: u64, number: u32) -> ObjectName {
        ObjectName::Journal { volume: VOLUME, generation: Generation(generation), number }
    }

    #[test]
    fn keys_read_as_the_layout_says() {
        let id = "ab".repeat(16);
        let header = ObjectName::Header { volume: VOLUME, generation: GENERATION };
        assert_eq!(object(&header).as_text(), format!("{id}.h.000000000000000a"));
        assert_eq!(object(&journal(10, 7)).as_text(), format!("{id}.j.000000000000000a.00000007"));
        assert_eq!(object(&data(0x1f, 0x12345)).as_text(), format!("{id}.d.000000000000001f.0000000000012345"));
        assert_eq!(index(&header).as_text(), "archvhost-volumes.a");
        assert_eq!(index(&journal(1, 1)).as_text(), format!("{id}.m"));
        assert_eq!(index(&data(1, 0x8001)).as_text(), format!("{id}.i.0000000000000001"));
        assert_eq!(object(&data(u64::MAX, u64::MAX)).as_c_str().count_bytes() + 1, 69);
    }

    #[test]
    fn every_entry_survives_a_round_trip() {
        let segment = ObjectName::Segment { volume: VOLUME, generation: GENERATION, number: u32::MAX };
        for name in [journal(3, 0), segment] {
            assert_eq!(parse_metadata(VOLUME, entry(&name).as_text()), Some(name));
        }
        let header = ObjectName::Header { volume: VOLUME, generation: GENERATION };
        assert_eq!(parse_header(entry(&header).as_text()), Some((VOLUME, GENERATION)));
        assert_eq!(parse_data(entry(&data(1, u64::MAX)).as_text()), Some((Epoch(1), BlockIndex(u64::MAX))));
        assert_eq!(parse_shard(shard_entry(Shard(77)).as_text()), Some(Shard(77)));
        let name = ObjectName::Name(VolumeName::new("web1@monday").unwrap());
        assert_eq!(parse_name(entry(&name).as_text()), Some(name));
    }

    #[test]
    fn entries_sort_as_the_names_they_stand_for() {
        let data = [data(1, 0), data(1, 9), data(1, 10), data(1, 0x1_0000_0000), data(2, 0), data(16, 1), data(255, 1)];
        let segment = ObjectName::Segment { volume: VOLUME, generation: Generation(2), number: 1 };
        let metadata = [journal(1, 2), journal(1, 10), journal(9, 1), journal(10, 1), segment];
        for names in [&data[..], &metadata] {
            assert!(names.is_sorted());
            assert!(names.iter().map(|name| entry(name).as_text().to_owned()).is_sorted());
        }
    }

    #[test]
    fn borders_lie_between_what_they_divide() {
        let next = VolumeId([0xac; 16]);
        let of = |volume, generation| entry(&ObjectName::Header { volume, generation: Generation(generation) });
        let sorted = [
            before_headers(VOLUME),
            of(VOLUME, 0),
            of(VOLUME, u64::MAX),
            behind_headers(VOLUME),
            before_headers(next),
            of(next, 0),
        ];
        assert!(sorted.iter().map(Key::as_text).is_sorted());
        let behind = BEHIND_SHARDS.to_str().unwrap();
        assert!(shard_entry(Shard(u64::MAX)).as_text() < behind && behind < entry(&journal(0, 0)).as_text());
    }

    #[test]
    fn other_texts_are_no_entries() {
        for text in ["", "j.1.2", "j.000000000000000A.00000001", "x.0000000000000001.00000001", "d.0000000000000001"] {
            assert_eq!(parse_metadata(VOLUME, text), None, "{text}");
        }
        for text in ["1.2", "+000000000000001.0000000000000001", "0000000000000001", "0000000000000001."] {
            assert_eq!(parse_data(text), None, "{text}");
        }
        assert_eq!(parse_header(&format!("{}.1", "ab".repeat(16))), None);
        assert_eq!(parse_header(&format!("{}.0000000000000001", "AB".repeat(16))), None);
        assert_eq!(parse_name("-"), None);
    }
}
