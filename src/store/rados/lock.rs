//! A volume's lock in a cluster: a lock of the cluster's own `lock` class on one small object, without an expiry.
//!
//! ```text
//!   ID.lock    lockers: client, address, cookie     who has the lock; the cluster fills in the first two
//!              attribute `holder`                   the record of who last had it for itself
//!              watches                              of everybody who has it, or is about to
//!
//!   lock:   watch ─► one operation: lock, record          refused ─► is every locker gone? ─► cut off, break, again
//!   seize:  watch ─► expect record, replace it ─► cut off who does not answer ─► break ─► lock
//!   end:    unlock ─► unwatch
//! ```
//! A lock stays when its holder dies: only an orderly end frees it, or whoever breaks it. *Gone* is a holder that is of this host and
//! boot and is seen to be gone, or one whose watch the cluster has forgotten. It is cut off before its lock is broken: its address
//! goes on the cluster's blocklist, and what it had under way either happened before that, or never will (rules C5, C16). So
//! a free lock proves that whoever had it is gone, though several hosts use the store. A reader is cut off as well, because
//! it may be writing elsewhere what it reads: a clone's header, a rollback's.
//!
//! Who may not blocklist breaks no lock but by [`seize`], which then says that it has cut nobody off (rule C4). A holder that answers is
//! not blocklisted either: that would end everything that its process serves, and other volumes with it.

mod calls;
mod class;
mod cookie;
mod gone;
mod in_time;
mod reply;
mod watch;

use super::cluster::{Cluster, Pool};
use super::compound::WriteOp;
use super::error::{BLOCKLISTED, Failure};
use crate::store::helpers::Helpers;
use crate::store::{Lease, LockMode, Room, Seized, StoreError, StoreErrorKind};
use crate::units::VolumeId;
use calls::Place;
use gone::Reach;
use in_time::take_in_time;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use watch::Watch;

const RECORD: &CStr = c"holder";

/// Before each record, so that one that is empty differs from none; and a version.
const RECORD_MARK: u8 = b'1';

/// A volume is to be taken over within 30 s. A watch lasts for [`watch::TIMEOUT`]; two looks come after it.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long the end of a lease waits for the cluster. The lock is given back later, or found to be nobody's by the next who wants it.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);

/// Between attempts to give a lock back. Nobody else takes it from a process that lives.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);

/// Attempts at what others hinder: to watch an object that they remove, to replace a record that they replace.
const ATTEMPTS: usize = 4;

/// What this process needs for locks in a pool.
pub(super) struct Locks {
    pool: Arc<Pool>,
    /// Of all connections over which this process writes, but that of the pool, which the cluster itself puts down.
    other_addresses: Vec<String>,
    /// Those connections.
    others: Vec<Arc<Cluster>>,
    /// Watch anew what the cluster has forgotten.
    renewals: Arc<Helpers>,
}

/// What a lease of this driver keeps: the right, given back at the end.
struct Held {
    /// `None` once it is being given back.
    lock: Option<Lock>,
    /// As we left it last. Whoever seizes the lock writes another one first, which is not ours to replace.
    record: Mutex<Vec<u8>>,
}

/// A lock that is ours, or is about to be.
struct Lock {
    place: Arc<Place>,
    cookie: CString,
    mode: LockMode,
    watch: Watch,
}

impl Locks {
    /// `others` are the connections, besides the pool's own, whose operations a lease of ours covers.
    ///
    /// # Errors
    /// What librados reports, or when a thread cannot be had.
    pub(super) fn new(pool: Pool, others: &[Arc<Cluster>]) -> Result<Self, StoreError> {
        let addresses = others.iter().map(|cluster| cluster.address()).collect::<Result<_, _>>();
        let other_addresses = addresses.map_err(|failure| failure.at("look up", "our addresses"))?;
        let (pool, renewals) =
            (Arc::new(pool.that_never_waits_for_space()), Arc::new(Helpers::new(super::home::THREADS_MAX)?));
        Ok(Self { pool, other_addresses, others: others.to_vec(), renewals })
    }

    /// Blocks until every connection knows of whoever was cut off before: an OSD that one of our operations reaches learns of it then, too.
    /// Otherwise what a dead holder had under way might come after what we write.
    fn learn_who_was_cut_off(&self) -> Result<(), Failure> {
        [self.pool.cluster()].into_iter().chain(&self.others).try_for_each(|cluster| cluster.wait_for_latest_map())
    }
}

