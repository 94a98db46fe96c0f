//! Copy-up: giving a block an object of this volume's own, in granules ([`crate::map::overlay`]).
//!
//! ```text
//!   block is        what is made                                        claimed
//!   Zero            an object with the data, which holds all of it      the block
//!   shared          an object with the granules touched: a new top      the block
//!   under own top   those granules in the top                           the granules
//! ```
//! A granule that is written in part is completed from where it was; one that is written whole is not read. Order (rule C9): data
//! in the object, marked dirty; then soft journal and entry; then the request may complete. Granules that an entry shows already
//! are touched only inside the gate.

use super::compose::Extent;
use super::read::part_of;
use super::write::Step;
use super::{Port, VolumeError};
use crate::map::Entry;
use crate::map::entry::VolumeIndex;
use crate::map::overlay::{GranuleRange, Granules, Mask, Overlay};
use crate::map::state::Installed;
use crate::store::{Buffer, ObjectName, Persistence, Space, StoreError, StoreErrorKind};
use crate::units::{BlockIndex, Epoch};

/// What is put into the granules.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// The extent's part of a request's buffer.
    Buffer(&'a Buffer),
    /// What is there already, in other objects.
    Same,
    /// Zeros; the extent covers its granules whole.
    Zeros(Space),
}

/// What to write at which offset of an object.
pub(super) struct Aligned {
    pub(super) offset: u64,
    pub(super) data: Buffer,
}

impl Port {
    /// Writes where the volume's own object does not hold all that is touched.
    pub(super) async fn write_up(&self, extent: Extent, buffer: &Buffer) -> Result<Step, VolumeError> {
        self.put(extent, Content::Buffer(buffer)).await
    }

    /// The granules that the extent covers from its beginning, or its part of the granule that it begins in.
    pub(super) fn first_part(&self, entry: &Entry, extent: Extent) -> Extent {
        let granules = self.granules_of(entry);
        let covered = granules.covered(extent.offset, extent.len);
        let from_start = extent.offset.is_multiple_of(granules.bytes()) && !covered.is_empty();
        let len = if from_start {
            u64::from(covered.count) * granules.bytes()
        } else {
            extent.len.min(granules.bytes() - extent.offset % granules.bytes())
        };
        Extent { len, ..extent }
    }

    /// Zeros a part as [`Port::first_part`] gives it, of which the volume's own object does not hold all.
    pub(super) async fn zero_up(&self, part: Extent, space: Space) -> Result<Step, VolumeError> {
        let entry = self.entry(part.block).await?;
        let granules = self.granules_of(&entry);
        let part = Extent { buffer_offset: 0, ..part };
        if granules.covered(part.offset, part.len) == granules.touched(part.offset, part.len) {
            return self.put(part, Content::Zeros(space)).await;
        }
        // A part of one granule, which is made whole: granules are small.
        let zeros = Buffer::zeroed(usize::try_from(part.len).expect("within a block"));
        self.put(part, Content::Buffer(&zeros)).await
    }

    /// Copies what `wanted` objects hold of the block into an object of this volume's own, so that its entry does not name them
    /// any more. Returns the bytes copied.
    ///
    /// # Errors
    /// As a read and a write of the block.
    pub async fn detach(
        &self,
        block: BlockIndex,
        wanted: impl Fn(VolumeIndex, Epoch) -> bool,
    ) -> Result<u64, VolumeError> {
        self.detach_part(block, Granules::all, wanted).await
    }

    /// As [`Port::detach`], of some granules of the block.
    pub(super) async fn detach_part(
        &self,
        block: BlockIndex,
        part: impl Fn(Granules) -> GranuleRange,
        wanted: impl Fn(VolumeIndex, Epoch) -> bool,
    ) -> Result<u64, VolumeError> {
        let mut copied = 0;
        loop {
            self.volume().check_writable()?;
            let entry = self.entry(block).await?;
            let granules = self.granules_of(&entry);
            let run = match &entry {
                Entry::Zero => None,
                Entry::Data { volume, epoch } => wanted(*volume, *epoch).then(|| part(granules)),
                Entry::Overlay(overlay) => {
                    let part = Mask::of(part(granules));
                    let layers = overlay.layers().iter().filter(|layer| wanted(layer.volume, layer.epoch));
                    let mut runs = layers.filter_map(|layer| layer.mask.intersection(&part).runs().next());
                    runs.next()
                }
            };
            let Some(run) = run else { return Ok(copied) };
            let extent = extent_of(block, granules, run);
            if self.put(extent, Content::Same).await? == Step::Done {
                copied += extent.len;
            }
        }
    }

