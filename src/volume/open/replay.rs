//! What the last holder completed after its last checkpoint: its two journals, then its soft journal.
//!
//! Every change has a number, and is applied once and in that order. A journal that the header names, and a soft journal of this boot, must
//! be there: without them writes that completed would be lost in silence.

use super::{Opening, damaged, tree_error};
use crate::map::Map;
use crate::map::format::header::{Header, HeaderState};
use crate::map::format::journal::{JournalId, Record};
use crate::map::journal::{self, ReplayError};
use crate::map::leaf::{Leaf, leaf_of};
use crate::map::soft_journal::{Change, Left, ReadError, SoftJournal};
use crate::store::StoreErrorKind;
use crate::units::{BlockIndex, Generation};
use crate::volume::lease::dirs_of;
use crate::volume::{VolumeError, VolumeErrorKind};
use std::sync::Arc;

impl Opening<'_> {
    /// Brings the map up to the last change that its last holder completed. Returns whether that holder had not closed.
    pub(super) async fn replay(&self, map: &Map, base: &Header) -> Result<bool, VolumeError> {
        if let HeaderState::Closed | HeaderState::Building = base.state {
            return Ok(false);
        }
        let mut through = base.change_through;
        for number in [base.current_journal, base.next_journal] {
            let id = JournalId { volume: self.id, generation: base.generation, number };
            let records = journal::read(self.io, id).await.map_err(|error| self.replay_error(error))?;
            for record in records.into_iter().filter(|record| record.through > base.change_through) {
                self.replay_record(map, &record).await?;
                through = through.max(record.through);
            }
        }
        let Left { granules, changes } = self.soft_changes(base.generation, through)?;
        let granules = granules.unwrap_or(map.granules());
        if !granules.make_up_as_much_as(map.granules()) {
            return Err(damaged(self.name, &"its soft journal is of another object size"));
        }
        for Change { number, block, step } in changes {
            let leaf = self.loaded(map, block).await?;
            let taken = map.replay_step(block, step, granules).expect("the leaf was just loaded, and is held");
            drop(leaf);
            if !taken {
                let text = format!("change {number} of its soft journal does not go with block {}", block.0);
                return Err(damaged(self.name, &text));
            }
            through = number;
        }
        map.replayed(through);
        Ok(true)
    }

    /// What the last holder's soft journal has behind the last record. It is where that holder said, if it was of this boot; and
    /// then it must be there: without it, writes that completed would be lost in silence.
    fn soft_changes(&self, generation: Generation, through: u64) -> Result<Left, VolumeError> {
        let expected = dirs_of(self.predecessor);
        for dir in [&self.options.soft_journal_dir].into_iter().chain(expected) {
            match SoftJournal::read(dir, self.id, generation, through) {
                Ok(left) => return Ok(left),
                Err(ReadError::Missing) => {}
                Err(ReadError::Io(error)) => return Err(self.soft_error(dir, &error)),
                Err(ReadError::Format(error)) => return Err(damaged(self.name, &error)),
            }
        }
        if expected.is_empty() {
            return Ok(Left::default());
        }
        let (name, dirs) = (self.name, expected);
        let text = format!(
            "volume {name} was not closed, and the soft journal that its last holder kept on this host, in one of {dirs:?}, is \
             missing: writes that completed without a flush may be lost (docs/operations.md says how to go on)"
        );
        Err(VolumeError::new(VolumeErrorKind::Damaged, text))
    }

    async fn replay_record(&self, map: &Map, record: &Record) -> Result<(), VolumeError> {
        for (block, entry) in &record.changes {
            if !map.cuts_right(entry) {
                let text = format!("a journal's entry of block {} is not cut as its objects are", block.0);
                return Err(damaged(self.name, &text));
            }
            let leaf = self.loaded(map, *block).await?;
            map.replay(*block, entry, &record.ids).expect("the leaf was just loaded, and is held");
            drop(leaf);
        }
        Ok(())
    }

    /// The block's leaf, in memory for as long as it is held.
    async fn loaded(&self, map: &Map, block: BlockIndex) -> Result<Arc<Leaf>, VolumeError> {
        map.load(self.io, leaf_of(block)).await.map_err(|error| tree_error(self.name, error))
    }

    fn replay_error(&self, error: ReplayError) -> VolumeError {
        match error {
            ReplayError::Store(error) if error.kind() == StoreErrorKind::NotFound => {
                damaged(self.name, &"a journal that its header names does not exist")
            }
            ReplayError::Store(error) => self.store_error(error, "reading the journal"),
            damage @ ReplayError::Damaged { .. } => damaged(self.name, &damage),
        }
    }
}