/// See [`Store::lock`](crate::store::Store::lock).
pub(super) fn lock(locks: &Arc<Locks>, volume: VolumeId, mode: LockMode, holder: &[u8]) -> Result<Lease, StoreError> {
    take_in_time(locks, volume, (mode, holder), Reach::TakesOver { until: Instant::now() + PATIENCE })
}

/// See [`Store::try_lock`](crate::store::Store::try_lock).
pub(super) fn try_lock(
    locks: &Arc<Locks>,
    volume: VolumeId,
    mode: LockMode,
    holder: &[u8],
) -> Result<Lease, StoreError> {
    take_in_time(locks, volume, (mode, holder), Reach::PassesBy)
}

fn take(locks: &Locks, volume: VolumeId, (mode, holder): (LockMode, &[u8]), reach: Reach) -> Result<Lease, StoreError> {
    let prepare = || Lock::prepare(locks, volume, mode).map_err(|failure| failure.at("lock", volume_text(volume)));
    let (mut lock, mut attempts) = (prepare()?, 0..ATTEMPTS);
    loop {
        match lock.take(holder) {
            Ok(replaced) => {
                // Whoever cut our predecessor off may not have been us. On an error the lease goes back.
                let lease = lock.into_lease(volume, replaced, holder);
                let learnt = locks.learn_who_was_cut_off();
                return learnt.map(|()| lease).map_err(|failure| failure.at("lock", volume_text(volume)));
            }
            Err(Failure(libc::EBUSY)) => {}
            // Somebody saw that nobody had it, and removed it.
            Err(Failure(libc::ENOENT)) if attempts.next().is_some() => {
                lock = prepare()?;
                continue;
            }
            Err(failure) => {
                // Whatever came of it, it is not ours when the watch has ended.
                let _it_was_not = lock.place.unlock(&lock.cookie);
                return Err(failure.at("lock", volume_text(volume)));
            }
        }
        gone::make_way(&lock.place, volume, reach)?;
    }
}

/// See [`Store::seize`](crate::store::Store::seize).
pub(super) fn seize(locks: &Locks, volume: VolumeId, from: Option<&[u8]>, holder: &[u8]) -> Result<Seized, StoreError> {
    let failed = |failure: Failure| match failure {
        // Another record, or a lock that came after we looked, or none at all any more.
        Failure(libc::ECANCELED | libc::EBUSY | libc::ENOENT) => {
            StoreError::new(StoreErrorKind::Held, "seize the lock of", volume_text(volume))
        }
        failure => failure.at("seize the lock of", volume_text(volume)),
    };
    let lock = Lock::prepare(locks, volume, LockMode::ExclusiveToFree).map_err(failed)?;
    let lockers = lock.place.lockers().map_err(failed)?;
    // From here on the next opening knows of whom we cut off, whatever becomes of us.
    let op = lock.replace(from, holder);
    lock.place.change(Room::Reserve, &op).map_err(failed)?;
    let fenced = gone::cut_off(&lock.place, volume, &lockers).map_err(failed)?;
    for locker in &lockers.all {
        lock.place.break_lock(locker).map_err(failed)?;
    }
    lock.place.change(Room::Reserve, &lock.with_lock(lock.replace(Some(holder), holder))).map_err(failed)?;
    let lease = lock.into_lease(volume, from.map(<[u8]>::to_vec), holder);
    locks.learn_who_was_cut_off().map_err(failed)?;
    Ok(Seized { lease, fenced })
}

/// See [`Store::confirm`](crate::store::Store::confirm).
pub(super) fn confirm(lease: &Lease) -> Result<(), StoreError> {
    let lock = held(lease);
    let failed = |failure: Failure| failure.at("keep the lock of", volume_text(lease.volume));
    // A client on the blocklist is told so here.
    let lockers = lock.place.lockers().map_err(failed)?;
    let (client, cookie) = (lock.place.client(), lock.cookie.to_string_lossy());
    if !lockers.all.iter().any(|locker| locker.client == client && locker.cookie == cookie) {
        return Err(StoreError::new(StoreErrorKind::Lost, "keep the lock of", volume_text(lease.volume)));
    }
    lock.watch.renew().map_err(failed)
}

