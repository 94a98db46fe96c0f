//! The lease: who may change a volume, who had it before, and whether that one is gone for sure.
//!
//! ```text
//!   lock is      its last holder                             what an opening does
//!   held         lives                                       refused, with host and process
//!   free         closed the volume in order                  opens
//!   free         is proven gone                              takes over at once
//!   free         in doubt, and there is a fence command      runs it; exit 0 is the proof
//!   free         in doubt                                    refused, with host and process
//!   seized       in doubt, and given up by an operator       takes over; what the other may still write is unfenced (C4)
//! ```
//! A free lock proves the end of its holder where only one host uses the store; where many do, only a process of this host and boot that
//! is seen to be gone is. Doubts outlive those who found them: they stand in the lock's record until a header says what became of them.

mod fence;
mod holder;
pub(super) mod watch;

pub(super) use holder::dirs_of;
pub use holder::{Doubt, Holder};

use super::open::{find, read_header};
use super::{VolumeError, VolumeErrorKind};
use crate::map::format::header::{Header, HeaderState};
use crate::store::io;
use crate::store::{Lease, LockMode, Store, StoreError, StoreErrorKind};
use crate::units::{VolumeId, VolumeName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How leases are taken and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOptions {
    /// This host, as others that use the store shall know it; must differ from theirs.
    pub host_id: String,
    /// Run with the host and the volume whose last holder is in doubt; exit 0 says that it writes no more.
    pub fence_command: Option<PathBuf>,
    /// How long a look counts that showed the lease in force: a request after it waits for the next look. `None`: nobody looks but
    /// at the end of flushes, for when there is no clock.
    pub valid_for: Option<Duration>,
}

/// Longer than any disk's hiccup, shorter than what people wait before they use force.
pub const VALID_FOR: Duration = Duration::from_secs(10);

/// Seizures that came too late in a row, before somebody is told so.
const ATTEMPTS: usize = 3;

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { host_id: node_name(), fence_command: None, valid_for: Some(VALID_FOR) }
    }
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A lease that was just taken, and who had it before.
pub struct Taken {
    pub lease: Lease,
    pub predecessor: Option<Holder>,
}

/// Takes the lease for this process. What is not known of its predecessor's end stays in the record.
///
/// # Errors
/// [`VolumeErrorKind::Held`], with the holder's host and process where they are known.
pub fn take(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    options: &LeaseOptions,
    soft_journal_dir: Option<&Path>,
) -> Result<Taken, VolumeError> {
    take_as(store, id, name, LockMode::Exclusive, (options, soft_journal_dir))
}

/// As [`take`], to remove the volume: that is possible on a full store.
///
/// # Errors
/// As [`take`].
pub fn take_to_free(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    options: &LeaseOptions,
) -> Result<Taken, VolumeError> {
    take_as(store, id, name, LockMode::ExclusiveToFree, (options, None))
}

fn take_as(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    mode: LockMode,
    (options, soft_journal_dir): (&LeaseOptions, Option<&Path>),
) -> Result<Taken, VolumeError> {
    let mine =
        |predecessor: Option<&Holder>| Holder::this_process(&options.host_id, soft_journal_dir).after(predecessor);
    lock_after(store, id, name, mode, mine)
}

/// As [`take`], with a record of the caller's; doubts about whoever had the lease before are added to it.
///
/// # Errors
/// As [`take`].
pub fn lock(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, mine: &Holder) -> Result<Lease, VolumeError> {
    lock_after(store, id, name, LockMode::Exclusive, |last| mine.clone().after(last)).map(|taken| taken.lease)
}

/// As [`lock`], for work that frees space: that is possible on a full store.
///
/// # Errors
/// As [`take`].
pub fn lock_to_free(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    mine: &Holder,
) -> Result<Lease, VolumeError> {
    lock_after(store, id, name, LockMode::ExclusiveToFree, |last| mine.clone().after(last)).map(|taken| taken.lease)
}

