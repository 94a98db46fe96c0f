//! Settling: what a process began and died over is ended, so that the marking finds volumes that are there or removed.
//!
//! Whoever makes a volume holds its lock meanwhile, so a lock that can be had, and whose last holder is gone for sure
//! ([`lease`](crate::volume::lease)), means that its maker is gone. A volume in the
//! making belongs to a group, of which one leads ([`Unfinished`](crate::map::format::header::Unfinished)):
//! ```text
//!   leader finished ──────────────────────► it exists: its header is made plain
//!   leader unfinished, its maker gone ────► leader removed, keeping the mark that it was not finished ─► its followers removed
//!   leader gone, the volume's maker gone ─► removed
//! ```
//! The leader is locked and marked before its followers, so whoever reads them meanwhile comes to the same conclusion. A leader's
//! headers are kept for as long as a volume depends on what they say.
//!
//! A volume without a name that was never opened is what `create` leaves when it dies; it has nothing in it, and is removed.
//! So is what an import leaves when it is killed, under the name that says so. Any other volume without a name may be somebody's data, and is left to [`check`](crate::admin::check).

use super::{Collection, Stop};
use crate::admin::import::was_abandoned;
use crate::admin::remove::{drop_name, mark_removed};
use crate::admin::survey::{Names, Seen, ids, look, names};
use crate::map::format::header::{Header, HeaderState};
use crate::store::{FreeLock, Lease, ObjectName, PublishMode, Room};
use crate::units::{VolumeId, VolumeName};
use crate::volume::lease::{Holder, holder, try_lock_to_free};
use crate::volume::open::header_generations;
use crate::volume::{VolumeError, VolumeErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// What the marking must know.
pub(super) struct Settled {
    /// Volumes that do not mark.
    pub(super) removed: BTreeSet<VolumeId>,
    /// Of these the headers stay: a name leads to them, or the fate of another volume hangs on them.
    pub(super) keep_headers: BTreeSet<VolumeId>,
}

impl Collection<'_> {
    pub(super) async fn settle(&self, names: &Names) -> Result<Settled, Stop> {
        let mut seen = BTreeMap::new();
        for id in ids(self.io).await? {
            if let Some(found) = look(self.io, id).await? {
                seen.insert(id, found);
            }
            self.stop_if_cancelled(Default::default())?;
        }
        if !self.options.dry_run {
            self.settle_unfinished(&mut seen).await?;
            self.remove_never_opened(names, &mut seen).await?;
            self.remove_half_imported(&mut seen).await?;
        }
        let removed: BTreeSet<VolumeId> =
            seen.iter().filter(|(_, seen)| seen.is_removed()).map(|(id, _)| *id).collect();
        let mut keep_headers: BTreeSet<VolumeId> = seen
            .values()
            .filter(|seen| !seen.is_removed())
            .filter_map(|seen| seen.header.unfinished.map(|unfinished| unfinished.with))
            .collect();
        for id in &removed {
            if !self.drop_names(*id, names.of.get(id)).await? {
                keep_headers.insert(*id);
            }
        }
        Ok(Settled { removed, keep_headers })
    }

    async fn settle_unfinished(&self, seen: &mut BTreeMap<VolumeId, Seen>) -> Result<(), Stop> {
        let mut groups: BTreeMap<VolumeId, Vec<VolumeId>> = BTreeMap::new();
        for (id, found) in seen.iter().filter(|(_, found)| !found.is_removed()) {
            if let Some(unfinished) = found.header.unfinished {
                groups.entry(unfinished.with).or_default().push(*id);
            }
        }
        for (leader, members) in groups {
            for id in self.settle_group(leader, members).await? {
                match look(self.io, id).await? {
                    Some(now) => seen.insert(id, now),
                    None => seen.remove(&id),
                };
            }
        }
        Ok(())
    }

    /// Returns those whose headers may have changed.
    async fn settle_group(&self, leader: VolumeId, members: Vec<VolumeId>) -> Result<Vec<VolumeId>, Stop> {
        let mut fate = match look(self.io, leader).await? {
            None => Fate::Gone,
            Some(leads) if leads.header.unfinished.is_none() => Fate::Finished,
            Some(leads) if leads.is_removed() => Fate::GivenUp,
            Some(leads) => match self.try_lock(&leads.header)? {
                None => return Ok(Vec::new()),
                Some(lease) => self.give_up(lease).await?,
            },
        };
        let mut changed = vec![leader];
        for id in members.into_iter().filter(|id| *id != leader) {
            let Some(found) = look(self.io, id).await? else { continue };
            let Some(lease) = self.try_lock(&found.header)? else { continue };
            // Under its lock: its maker is gone, so whether the leader is there does not change any more.
            let Some(found) = look(self.io, id).await?.filter(|found| is_in_the_making(found, leader)) else {
                continue;
            };
            if let Fate::Gone = fate {
                fate = self.fate_of_gone(leader).await?;
            }
            match fate {
                Fate::Finished => {
                    // It may be finished without being so durably, if its maker died at that step.
                    self.make_headers_durable(leader).await?;
                    self.finish(&found.header).await?;
                }
                Fate::GivenUp | Fate::Gone => self.remove_unfinished(&lease, &found).await?,
            }
            changed.push(id);
        }
        Ok(changed)
    }

    async fn make_headers_durable(&self, id: VolumeId) -> Result<(), Stop> {
        let header = |generation| ObjectName::Header { volume: id, generation };
        let headers = header_generations(self.io, id).await?.into_iter().map(header).collect();
        Ok(self.io.sync(headers).await?)
    }

    /// A leader that was not there when first looked for: it may have been listed late.
    async fn fate_of_gone(&self, leader: VolumeId) -> Result<Fate, Stop> {
        Ok(match look(self.io, leader).await? {
            None => Fate::Gone,
            Some(leads) if leads.header.unfinished.is_none() => Fate::Finished,
            Some(_) => Fate::GivenUp,
        })
    }

    /// Removes a leader whose maker is gone, unless it was finished before that.
    async fn give_up(&self, lease: Lease) -> Result<Fate, Stop> {
        match look(self.io, lease.volume).await? {
            None => Ok(Fate::Gone),
            Some(leads) if leads.header.unfinished.is_none() => Ok(Fate::Finished),
            Some(leads) => {
                self.remove_unfinished(&lease, &leads).await?;
                Ok(Fate::GivenUp)
            }
        }
    }

    async fn remove_unfinished(&self, lease: &Lease, found: &Seen) -> Result<(), Stop> {
        let header = &found.header;
        mark_removed(self.io, found).await?;
        drop_name(self.io, self.store, lease, &header.name).await?;
        tracing::info!(volume = %header.name, "removed what was left of a volume whose maker died");
        Ok(())
    }

    async fn finish(&self, header: &Header) -> Result<(), Stop> {
        let plain = Header { state: HeaderState::Closed, unfinished: None, ..header.clone() };
        let object = ObjectName::Header { volume: plain.id, generation: plain.generation };
        let published = self.io.publish_in(Room::Reserve, object, &plain.encode(), PublishMode::Replace).await;
        published.map_err(|error| VolumeError::from_store(error, format!("cannot finish volume {}", plain.name)))?;
        Ok(())
    }

    async fn remove_never_opened(&self, known: &Names, seen: &mut BTreeMap<VolumeId, Seen>) -> Result<(), Stop> {
        // A reader leaves no record by which another host's could be told to be gone.
        if self.store.info().free_lock == FreeLock::ProvesNothing {
            return Ok(());
        }
        let nameless = |(id, found): (&VolumeId, &Seen)| {
            (was_never_opened(&found.header) && !known.of.contains_key(id)).then_some(*id)
        };
        for id in seen.iter().filter_map(nameless).collect::<Vec<_>>() {
            let Some(found) = seen.get(&id) else { continue };
            let Some(_lease) = self.try_lock(&found.header)? else { continue };
            // `create` shares the lock until the name is there, so what has no name now never gets one.
            if names(self.io).await?.of.contains_key(&id) {
                continue;
            }
            if let Some(found) = look(self.io, id).await?.filter(|found| was_never_opened(&found.header)) {
                mark_removed(self.io, &found).await?;
                tracing::info!(volume = %found.header.name, "removed a volume whose creation was not completed");
            }
            match look(self.io, id).await? {
                Some(now) => seen.insert(id, now),
                None => seen.remove(&id),
            };
        }
        Ok(())
    }

    async fn remove_half_imported(&self, seen: &mut BTreeMap<VolumeId, Seen>) -> Result<(), Stop> {
        let abandoned = |(id, found): (&VolumeId, &Seen)| was_abandoned(&found.header).then_some(*id);
        for id in seen.iter().filter_map(abandoned).collect::<Vec<_>>() {
            let Some(found) = seen.get(&id) else { continue };
            let Some(lease) = self.try_lock(&found.header)? else { continue };
            if let Some(found) = look(self.io, id).await?.filter(|found| was_abandoned(&found.header)) {
                self.remove_unfinished(&lease, &found).await?;
            }
            match look(self.io, id).await? {
                Some(now) => seen.insert(id, now),
                None => seen.remove(&id),
            };
        }
        Ok(())
    }

    /// Takes away the names that lead to a removed volume. Returns whether none is left.
    async fn drop_names(&self, id: VolumeId, names: Option<&Vec<VolumeName>>) -> Result<bool, Stop> {
        let Some(names) = names else { return Ok(true) };
        if self.options.dry_run {
            return Ok(false);
        }
        for name in names {
            // Somebody who holds it is removing it, name and all.
            let Some(lease) = self.lock_or_none(id, name)? else { return Ok(false) };
            drop_name(self.io, self.store, &lease, name).await?;
        }
        Ok(true)
    }

    fn try_lock(&self, header: &Header) -> Result<Option<Lease>, Stop> {
        self.lock_or_none(header.id, &header.name)
    }

    /// The volume's lock, unless somebody has it, or may have it all the same.
    fn lock_or_none(&self, id: VolumeId, name: &VolumeName) -> Result<Option<Lease>, Stop> {
        match try_lock_to_free(self.store, id, name, &Holder::successor(None, None)) {
            // The record says now whether it is certain that whoever had it is gone.
            Ok(lease) => Ok(holder(self.store, id).is_some_and(|mine| mine.doubts.is_empty()).then_some(lease)),
            Err(error) if error.kind() == VolumeErrorKind::Held => {
                tracing::warn!(%error, "left alone what is not finished: where that holder is gone, `remove` it, or `unlock --force`");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What became of a group's leader.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Finished,
    GivenUp,
    Gone,
}

fn is_in_the_making(found: &Seen, leader: VolumeId) -> bool {
    !found.is_removed() && found.header.unfinished.is_some_and(|unfinished| unfinished.with == leader)
}

fn was_never_opened(header: &Header) -> bool {
    header.state == HeaderState::Building && header.unfinished.is_none()
}