/// See [`Store::record`](crate::store::Store::record).
pub(super) fn record(lease: &Lease, holder: &[u8]) -> Result<(), StoreError> {
    let lock = held(lease);
    let ours = class::assert_locked(lock.mode, &lock.cookie);
    let mut last = kept(lease).record.lock().unwrap_or_else(PoisonError::into_inner);
    let op = lock.replace(Some(&last), holder).call(class::CLASS, class::ASSERT_LOCKED, &ours);
    let recorded = match lock.place.change(Room::Reserve, &op) {
        // Sent twice, as in `had_already`.
        Err(Failure(libc::ECANCELED)) if read_record(&lock.place).is_ok_and(|now| now.as_deref() == Some(holder)) => {
            Ok(())
        }
        other => other,
    };
    let recorded = recorded.map(|()| *last = holder.to_vec());
    recorded.map_err(|failure| {
        let error = failure.at("record the holder of", volume_text(lease.volume));
        let lost = matches!(failure, Failure(libc::EBUSY | libc::ENOENT | libc::ECANCELED | BLOCKLISTED));
        if lost { error.with_kind(StoreErrorKind::Lost) } else { error }
    })
}

/// See [`Store::holder`](crate::store::Store::holder).
pub(super) fn holder(locks: &Locks, volume: VolumeId) -> Result<Option<Vec<u8>>, StoreError> {
    let record = read_record(&Place::new(&locks.pool, volume));
    record.map_err(|failure| failure.at("read the holder of", volume_text(volume)))
}

/// Removes the lock object of a volume that has no header, unless somebody else has the lock. Whoever removes a volume has it.
pub(super) fn remove_unused(locks: &Locks, volume: VolumeId) -> Result<(), Failure> {
    let place = Place::new(&locks.pool, volume);
    let lockers = place.lockers()?;
    let (exclusive, client) = (lockers.exclusive, place.client());
    let (method, input) = match &lockers.all[..] {
        [] => return remove_free(locks, volume),
        [ours] if exclusive && ours.client == client => {
            let cookie = CString::new(ours.cookie.as_str()).map_err(|_| Failure(libc::EINVAL))?;
            (class::ASSERT_LOCKED, class::assert_locked(LockMode::Exclusive, &cookie))
        }
        _ => return Ok(()),
    };
    match place.remove(place.op().call(class::CLASS, method, &input), volume) {
        // Somebody was quicker.
        Err(Failure(libc::EBUSY)) => Ok(()),
        other => other,
    }
}

/// Removes the lock object of a volume that has no header, unless anybody has the lock: we may be making the volume.
pub(super) fn remove_free(locks: &Locks, volume: VolumeId) -> Result<(), Failure> {
    let place = Place::new(&locks.pool, volume);
    let input = class::lock(LockMode::Exclusive, &cookie::new(&[]));
    match place.remove(place.op().call(class::CLASS, class::LOCK, &input), volume) {
        Err(Failure(libc::EBUSY)) => Ok(()),
        other => other,
    }
}