/// As [`lock`], for work that can leave the volume alone: nobody is cut off for it, nor waited for ([`Store::try_lock`]).
///
/// # Errors
/// As [`take`], and also when the holder is gone, but not seen to be.
pub fn try_lock(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, mine: &Holder) -> Result<Lease, VolumeError> {
    let lock = |record: &[u8]| store.try_lock(id, LockMode::Exclusive, record);
    record_after(store, id, name, lock, |last| mine.clone().after(last)).map(|taken| taken.lease)
}

/// As [`try_lock`], for work that frees space: that is possible on a full store.
///
/// # Errors
/// As [`try_lock`].
pub fn try_lock_to_free(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    mine: &Holder,
) -> Result<Lease, VolumeError> {
    let lock = |record: &[u8]| store.try_lock(id, LockMode::ExclusiveToFree, record);
    record_after(store, id, name, lock, |last| mine.clone().after(last)).map(|taken| taken.lease)
}

fn lock_after(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    mode: LockMode,
    mine: impl Fn(Option<&Holder>) -> Holder,
) -> Result<Taken, VolumeError> {
    record_after(store, id, name, |record| store.lock(id, mode, record), mine)
}

/// Takes the lock with a record that depends on who had it before. That is known for sure only afterwards: somebody may take it, open the
/// volume and die between our look and our lock.
fn record_after(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    lock: impl Fn(&[u8]) -> Result<Lease, StoreError>,
    mine: impl Fn(Option<&Holder>) -> Holder,
) -> Result<Taken, VolumeError> {
    let record = |predecessor: Option<&Holder>| {
        let mine = mine(predecessor);
        let doubts = holder::doubts(predecessor, store.info().free_lock, &mine.host);
        mine.with(doubts).encode()
    };
    let seen = holder(store, id);
    let lease = lock(&record(seen.as_ref()));
    let lease = lease.map_err(|error| lock_error(store, id, name, error))?;
    let predecessor = lease.replaced.as_deref().and_then(Holder::decode);
    if predecessor != seen {
        let recorded = store.record(&lease, &record(predecessor.as_ref()));
        recorded.map_err(|error| lock_error(store, id, name, error))?;
    }
    Ok(Taken { lease, predecessor })
}

/// As [`lock`], of a volume whose id is fresh: nobody can have had it, so there is nothing to doubt.
///
/// # Errors
/// When the store fails.
pub fn lock_new(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, mine: &Holder) -> Result<Lease, VolumeError> {
    store.lock(id, LockMode::Exclusive, &mine.encode()).map_err(|error| lock_error(store, id, name, error))
}