    fn granules_of(&self, entry: &Entry) -> Granules {
        match entry {
            Entry::Overlay(overlay) => overlay.granules(),
            Entry::Zero | Entry::Data { .. } => self.volume().map.granules(),
        }
    }

    pub(super) async fn put(&self, extent: Extent, content: Content<'_>) -> Result<Step, VolumeError> {
        let map = &self.volume().map;
        let entry = self.entry(extent.block).await?;
        let granules = self.granules_of(&entry);
        let under_own_top = matches!(entry, Entry::Overlay(_)) && map.owns(&entry);
        let claimed = if under_own_top { granules.touched(extent.offset, extent.len) } else { GranuleRange::WHOLE };
        let _claim = self.volume().claims.claim(extent.block, claimed).await;
        let entry = self.entry(extent.block).await?;
        let now = self.granules_of(&entry);
        // Claims of granules count only where all cut the block in the same way.
        let cut_anew = now != granules
            || matches!(content, Content::Zeros(_))
                && now.covered(extent.offset, extent.len) != now.touched(extent.offset, extent.len);
        if cut_anew || self.owned_object(&entry, extent).is_some() {
            return Ok(Step::LookAgain);
        }
        match &entry {
            Entry::Overlay(overlay) if map.owns(&entry) => self.fill(extent, overlay, &entry, content).await,
            _ if claimed != GranuleRange::WHOLE => Ok(Step::LookAgain),
            Entry::Zero => self.create(extent, content).await,
            Entry::Data { .. } | Entry::Overlay(_) => self.cover(extent, &entry, content).await,
        }
    }

    /// First write to a block that holds nothing.
    async fn create(&self, extent: Extent, content: Content<'_>) -> Result<Step, VolumeError> {
        let Content::Buffer(buffer) = content else { return Ok(Step::Done) };
        let creation = self.begin_creation(extent.block).await?;
        self.create_object(&creation, extent.offset, part_of(buffer, extent)).await?;
        self.install(creation, Installed::Whole).await?;
        Ok(Step::Done)
    }

    /// First write to a block whose object, or topmost object, is shared.
    async fn cover(&self, extent: Extent, entry: &Entry, content: Content<'_>) -> Result<Step, VolumeError> {
        let granules = self.granules_of(entry);
        let touched = granules.touched(extent.offset, extent.len);
        let whole = self.is_whole(extent);
        let aligned = if whole {
            self.exact(extent, content).await?
        } else {
            self.aligned(extent, granules, &Mask::EMPTY, content).await?
        };
        let creation = self.begin_creation(extent.block).await?;
        self.create_object(&creation, aligned.offset, aligned.data).await?;
        let how = if whole {
            Installed::Whole
        } else {
            let absorbed = match entry {
                Entry::Overlay(overlay) => self.absorb(&creation, extent.block, overlay, touched).await?,
                Entry::Zero | Entry::Data { .. } => None,
            };
            Installed::Top { absorbed, filled: touched }
        };
        self.install(creation, how).await?;
        self.absorb_later(extent.block);
        Ok(Step::Done)
    }