impl Lock {
    /// Watches, so that nobody takes us for gone once we have the lock.
    fn prepare(locks: &Locks, volume: VolumeId, mode: LockMode) -> Result<Self, Failure> {
        let place = Arc::new(Place::new(&locks.pool, volume));
        let cookie = cookie::new(&locks.other_addresses);
        let mut attempts = 0..ATTEMPTS;
        loop {
            match Watch::new(&place, &cookie, &locks.renewals) {
                Ok(watch) => return Ok(Self { place, cookie, mode, watch }),
                // Its first lock, or its last one was removed with it.
                Err(Failure(libc::ENOENT)) if attempts.next().is_some() => place.make(room(mode), volume)?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The record that ours took the place of, if ours is for ourselves; EBUSY when others have the lock.
    fn take(&self, holder: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        if self.mode == LockMode::Shared {
            let op = self.with_lock(self.place.op().assert_exists());
            return had_already(self.place.change(room(self.mode), &op)).map(|()| None);
        }
        let mut earlier = None;
        for _ in 0..ATTEMPTS {
            let found = read_record(&self.place)?;
            // Ours is there when the library sent the last attempt twice, and only the second answer came.
            let replaced = match earlier {
                Some(replaced) if found.as_deref() == Some(holder) => replaced,
                _ => found.clone(),
            };
            let op = self.with_lock(self.replace(found.as_deref(), holder));
            match had_already(self.place.change(room(self.mode), &op)) {
                Err(Failure(libc::ECANCELED)) => earlier = Some(replaced),
                done => return done.map(|()| replaced),
            }
        }
        // Whoever replaces records has the lock.
        Err(Failure(libc::EBUSY))
    }

    /// An operation that puts `holder` in the place of `from`, and of no other record. It makes no object: that would not be listed.
    fn replace(&self, from: Option<&[u8]>, holder: &[u8]) -> WriteOp {
        let from = from.map(marked).unwrap_or_default();
        self.place.op().assert_exists().expect_attribute(RECORD, &from).set_attribute(RECORD, &marked(holder))
    }

    fn with_lock(&self, op: WriteOp) -> WriteOp {
        op.call(class::CLASS, class::LOCK, &class::lock(self.mode, &self.cookie))
    }

    fn into_lease(self, volume: VolumeId, replaced: Option<Vec<u8>>, record: &[u8]) -> Lease {
        let held = Held { lock: Some(self), record: Mutex::new(record.to_vec()) };
        Lease { volume, keep: Arc::new(held), replaced, locked: None }
    }

    /// While it is watched: nobody is to take us for gone and blocklist us for what we are giving back.
    fn give_back(self) {
        let mut told = false;
        loop {
            match self.place.unlock(&self.cookie) {
                // Cut off: there is nothing to give back.
                Ok(()) | Err(Failure(libc::ENOENT | BLOCKLISTED)) => return,
                Err(_) if told => {}
                Err(failure) => tracing::warn!(?failure, "a volume's lock could not be given back; trying again"),
            }
            told = true;
            thread::sleep(GIVE_BACK_PAUSE);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(ended) = self.begin_to_end() else { return };
        if ended.recv_timeout(GIVE_BACK_MAX).is_err() {
            tracing::warn!(
                "the cluster does not answer: a volume's lock stays until it does, or somebody finds it to be nobody's"
            );
        }
    }
}

impl Held {
    /// Whoever waits is told of the end, or of there being no thread.
    fn begin_to_end(&mut self) -> Option<mpsc::Receiver<()>> {
        let lock = self.lock.take()?;
        let (done, ended) = mpsc::channel();
        // The cluster may be out of reach, and this thread has other things to do.
        let thread = thread::Builder::new().name("unlock".to_owned()).spawn(move || {
            lock.give_back();
            let _nobody_waits_any_more = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "a volume's lock stays until somebody finds it to be nobody's");
        }
        Some(ended)
    }
}

/// Lets go of a lease, on a thread that may not wait: if it was the last of its clones, the lock is given back meanwhile.
pub(super) fn let_go(lease: Lease) {
    let held = lease.keep.downcast::<Held>().expect("a lease goes back to the driver that gave it");
    let _nobody_waits = Arc::into_inner(held).and_then(|mut held| held.begin_to_end());
}

/// A lock that this very cookie has is had: cookies are used once, so the library sent the operation again to a cluster that had forgotten
/// that it was done.
fn had_already(locked: Result<(), Failure>) -> Result<(), Failure> {
    match locked {
        Err(Failure(libc::EEXIST)) => Ok(()),
        other => other,
    }
}

fn kept(lease: &Lease) -> &Held {
    lease.keep.downcast_ref::<Held>().expect("a lease goes back to the driver that gave it")
}

fn held(lease: &Lease) -> &Lock {
    kept(lease).lock.as_ref().expect("it is given back with the last clone of its lease")
}

fn read_record(place: &Place) -> Result<Option<Vec<u8>>, Failure> {
    match place.attribute(RECORD)?.as_deref().map(<[u8]>::split_first) {
        None => Ok(None),
        Some(Some((&RECORD_MARK, record))) => Ok(Some(record.to_vec())),
        // Of a later version, or no record at all.
        Some(_) => Err(Failure(libc::EBADMSG)),
    }
}

fn marked(record: &[u8]) -> Vec<u8> {
    [&[RECORD_MARK], record].concat()
}

fn room(mode: LockMode) -> Room {
    match mode {
        LockMode::Exclusive | LockMode::Shared => Room::Ordinary,
        LockMode::ExclusiveToFree => Room::Reserve,
    }
}

fn volume_text(volume: VolumeId) -> String {
    format!("volume {volume}")
}
