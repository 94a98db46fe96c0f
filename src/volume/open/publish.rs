//! The last steps of an opening for writing: what was replayed becomes durable, this generation the truth, and what lower ones
//! left goes.
//!
//! Nothing of a lower generation is removed before the header that takes its place is durable, and is seen to be the highest.

use super::{EPOCHS_RESERVED, Opening, list_all, tree_error};
use crate::map::Map;
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::JournalId;
use crate::map::journal::{JournalSize, JournalWriter};
use crate::map::soft_journal::SoftJournal;
use crate::map::state::Checkpointed;
use crate::map::tree::{self, Extent, Segments};
use crate::store::{ListScope, ObjectName, PublishMode, StoreErrorKind};
use crate::units::{Epoch, Generation};
use crate::volume::keeper::KeeperSeed;
use crate::volume::lease::dirs_of;
use crate::volume::{VolumeError, VolumeErrorKind};

/// An opening numbers its journals 1 and 2, its segments from here, and the keeper goes on behind those.
const FIRST_SEGMENT: u32 = 3;

impl Opening<'_> {
    /// Makes durable what was replayed, and this generation the truth.
    pub(super) async fn publish(
        &self,
        map: &Map,
        base: &Header,
        mine: Generation,
        unclean: bool,
    ) -> Result<KeeperSeed, VolumeError> {
        if unclean {
            // What the dead holder completed and had not synced is ours to make durable, its overwrites included.
            self.io.sync_all().await.map_err(|error| self.store_error(error, "making its last writes durable"))?;
        }
        match self.publish_parts(map, base, mine).await {
            Ok(seed) => {
                self.check_not_superseded(mine).await?;
                self.remove_older(mine).await;
                Ok(seed)
            }
            Err(error) => {
                // No header names them, unless the last step failed in doubt.
                if error.kind() == VolumeErrorKind::NoSpace {
                    self.remove_parts(mine).await;
                }
                Err(error)
            }
        }
    }

    async fn publish_parts(&self, map: &Map, base: &Header, mine: Generation) -> Result<KeeperSeed, VolumeError> {
        let journal = |number| JournalId { volume: self.id, generation: mine, number };
        let create = |number| JournalWriter::create(self.io, journal(number), JournalSize::Small);
        let current = create(1).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let next = create(2).await.map_err(|error| self.store_error(error, "making a journal"))?;
        let (header, number) = self.checkpoint(map, base, mine).await?;
        let object = ObjectName::Header { volume: self.id, generation: mine };
        let published = self.io.publish(object, &header.encode(), PublishMode::Replace).await;
        published.map_err(|error| self.store_error(error, "writing the new header"))?;
        let soft_journal_dir = self.options.soft_journal_dir.clone();
        Ok(KeeperSeed { header, current, next, number, soft_journal_dir })
    }

    /// Removes the journals and segments of an opening that found no space for all of them.
    async fn remove_parts(&self, mine: Generation) {
        let names = list_all(self.io, ListScope::Metadata(self.id)).await.unwrap_or_default();
        let parts = names.into_iter().filter(|name| match name {
            ObjectName::Journal { generation, .. } | ObjectName::Segment { generation, .. } => *generation == mine,
            ObjectName::Header { .. } | ObjectName::Data { .. } | ObjectName::Name(_) => false,
        });
        for part in parts {
            let _left_for_collection = self.io.remove(part).await;
        }
    }

    /// Whoever took over meanwhile may have read the header that ours points to, and needs what it names.
    async fn check_not_superseded(&self, mine: Generation) -> Result<(), VolumeError> {
        let successor = ObjectName::Header { volume: self.id, generation: mine.next() };
        match self.io.stat(successor).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.store_error(error, "seeing whether it was taken over")),
            Ok(_) => {
                let text = format!("volume {} was taken over by another holder while it was being opened", self.name);
                Err(VolumeError::new(VolumeErrorKind::Superseded, text))
            }
        }
    }

    /// Pages for what was replayed, the header that names them, not yet published, and the highest number used.
    async fn checkpoint(&self, map: &Map, base: &Header, mine: Generation) -> Result<(Header, u32), VolumeError> {
        let frozen = map.freeze();
        let mut numbers = FIRST_SEGMENT..;
        let mut number = || numbers.next().expect("an opening writes few segments");
        let segments = Segments::new(self.io, self.id, mine, &mut number);
        let written = tree::write(map, &frozen, Extent::Changed, segments).await;
        let written = written.map_err(|error| tree_error(self.name, error))?;
        let header = Header {
            state: HeaderState::Live,
            generation: mine,
            epoch: frozen.epoch,
            epoch_limit: Epoch(frozen.epoch_next.0 + EPOCHS_RESERVED),
            change_through: frozen.through,
            segment_bytes: base.segment_bytes + written.segment_bytes,
            live_bytes: (base.live_bytes + written.bytes_added).saturating_sub(written.bytes_replaced),
            current_journal: 1,
            next_journal: 2,
            root: written.root,
            ..base.clone()
        };
        let (through, epoch_limit) = (frozen.through, header.epoch_limit);
        map.checkpointed(Checkpointed { root: written.root, inner: written.inner, through, epoch_limit });
        Ok((header, numbers.next().expect("an opening writes few segments")))
    }

    /// What lower generations left, segments apart: the map may name those. Failing is no harm; the next opening tries again.
    async fn remove_older(&self, mine: Generation) {
        let names = match list_all(self.io, ListScope::Metadata(self.id)).await {
            Ok(names) => names,
            Err(error) => return tracing::warn!(volume = %self.name, %error, "cannot look for leftovers"),
        };
        let outdated = names.into_iter().filter(|name| match name {
            ObjectName::Header { generation, .. } | ObjectName::Journal { generation, .. } => *generation < mine,
            ObjectName::Segment { .. } | ObjectName::Data { .. } | ObjectName::Name(_) => false,
        });
        for name in outdated {
            if let Err(error) = self.io.remove(name).await {
                tracing::warn!(volume = %self.name, %error, "a leftover stays until the next opening");
            }
        }
        let previous = Generation(mine.0 - 1);
        for dir in [&self.options.soft_journal_dir].into_iter().chain(dirs_of(self.predecessor)) {
            if let Err(error) = SoftJournal::remove_through(dir, self.id, previous)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(volume = %self.name, %error, "an old soft journal stays until the next opening");
            }
        }
    }
}
