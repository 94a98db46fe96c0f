//! Map pages: a leaf holds entries, an inner page holds the addresses of its children.
//!
//! A page never changes once written. Its checksum stands in its parent's item as well, so a page that is whole but is
//! another one (a misplaced write) is noticed too.

use super::bytes::{CHECKSUM_BYTES, Checksum, Reader, Writer, unseal};
use super::{FormatError, overlay};
use crate::map::entry::{Entry, VolumeIds, VolumeIndex, Word};
use crate::units::{Generation, VolumeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries of a leaf.
pub const LEAF_SLOTS: usize = 1024;
/// Children of an inner page.
pub const INNER_SLOTS: usize = 256;
/// Pages begin and end at multiples of this.
pub const PAGE_ALIGN: usize = 512;
/// Longest page: 1024 items of 16 bytes with as many overlays, each of 8 layers with an id of its own; far less in general.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

const STRUCTURE: &str = "a map page";
const MAGIC: &[u8; 4] = b"AVPG";
/// Version 1 has no overlays.
const VERSION_PLAIN: u16 = 1;
const VERSION: u16 = 2;

/// Where a page lies, and what its checksum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAddress {
    /// Whose segment it is in.
    pub volume: VolumeId,
    pub generation: Generation,
    pub number: u32,
    pub offset: u64,
    pub len: u32,
    pub checksum: Checksum,
}

impl PageAddress {
    /// 64 bytes; an absent address is all zero.
    pub fn encode(address: Option<&PageAddress>, writer: &mut Writer) {
        match address {
            None => writer.put(&[0; 64]),
            Some(a) => {
                writer.id(a.volume).u64(a.generation.0).u32(a.number).u32(a.len).u64(a.offset).put(&a.checksum).u64(0)
            }
        };
    }

    /// # Errors
    /// When it cannot be a page's address.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Option<PageAddress>, FormatError> {
        let volume = reader.id("page's volume")?;
        let generation = Generation(reader.u64("page's generation")?);
        let number = reader.u32("page's segment")?;
        let len = reader.u32("page's length")?;
        let offset = reader.u64("page's offset")?;
        let checksum = reader.checksum("page's checksum")?;
        reader.zeros(8, "the end of a page address")?;
        let address = PageAddress { volume, generation, number, offset, len, checksum };
        if len == 0 {
            return Ok(None);
        }
        address.check(reader).map(Some)
    }

    fn check(self, reader: &Reader<'_>) -> Result<PageAddress, FormatError> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let sound = len <= PAGE_BYTES_MAX && len % PAGE_ALIGN == 0 && self.offset.is_multiple_of(PAGE_ALIGN as u64);
        if sound { Ok(self) } else { Err(reader.error("a page address is not aligned, or too long")) }
    }
}

/// Which page of a map: its level (0 is the leaves') and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex {
    pub level: u8,
    pub index: u64,
}

/// An inner page's children by slot.
pub type Children = BTreeMap<u16, PageAddress>;

/// Entries by slot, none of them Zero, with the table that their indexes point into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafItems {
    pub ids: VolumeIds,
    pub items: Vec<(u16, Entry)>,
}

/// A leaf's page, or `None` when all its entries are zero. `entries` index into `ids`; the page gets a table of its own.
///
/// # Panics
/// When an entry's volume is not in `ids`, or `entries` is not a leaf long.
pub fn encode_leaf(
    owner: VolumeId,
    index: u64,
    ids: &VolumeIds,
    entries: impl IntoIterator<Item = Entry>,
) -> Option<Vec<u8>> {
    let mut page_ids = VolumeIds::default();
    let (mut items, mut overlays, mut slots) = (Vec::new(), Vec::new(), 0u16);
    for entry in entries {
        let slot = slots;
        slots += 1;
        if entry == Entry::Zero {
            continue;
        }
        let entry = ids.translate(&entry, &mut page_ids).expect("a leaf names at most 8192 volumes");
        items.push((slot, entry.word(u32::try_from(overlays.len()).expect("at most one a slot"))));
        if let Entry::Overlay(overlay) = entry {
            overlays.push(overlay);
        }
    }
    assert_eq!(usize::from(slots), LEAF_SLOTS, "a leaf has a fixed number of entries");
    if items.is_empty() {
        return None;
    }
    let counts = Counts { items: items.len(), overlays: overlays.len() };
    let mut writer = begin(owner, PageIndex { level: 0, index }, page_ids.as_slice(), counts);
    for (slot, word) in items {
        writer.u16(slot).put(&[0; 6]).u64(word.0);
    }
    overlays.iter().for_each(|overlay| overlay::encode(overlay, &mut writer));
    Some(finish(writer))
}

/// How many items a page has, and overlays behind them.
#[derive(Debug, Clone, Copy)]
struct Counts {
    items: usize,
    overlays: usize,
}

