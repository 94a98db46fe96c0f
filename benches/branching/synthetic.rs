//! Huge volumes made in no time: pages and a header are written with the crate's own format code. Only a window at the volume's
//! start has objects; all other entries name objects that are not there, and nobody may read them.

use archvhost::map::Entry;
use archvhost::map::entry::{VolumeIds, VolumeIndex};
use archvhost::map::format::header::{Header, HeaderState};
use archvhost::map::format::page::{Children, INNER_SLOTS, LEAF_SLOTS, PageIndex, encode_inner, encode_leaf};
use archvhost::map::format::segment::SegmentBuilder;
use archvhost::map::tree::ROOT_LEVEL;
use archvhost::store::io::{Io, block_on};
use archvhost::store::{Buffer, ObjectName, PublishMode, StoreError, open};
use archvhost::units::{BlockIndex, Epoch, VolumeId, VolumeName};
use archvhost::volume::VolumeError;
use archvhost::volume::open::{find, read_header};
use std::collections::BTreeMap;
use std::io;

/// Which blocks of a volume have entries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mapped {
    /// All.
    Full,
    /// The window, and of the rest one in so many.
    OneIn(u64),
}

/// The epoch of all objects.
const EPOCH: Epoch = Epoch(1);
/// Behind the numbers that an opening gives its journals and segments.
const SEGMENT: u32 = 1000;

/// Gives the volume, new and never opened, a map, and objects to the first `window` blocks.
pub(crate) fn furnish(store_url: &str, volume: &str, mapped: Mapped, window: u64) -> io::Result<()> {
    let store = open::open(store_url, &open::StoreOptions::default()).map_err(io::Error::other)?;
    let name = VolumeName::new(volume).map_err(io::Error::other)?;
    block_on(&store, None, |io| async move { furnish_with(&io, &name, mapped, window).await }).map_err(io::Error::other)
}

async fn furnish_with(io: &Io, name: &VolumeName, mapped: Mapped, window: u64) -> Result<(), VolumeError> {
    let failed = |error: StoreError| VolumeError::from_store(error, "cannot make the synthetic volume");
    let id = find(io, name).await?;
    let (header, highest) = read_header(io, id, name).await?;
    let object_bytes = header.object_size.bytes();
    let content = vec![0x5A; usize::try_from(object_bytes).expect("an object fits into memory")];
    for block in (0..window).map(BlockIndex) {
        let object = ObjectName::Data { volume: id, epoch: EPOCH, block };
        io.create(object, 0, Buffer::copied_from(&content), object_bytes).await.map_err(failed)?;
    }
    let generation = highest.next();
    let blocks = header.object_size.blocks_in(header.size);
    let mut segment = SegmentBuilder::new(id, generation, SEGMENT);
    let root = push_tree(&mut segment, id, blocks, mapped, window);
    let header = Header {
        state: HeaderState::Closed,
        generation,
        epoch: Epoch(2),
        epoch_limit: Epoch(3),
        segment_bytes: segment.len() as u64,
        live_bytes: segment.len() as u64,
        root,
        ..header
    };
    let object = ObjectName::Segment { volume: id, generation, number: SEGMENT };
    io.publish(object, &segment.finish(), PublishMode::Exclusive).await.map_err(failed)?;
    let object = ObjectName::Header { volume: id, generation };
    io.publish(object, &header.encode(), PublishMode::Exclusive).await.map_err(failed)
}

/// All pages, leaves first; the root's address.
fn push_tree(
    segment: &mut SegmentBuilder,
    id: VolumeId,
    blocks: u64,
    mapped: Mapped,
    window: u64,
) -> Option<archvhost::map::format::page::PageAddress> {
    let mut ids = VolumeIds::default();
    let own = ids.intern(id).expect("a table of one id");
    assert_eq!(own, VolumeIndex::OWN);
    let mut level: BTreeMap<u64, _> = BTreeMap::new();
    for index in 0..blocks.div_ceil(LEAF_SLOTS as u64) {
        let first = index * LEAF_SLOTS as u64;
        let is_bare = matches!(mapped, Mapped::OneIn(n) if first.div_ceil(n) * n >= first + LEAF_SLOTS as u64);
        if is_bare && first >= window {
            continue;
        }
        let entries = (first..first + LEAF_SLOTS as u64).map(|block| {
            let has_entry = match mapped {
                Mapped::Full => true,
                Mapped::OneIn(n) => block < window || block.is_multiple_of(n),
            };
            if has_entry && block < blocks { Entry::Data { volume: own, epoch: EPOCH } } else { Entry::Zero }
        });
        if let Some(page) = encode_leaf(id, index, &ids, entries) {
            level.insert(index, segment.push(&page));
        }
    }
    for height in 1..=ROOT_LEVEL {
        let mut parents: BTreeMap<u64, Children> = BTreeMap::new();
        for (index, address) in level {
            let slot = u16::try_from(index % INNER_SLOTS as u64).expect("below 256");
            parents.entry(index / INNER_SLOTS as u64).or_default().insert(slot, address);
        }
        let page = |(index, children): (u64, Children)| {
            let page = encode_inner(id, PageIndex { level: height, index }, &children)?;
            Some((index, segment.push(&page)))
        };
        level = parents.into_iter().filter_map(page).collect();
    }
    level.into_values().next()
}