    /// Into the block's own top, whose granules `overlay` does not have all there yet.
    async fn fill(
        &self,
        extent: Extent,
        overlay: &Overlay,
        entry: &Entry,
        content: Content<'_>,
    ) -> Result<Step, VolumeError> {
        let map = &self.volume().map;
        let top = *overlay.top();
        let touched = overlay.granules().touched(extent.offset, extent.len);
        if matches!(content, Content::Same) && !top.mask.intersection(&Mask::of(touched)).is_empty() {
            // Written since the caller looked, and may be written in place beside a copy that would put the old back.
            return Ok(Step::LookAgain);
        }
        let object = map.object(top.volume, top.epoch, extent.block);
        let aligned = match content {
            Content::Zeros(_) => None,
            _ => Some(self.aligned(extent, overlay.granules(), &top.mask, content).await?),
        };
        // What the top shows already may be in a snapshot from one moment to the next, so it is written inside the gate. The
        // rest needs no pass: until the entry says that the top holds it, nobody reads it there, in no snapshot either.
        let shown = !top.mask.intersection(&Mask::of(touched)).is_empty();
        let pass = if shown { Some(self.pass().await) } else { None };
        // The claim keeps the top; only a snapshot comes in between.
        if !map.owns(entry) {
            return Ok(Step::LookAgain);
        }
        let written = match (aligned, content) {
            (Some(Aligned { offset, data }), _) => self.write_object(&object, offset, data).await,
            (None, Content::Zeros(space)) => self.zero_object(&object, extent, space).await,
            (None, _) => unreachable!("all else was aligned"),
        };
        match written {
            Ok(()) => {}
            // In a snapshot since, and gone with it.
            Err(error) if error.kind() == StoreErrorKind::NotFound && !map.owns(entry) => return Ok(Step::LookAgain),
            Err(error) => return Err(self.store_error(error)),
        }
        drop(pass);
        self.change(extent.block, |map| map.fill(extent.block, top.epoch, touched)).await
    }

    /// The extent's content and nothing else.
    pub(super) async fn exact(&self, extent: Extent, content: Content<'_>) -> Result<Aligned, VolumeError> {
        let data = match content {
            Content::Buffer(buffer) => part_of(buffer, extent),
            // A new object's holes are zeros: a little of them makes it exist.
            Content::Zeros(_) => Buffer::zeroed(usize::try_from(extent.len.min(ZEROS_BYTES)).expect("a few KiB")),
            Content::Same => {
                let data = Buffer::zeroed(usize::try_from(extent.len).expect("within a block"));
                self.read_extent(Extent { buffer_offset: 0, ..extent }, &data).await?;
                data
            }
        };
        Ok(Aligned { offset: extent.offset, data })
    }

    /// The extent's content, made whole at its ends where those lie within granules that `held` does not have.
    async fn aligned(
        &self,
        extent: Extent,
        granules: Granules,
        held: &Mask,
        content: Content<'_>,
    ) -> Result<Aligned, VolumeError> {
        let touched = granules.touched(extent.offset, extent.len);
        let whole = extent_of(extent.block, granules, touched);
        let (start, end) = (extent.offset, extent.offset + extent.len);
        let first = if held.contains(touched.first) { start } else { whole.offset };
        let last = if held.contains(touched.end() - 1) { end } else { whole.offset + whole.len };
        if (first, last) == (start, end) {
            return self.exact(extent, content).await;
        }
        let data = Buffer::zeroed(usize::try_from(last - first).expect("within a block"));
        let edge = |from: u64, to: u64| Extent {
            block: extent.block,
            offset: from,
            len: to - from,
            buffer_offset: from - first,
        };
        for edge in [edge(first, start), edge(end, last)] {
            if edge.len != 0 {
                self.read_extent(edge, &data).await?;
            }
        }
        let inner = self.exact(extent, content).await?.data.to_vec();
        data.copy_in(usize::try_from(start - first).expect("within a granule"), &inner);
        Ok(Aligned { offset: first, data })
    }

    /// As [`Port::write_object`], for a hole.
    pub(super) async fn zero_object(
        &self,
        object: &ObjectName,
        extent: Extent,
        space: Space,
    ) -> Result<(), StoreError> {
        let dirty = &self.volume().dirty;
        match self.io().zero(object.clone(), extent.offset, extent.len, space).await {
            Ok(persistence) => {
                dirty.mark(persistence, object);
                Ok(())
            }
            Err(error) => {
                if error.kind() != StoreErrorKind::NotFound {
                    dirty.mark(Persistence::Object, object);
                }
                Err(error)
            }
        }
    }
}

/// Zeros that are written to make an object exist.
const ZEROS_BYTES: u64 = 4096;

pub(super) fn extent_of(block: BlockIndex, granules: Granules, range: GranuleRange) -> Extent {
    let bytes = |granule: u16| u64::from(granule) * granules.bytes();
    Extent { block, offset: bytes(range.first), len: bytes(range.count), buffer_offset: 0 }
}