/// Takes the volume's lock together with other readers: nobody changes or removes it meanwhile.
///
/// # Errors
/// [`VolumeErrorKind::Held`] when somebody has it for itself.
pub fn lock_shared(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> Result<Lease, VolumeError> {
    store.lock(id, LockMode::Shared, &[]).map_err(|error| lock_error(store, id, name, error))
}

/// As [`lock_shared`], for a look that can be left out ([`Store::try_lock`]).
///
/// # Errors
/// As [`lock_shared`], and also when the holder is gone, but not seen to be.
pub fn try_lock_shared(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> Result<Lease, VolumeError> {
    store.try_lock(id, LockMode::Shared, &[]).map_err(|error| lock_error(store, id, name, error))
}

/// Whether a lease still counts: to be asked right before a change that nobody else's next step would notice.
///
/// # Errors
/// [`VolumeErrorKind::Superseded`] when it does not; or what the store reports, and then it is not known.
pub fn confirm(store: &Arc<dyn Store>, lease: &Lease, name: &VolumeName) -> Result<(), VolumeError> {
    store.confirm(lease).map_err(|error| match error.kind() {
        StoreErrorKind::Lost => {
            VolumeError::from_store(error, format!("the lock of volume {name} was broken meanwhile"))
        }
        _ => VolumeError::from_store(error, format!("cannot see whether the lock of volume {name} is still in force")),
    })
}

fn lock_error(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName, error: StoreError) -> VolumeError {
    let text = match error.kind() {
        StoreErrorKind::Held => held_by(store, id, name),
        StoreErrorKind::BeingRead => format!("volume {name} is being read; try again when its readers have ended"),
        _ => format!("cannot lock volume {name}"),
    };
    VolumeError::from_store(error, text)
}

fn held_by(store: &Arc<dyn Store>, id: VolumeId, name: &VolumeName) -> String {
    match holder(store, id) {
        Some(holder) => format!("volume {name} is in use by process {} on host {}", holder.pid, holder.host),
        None => format!("volume {name} is in use by another process"),
    }
}

/// Who has, or last had, the lease; `None` when nobody left a record that can be read.
pub fn holder(store: &Arc<dyn Store>, id: VolumeId) -> Option<Holder> {
    store.holder(id).ok().flatten().and_then(|record| Holder::decode(&record))
}

/// For whoever took a lease to do away with what is there.
///
/// # Errors
/// [`VolumeErrorKind::Held`] when the volume was not closed, and the end of its last holder is in doubt and not given up.
pub fn refuse_doubtful(
    store: &Arc<dyn Store>,
    taken: &Taken,
    name: &VolumeName,
    header: &Header,
    options: &LeaseOptions,
) -> Result<(), VolumeError> {
    if is_closed(header) {
        return Ok(());
    }
    let predecessor = taken.predecessor.as_ref();
    let settled = settle(store, name, predecessor, options);
    settled.map(drop).inspect_err(|_| put_back(store, &taken.lease, predecessor))
}

/// The doubts about the end of `predecessor`, and of those before it, that are left when everything was tried.
///
/// # Errors
/// [`VolumeErrorKind::Held`] when there is one that nobody has given up and that no fence command settles.
pub(super) fn settle(
    store: &Arc<dyn Store>,
    name: &VolumeName,
    predecessor: Option<&Holder>,
    options: &LeaseOptions,
) -> Result<Vec<Doubt>, VolumeError> {
    let doubts = holder::doubts(predecessor, store.info().free_lock, &options.host_id);
    let (given_up, mut open): (Vec<_>, Vec<_>) = doubts.into_iter().partition(|doubt| doubt.given_up);
    open.retain(|doubt| !fence::fence(options, doubt, name));
    if open.is_empty() {
        return Ok(given_up);
    }
    let whom: Vec<_> = open.iter().map(ToString::to_string).collect();
    let text = format!(
        "volume {name} was not closed by {}, and nothing proves that this writes no more: stop that host, then `archvhost \
         unlock --force {name}`, or configure a fence command",
        whom.join(", nor by ")
    );
    Err(VolumeError::new(VolumeErrorKind::Held, text))
}

/// The header says what became of every doubt about its holders: the record need not any more. Should that fail, the next opening
/// is more careful than it has to be.
pub(super) fn forget_doubts(store: &Arc<dyn Store>, lease: &Lease) {
    let Some(mut mine) = holder(store, lease.volume).filter(|mine| !mine.doubts.is_empty()) else { return };
    mine.doubts.clear();
    if let Err(error) = store.record(lease, &mine.encode()) {
        tracing::warn!(volume = %lease.volume, %error, "the lock's record still names holders that are accounted for");
    }
}

/// Gives a lease back that was taken and not used: the record is as it was, so that nobody has to wonder about us.
pub(super) fn put_back(store: &Arc<dyn Store>, lease: &Lease, predecessor: Option<&Holder>) {
    let Some(predecessor) = predecessor else { return };
    if let Err(error) = store.record(lease, &predecessor.encode()) {
        tracing::warn!(volume = %lease.volume, %error, "the lock's record names us, who did not open the volume");
    }
}

/// Whom [`break_lock`] cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CutOff {
    /// Who had the lease, the latest first, and who had not closed the volume and was in doubt.
    pub holders: Vec<Doubt>,
    /// The first of them has had the lock until now.
    pub held: bool,
    /// All of them were fenced, so nothing of theirs can still be written.
    pub fenced: bool,
    /// The volume was being read.
    pub readers: bool,
}

/// Cuts off whoever has the volume's lock, and gives up whoever is in doubt. Afterwards the lock is free; the next opening treats what
/// those may still write as unfenced (rule C4).
///
/// # Errors
/// When there is no such volume, the store fails, or others keep taking the lock.
pub fn break_lock(store: &Arc<dyn Store>, name: &VolumeName, options: &LeaseOptions) -> Result<CutOff, VolumeError> {
    let id = io::block_on(store, None, |io| async move { find(&io, name).await })?;
    let mut attempts = 0..ATTEMPTS;
    let cut_off = loop {
        match try_break(store, id, name, options) {
            Err(error) if error.kind() == StoreErrorKind::Held && attempts.next().is_some() => {}
            Err(error) => return Err(lock_error(store, id, name, error)),
            Ok(cut_off) => break cut_off,
        }
    };
    // Doubts about those who closed the volume in order stay in the record, where the next opening forgets them.
    let closed = io::block_on(store, None, |io| async move { read_header(&io, id, name).await })
        .is_ok_and(|(header, highest)| header.generation == highest && is_closed(&header));
    Ok(if closed && !cut_off.held { CutOff::default() } else { cut_off })
}

/// Whether nobody has left anything in the volume to be taken over.
pub(super) fn is_closed(header: &Header) -> bool {
    matches!(header.state, HeaderState::Closed | HeaderState::Building | HeaderState::Removed)
}

fn try_break(
    store: &Arc<dyn Store>,
    id: VolumeId,
    name: &VolumeName,
    options: &LeaseOptions,
) -> Result<CutOff, StoreError> {
    let record = store.holder(id)?;
    let doubted = |predecessor: Option<&Holder>| holder::doubts(predecessor, store.info().free_lock, &options.host_id);
    let mine = |predecessor: Option<&Holder>, doubts: &[Doubt]| {
        let given_up = doubts.iter().map(|doubt| Doubt { given_up: true, ..doubt.clone() });
        Holder::this_process(&options.host_id, None).after(predecessor).with(given_up.collect()).encode()
    };
    let predecessor = record.as_deref().and_then(Holder::decode);
    let predecessor = predecessor.as_ref();
    let mut doubts = doubted(predecessor);
    // In the usual case somebody has it, and this says who.
    let readers = match store.lock(id, LockMode::ExclusiveToFree, &mine(predecessor, &doubts)) {
        Ok(free) => {
            if free.replaced != record {
                // Somebody had it since, and is gone.
                let last = free.replaced.as_deref().and_then(Holder::decode);
                doubts = doubted(last.as_ref());
                store.record(&free, &mine(last.as_ref(), &doubts))?;
            }
            return Ok(CutOff { holders: doubts, ..CutOff::default() });
        }
        Err(error) if error.kind() == StoreErrorKind::BeingRead => true,
        Err(error) if error.kind() == StoreErrorKind::Held => false,
        Err(error) => return Err(error),
    };
    if !readers {
        doubts = holder::with_last(doubts, predecessor);
    }
    let holders = doubts.clone();
    doubts.retain(|doubt| !fence::fence(options, doubt, name));
    let seized = store.seize(id, record.as_deref(), &mine(predecessor, &doubts))?;
    if seized.fenced && !readers && doubts.first() == holders.first() {
        // The store cut off whoever had the lock; of those before that one it knows nothing.
        doubts.remove(0);
        store.record(&seized.lease, &mine(predecessor, &doubts))?;
    }
    tracing::warn!(volume = %name, cut_off = ?holders, readers, fenced = doubts.is_empty(), "a lock was broken by force");
    Ok(CutOff { fenced: doubts.is_empty() && !holders.is_empty(), holders, held: !readers, readers })
}

#[cfg(test)]
mod tests;