/// An inner page, or `None` when it has no children.
pub fn encode_inner(owner: VolumeId, page: PageIndex, children: &Children) -> Option<Vec<u8>> {
    if children.is_empty() {
        return None;
    }
    let mut ids = VolumeIds::default();
    let indexes: Vec<VolumeIndex> =
        children.values().map(|child| ids.intern(child.volume).expect("256 children name at most 256 ids")).collect();
    let mut writer = begin(owner, page, ids.as_slice(), Counts { items: children.len(), overlays: 0 });
    for ((slot, child), volume) in children.iter().zip(indexes) {
        let volume = u16::try_from(volume.0).expect("at most 256 ids");
        writer.u16(*slot).u16(volume).u32(child.number).u64(child.generation.0).u64(child.offset).u32(child.len);
        writer.u32(0).put(&child.checksum);
    }
    Some(finish(writer))
}

fn begin(owner: VolumeId, page: PageIndex, ids: &[VolumeId], counts: Counts) -> Writer {
    let count = |n: usize| u16::try_from(n).expect("a page has at most 8192 ids, and 1024 items and overlays");
    let version = if counts.overlays == 0 { VERSION_PLAIN } else { VERSION };
    let mut writer = Writer::with_capacity(4096);
    writer.put(MAGIC).u16(version).put(&[page.level, 0]).id(owner).u64(page.index);
    writer.u16(count(ids.len())).u16(count(counts.items)).u16(count(counts.overlays)).u16(0);
    ids.iter().for_each(|id| {
        writer.id(*id);
    });
    writer
}

fn finish(writer: Writer) -> Vec<u8> {
    let page = writer.sealed(PAGE_ALIGN);
    assert!(page.len() <= PAGE_BYTES_MAX, "items and ids of a page are bounded");
    page
}

/// The checksum that a page's parent keeps.
///
/// # Panics
/// When the page is shorter than its checksum.
pub fn page_checksum(page: &[u8]) -> Checksum {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&page[page.len() - CHECKSUM_BYTES..]);
    checksum
}

/// # Errors
/// When the bytes are not this leaf as it was written under `expected`.
pub fn decode_leaf(bytes: &[u8], index: u64, expected: Checksum) -> Result<LeafItems, FormatError> {
    let (mut reader, ids, counts) = open(bytes, PageIndex { level: 0, index }, expected)?;
    let ids = VolumeIds::from_vec(ids);
    let mut words: Vec<(u16, Word)> = Vec::with_capacity(counts.items);
    for _ in 0..counts.items {
        let slot = next_slot(&mut reader, words.last().map(|(slot, _)| *slot), LEAF_SLOTS)?;
        reader.zeros(6, "the padding of an item")?;
        words.push((slot, Word(reader.u64("an entry")?)));
    }
    let overlays = (0..counts.overlays).map(|_| overlay::decode(&mut reader, &ids).map(Arc::new));
    let overlays = overlays.collect::<Result<Vec<_>, _>>()?;
    let mut items = Vec::with_capacity(words.len());
    for (slot, word) in words {
        let overlay = |place| overlays.get(usize::try_from(place).ok()?).map(Arc::clone);
        match Entry::from_word(word, overlay)? {
            Entry::Zero => return Err(reader.error("an item says Zero")),
            Entry::Data { volume, .. } if ids.get(volume).is_none() => {
                return Err(reader.error("an entry's volume is not in the table of ids"));
            }
            entry => items.push((slot, entry)),
        }
    }
    Ok(LeafItems { ids, items })
}

/// # Errors
/// When the bytes are not this inner page as it was written under `expected`.
pub fn decode_inner(bytes: &[u8], page: PageIndex, expected: Checksum) -> Result<Children, FormatError> {
    let (mut reader, ids, counts) = open(bytes, page, expected)?;
    let mut children = Children::new();
    for _ in 0..counts.items {
        let slot = next_slot(&mut reader, children.last_key_value().map(|(slot, _)| *slot), INNER_SLOTS)?;
        let volume = usize::from(reader.u16("index of a volume")?);
        let volume = *ids.get(volume).ok_or_else(|| reader.error("a child's volume is not in the table of ids"))?;
        let number = reader.u32("segment number")?;
        let generation = Generation(reader.u64("generation")?);
        let offset = reader.u64("offset")?;
        let len = reader.u32("length")?;
        reader.zeros(4, "the padding of an item")?;
        let checksum = reader.checksum("checksum of a child")?;
        if len == 0 {
            return Err(reader.error("a child has no length"));
        }
        let child = PageAddress { volume, generation, number, offset, len, checksum }.check(&reader)?;
        children.insert(slot, child);
    }
    Ok(children)
}

