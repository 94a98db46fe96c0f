//! What a snapshot may hold: for each sector, the versions that there were at *one* instant while it was being made, the same
//! for all sectors and for all volumes of a group (rule C8).
//!
//! At an instant *t* a sector may hold a version that was submitted by then and that no surely newer one, completed by then, had
//! replaced. So if a write is missing that completed before another was submitted, the other must be missing too: every *t* that
//! allows the other one forbids that the first is missing.

use super::history::{History, Tick};
use super::stamp::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A volume while it is captured: what its sectors held, and may have held.
#[derive(Debug, Clone)]
pub struct Cut {
    pub(super) began: Tick,
    pub(super) ended: Tick,
    pub(super) sectors: BTreeMap<u64, History>,
}

/// The cuts of volumes that were captured together, as far as their content is known.
#[derive(Debug, Clone)]
pub struct JointCut {
    /// Instants at which all that was found so far can have been there.
    instants: BTreeSet<Tick>,
}

impl JointCut {
    /// Every instant that makes a difference: the beginning, and each submission and completion until the end.
    pub fn new<'a>(cuts: impl IntoIterator<Item = &'a Cut>) -> Self {
        let mut instants = BTreeSet::new();
        for cut in cuts {
            instants.insert(cut.began);
            let events = cut.sectors.values().flat_map(History::versions).flat_map(|v| [v.submitted, v.completed]);
            instants.extend(events.filter(|tick| (cut.began..=cut.ended).contains(tick)));
        }
        Self { instants }
    }

    /// The captured volume has exactly this content.
    ///
    /// # Errors
    /// When there was no instant at which all members can have had what was found in them.
    pub fn found(&mut self, cut: &Cut, found: &BTreeMap<u64, Value>) -> Result<(), String> {
        let before = self.instants.clone();
        for (sector, history) in &cut.sectors {
            let value = found.get(sector).copied().unwrap_or(Value::Zero);
            self.instants.retain(|instant| history.may_hold(value, *instant));
            if self.instants.is_empty() {
                let versions = history.versions();
                return Err(format!(
                    "C8: sector {sector} has {value:?}, which does not go with the rest at any of the instants {before:?} \
                     (versions: {versions:?})"
                ));
            }
        }
        Ok(())
    }
}