fn open<'a>(
    bytes: &'a [u8],
    page: PageIndex,
    expected: Checksum,
) -> Result<(Reader<'a>, Vec<VolumeId>, Counts), FormatError> {
    let body = unseal(bytes, STRUCTURE)?;
    let mut reader = Reader::new(body, STRUCTURE);
    if page_checksum(bytes) != expected {
        return Err(reader.error("it is another page than its parent names"));
    }
    reader.magic(MAGIC)?;
    let version = reader.u16("version")?;
    reader.version(version.into(), VERSION.into())?;
    let level = reader.u8("level")?;
    reader.zeros(1, "padding")?;
    reader.id("owner")?;
    let index = reader.u64("index")?;
    if (PageIndex { level, index }) != page {
        return Err(reader.error(format!("it is page {level}/{index} and should be {}/{}", page.level, page.index)));
    }
    let (ids, items) = (reader.u16("number of ids")?, reader.u16("number of items")?);
    let overlays = reader.u16("number of overlays")?;
    reader.zeros(2, "padding")?;
    if overlays != 0 && (version == VERSION_PLAIN || level != 0) {
        return Err(reader.error("it has overlays where there are none"));
    }
    let ids = (0..ids).map(|_| reader.id("an id")).collect::<Result<Vec<_>, _>>()?;
    Ok((reader, ids, Counts { items: items.into(), overlays: overlays.into() }))
}

fn next_slot(reader: &mut Reader<'_>, last: Option<u16>, slots: usize) -> Result<u16, FormatError> {
    let slot = reader.u16("slot")?;
    let ascends = last.is_none_or(|last| last < slot);
    if ascends && usize::from(slot) < slots {
        Ok(slot)
    } else {
        Err(reader.error("its slots do not ascend within the page"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::overlay::{GranuleRange, Granules, Step};
    use crate::units::{Epoch, ObjectSize};

    const OWNER: VolumeId = VolumeId([1; 16]);

    fn leaf() -> Vec<u8> {
        let ids = VolumeIds::from_vec(vec![OWNER, VolumeId([2; 16])]);
        let mut entries = vec![Entry::Zero; LEAF_SLOTS];
        entries[3] = Entry::Data { volume: VolumeIndex(1), epoch: Epoch(5) };
        entries[4] = overlay(1, 2);
        entries[1023] = Entry::Data { volume: VolumeIndex(0), epoch: Epoch(6) };
        encode_leaf(OWNER, 42, &ids, entries).unwrap()
    }

    fn overlay(below: u32, layers: u64) -> Entry {
        let granules = Granules::new(ObjectSize::DEFAULT, 4096);
        let below = Entry::Data { volume: VolumeIndex(below), epoch: Epoch(1) };
        (2..=layers).fold(below, |entry, epoch| {
            let covered = entry.after(Step::Cover { epoch: Epoch(epoch), absorbed: None }, granules).unwrap();
            let scattered =
                (0..100).map(|n| Step::Fill(GranuleRange { first: n * 10 + u16::try_from(epoch).unwrap(), count: 1 }));
            scattered.fold(covered, |entry, fill| entry.after(fill, granules).unwrap())
        })
    }

    fn address(number: u32) -> PageAddress {
        PageAddress { volume: OWNER, generation: Generation(1), number, offset: 512, len: 1024, checksum: [9; 16] }
    }

    #[test]
    fn a_leaf_survives_its_bytes() {
        let page = leaf();
        let items = decode_leaf(&page, 42, page_checksum(&page)).unwrap();
        assert_eq!(items.items.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [3, 4, 1023]);
        let layers: Vec<_> = items.items[1].1.objects().collect();
        let expected = [(VolumeIndex(1), Epoch(2)), (VolumeIndex(0), Epoch(1))];
        assert_eq!(layers, expected, "the map's volume 1 is the page's first");
        assert_eq!(items.ids.as_slice(), [VolumeId([2; 16]), OWNER]);
    }

    #[test]
    fn a_leaf_of_zeros_is_absent() {
        assert_eq!(encode_leaf(OWNER, 0, &VolumeIds::new(OWNER), vec![Entry::Zero; LEAF_SLOTS]), None);
    }

    #[test]
    fn an_inner_page_survives_its_bytes() {
        let children = Children::from([(0, address(1)), (255, address(2))]);
        let index = PageIndex { level: 2, index: 3 };
        let page = encode_inner(OWNER, index, &children).unwrap();
        assert_eq!(decode_inner(&page, index, page_checksum(&page)), Ok(children));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page = leaf();
        for bit in 0..page.len() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_leaf(&damaged, 42, page_checksum(&page)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_page_in_its_place_is_noticed() {
        let page = leaf();
        assert!(decode_leaf(&page, 41, page_checksum(&page)).is_err());
        assert!(decode_leaf(&page, 42, [0; 16]).is_err());
    }

    #[test]
    fn the_fullest_pages_fit() {
        let ids = (0..=1024u128).map(|n| VolumeId(n.to_be_bytes())).collect();
        let entries = (1..=1024).map(|below| overlay(below, 8));
        let page = encode_leaf(OWNER, 0, &VolumeIds::from_vec(ids), entries).unwrap();
        assert!(decode_leaf(&page, 0, page_checksum(&page)).is_ok());
        let child = |slot: u16| PageAddress { volume: VolumeId([slot.to_le_bytes()[0]; 16]), ..address(slot.into()) };
        let children: Children = (0..256).map(|slot| (slot, child(slot))).collect();
        assert!(encode_inner(OWNER, PageIndex { level: 1, index: 0 }, &children).is_some());
    }
}
