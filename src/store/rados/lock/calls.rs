//! The calls of librados that locks are made of, safe to use. Every one of them blocks until the cluster has answered.

#![allow(unsafe_code, reason = "calls into librados; every block below says what they require")]

use super::class;
use super::reply::{Answers, Locker, Lockers};
use crate::store::Room;
use crate::store::rados::cluster::Pool;
use crate::store::rados::compound::WriteOp;
use crate::store::rados::error::{Failure, absent_is_fine, check};
use crate::store::rados::key::{self, Key};
use crate::store::rados::library::{WatchCallback, WatchErrorCallback};
use crate::units::VolumeId;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// The cluster's `lock` class keeps locks of several names in one object. Ours has this one.
pub(super) const LOCK_NAME: &CStr = c"volume";

/// Longest record that is read back.
const RECORD_MAX: usize = 64 << 10;

/// Enough for a few hundred readers.
const LISTING_BYTES: usize = 64 << 10;

/// A listing that grows faster than it is read is given up after so many attempts.
const LISTING_ATTEMPTS: usize = 4;

/// What clients' names begin with in lists of lockers; a number follows.
const CLIENT: &str = "client.";

/// One lock object of a pool.
pub(super) struct Place {
    pool: Arc<Pool>,
    object: Key,
}

impl Place {
    pub(super) fn new(pool: &Arc<Pool>, volume: VolumeId) -> Self {
        Self { pool: Arc::clone(pool), object: key::lock(volume) }
    }

    /// How the cluster calls this connection in its lists of lockers.
    pub(super) fn client(&self) -> String {
        format!("{CLIENT}{}", self.pool.cluster().instance())
    }

    /// Who has the lock; nobody where there is no such object.
    pub(super) fn lockers(&self) -> Result<Lockers, Failure> {
        let mut bytes = LISTING_BYTES;
        for _ in 0..LISTING_ATTEMPTS {
            match self.lockers_in(bytes) {
                Err(Failure(libc::ERANGE)) => bytes *= 4,
                Err(Failure(libc::ENOENT)) => return Ok(Lockers::default()),
                other => return other,
            }
        }
        Err(Failure(libc::ERANGE))
    }

    fn lockers_in(&self, bytes: usize) -> Result<Lockers, Failure> {
        let mut exclusive = 0;
        let mut texts = [(); 4].map(|()| (vec![0_u8; bytes], bytes));
        let [tag, clients, cookies, addresses] = &mut texts;
        // SAFETY: an open pool, texts that end with zeros, and for each list a buffer with its length.
        let count = unsafe {
            (self.pool.library().list_lockers)(
                self.pool.handle(),
                self.object.as_c_str().as_ptr(),
                LOCK_NAME.as_ptr(),
                &raw mut exclusive,
                tag.0.as_mut_ptr().cast(),
                &raw mut tag.1,
                clients.0.as_mut_ptr().cast(),
                &raw mut clients.1,
                cookies.0.as_mut_ptr().cast(),
                &raw mut cookies.1,
                addresses.0.as_mut_ptr().cast(),
                &raw mut addresses.1,
            )
        };
        let count = check(c_int::try_from(count).unwrap_or(-libc::EOVERFLOW))?;
        Ok(Lockers::parse(exclusive != 0, count, [&clients.0, &cookies.0, &addresses.0]))
    }

    /// An operation to be built, and then [done](Self::change).
    pub(super) fn op(&self) -> WriteOp {
        WriteOp::new(self.pool.library())
    }

    /// Does all of it, or nothing and fails as the first step that cannot be done.
    pub(super) fn change(&self, room: Room, op: &WriteOp) -> Result<(), Failure> {
        self.pool.operate_in(room, self.object.as_c_str(), op)
    }

    /// Also on a full cluster.
    pub(super) fn unlock(&self, cookie: &CStr) -> Result<(), Failure> {
        self.change(Room::Reserve, &self.op().call(class::CLASS, class::UNLOCK, &class::unlock(cookie)))
    }

    /// Takes the lock from one who has it; one who has it no more is no error. Also on a full cluster.
    pub(super) fn break_lock(&self, locker: &Locker) -> Result<(), Failure> {
        let client = locker.client.strip_prefix(CLIENT).and_then(|number| number.parse().ok());
        let input = class::break_lock(client.ok_or(Failure(libc::EINVAL))?, &text(&locker.cookie)?);
        match self.change(Room::Reserve, &self.op().call(class::CLASS, class::BREAK, &input)) {
            Err(Failure(libc::ENOENT)) => Ok(()),
            other => other,
        }
    }

    /// The index of lock objects has this one, and then it is there. It is listed once more after that: somebody may have removed an
    /// earlier object, and takes it off the list only now.
    ///
    /// So at rest every object is listed. Had a removal the last word in the index, it looked after that and saw no object; but whoever
    /// made it later than that listed it still later.
    pub(super) fn make(&self, room: Room, volume: VolumeId) -> Result<(), Failure> {
        self.list(room, volume)?;
        self.change(room, &self.op().create())?;
        self.list(room, volume)
    }

    fn list(&self, room: Room, volume: VolumeId) -> Result<(), Failure> {
        let (index, entry) = (key::locks(volume.0[0] >> 4), key::lock_entry(volume));
        self.pool.operate_in(room, index.as_c_str(), &self.op().add_entries([entry.as_c_str()].into_iter()))
    }

    /// Removes the object by way of `op`, which fails when that must not be, and takes it out of the index, unless it was made anew since.
    pub(super) fn remove(&self, op: WriteOp, volume: VolumeId) -> Result<(), Failure> {
        absent_is_fine(self.change(Room::Reserve, &op.remove()))?;
        let (index, entry) = (key::locks(volume.0[0] >> 4), key::lock_entry(volume));
        let op = self.op().remove_entries([entry.as_c_str()].into_iter());
        self.pool.operate_in(Room::Reserve, index.as_c_str(), &op)?;
        match self.pool.size(self.object.as_c_str()) {
            Ok(_) => self.list(Room::Reserve, volume),
            Err(failure) => absent_is_fine(Err(failure)),
        }
    }

    /// `None` when the object or the attribute is not there.
    pub(super) fn attribute(&self, attribute: &CStr) -> Result<Option<Vec<u8>>, Failure> {
        let mut value = vec![0_u8; RECORD_MAX];
        let (pool, object) = (self.pool.handle(), self.object.as_c_str().as_ptr());
        // SAFETY: an open pool, texts that end with zeros, a buffer with its length.
        let read = unsafe {
            let (bytes, len) = (value.as_mut_ptr().cast(), value.len());
            (self.pool.library().getxattr)(pool, object, attribute.as_ptr(), bytes, len)
        };
        match check(read) {
            Ok(len) => {
                value.truncate(usize::try_from(len).unwrap_or_default());
                Ok(Some(value))
            }
            Err(Failure(libc::ENOENT | libc::ENODATA)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Asks all who watch the object, and waits until each has answered, or is not watching any more, or the time is over.
    pub(super) fn notify(&self, timeout: Duration) -> Result<Answers, Failure> {
        let (library, pool, object) = (self.pool.library(), self.pool.handle(), self.object.as_c_str().as_ptr());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let (mut reply, mut len) = (ptr::null_mut(), 0);
        // SAFETY: an open pool, a text that ends with zero, no message, places for the reply.
        let asked =
            unsafe { (library.notify2)(pool, object, ptr::null(), 0, timeout_ms, &raw mut reply, &raw mut len) };
        // When some have not answered in time, the reply says who.
        let outcome = if asked == -libc::ETIMEDOUT { Ok(0) } else { check(asked) };
        if reply.is_null() {
            return outcome.map(|_| Answers::default());
        }
        // SAFETY: so many bytes are there, and they are ours until they are freed, below.
        let answers = Answers::parse(unsafe { std::slice::from_raw_parts(reply.cast::<u8>(), len) });
        // SAFETY: the library's buffer, which nobody uses any more.
        unsafe { (library.buffer_free)(reply) };
        outcome.and_then(|_| answers.ok_or(Failure(libc::EBADMSG)))
    }

    /// Answers a notification. Does not wait for the cluster, so that a callback may use it.
    pub(super) fn answer(&self, notification: u64, watch: u64, answer: &CStr) {
        let (pool, object) = (self.pool.handle(), self.object.as_c_str().as_ptr());
        let len = c_int::try_from(answer.count_bytes()).unwrap_or_default();
        // SAFETY: an open pool, a text that ends with zero, an answer with its length, which is copied. Whoever asked does not hear
        // from us when this fails, and asks again.
        let _failed =
            unsafe { (self.pool.library().notify_ack)(pool, object, notification, watch, answer.as_ptr(), len) };
    }

    /// Watches the object; the cluster forgets a watch that it has not heard of for so long.
    ///
    /// # Safety
    /// `argument` is what the two callbacks expect, until [`Place::unwatch`] has returned.
    pub(super) unsafe fn watch(
        &self,
        timeout: Duration,
        (called, failed): (WatchCallback, WatchErrorCallback),
        argument: *mut c_void,
    ) -> Result<u64, Failure> {
        let (pool, object) = (self.pool.handle(), self.object.as_c_str().as_ptr());
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let mut watch = 0;
        // SAFETY: an open pool, a text that ends with zero, a place for the result; the caller vouches for the rest.
        check(unsafe {
            (self.pool.library().watch3)(pool, object, &raw mut watch, called, failed, seconds, argument)
        })?;
        Ok(watch)
    }

    /// Ends a watch. None of its callbacks runs any more when this returns, whatever the cluster says.
    ///
    /// # Safety
    /// `watch` is of this place and has not been ended.
    pub(super) unsafe fn unwatch(&self, watch: u64) {
        // SAFETY: an open pool; the caller vouches for the watch. The library forgets it also when the cluster has forgotten it already.
        let _forgotten_already = unsafe { (self.pool.library().unwatch2)(self.pool.handle(), watch) };
        // SAFETY: a connected cluster. Waits for callbacks that run.
        let _always_done = unsafe { (self.pool.library().watch_flush)(self.pool.cluster().handle()) };
    }

    /// Has the cluster refuse everything from the client at this address. Nothing that we do after this meets what that one does later:
    /// each of our operations makes the OSD that serves it learn of the list first.
    pub(super) fn blocklist(&self, address: &str, expires: Duration) -> Result<(), Failure> {
        let address = text(address)?;
        let seconds = u32::try_from(expires.as_secs()).unwrap_or(u32::MAX);
        let cluster = self.pool.cluster();
        // SAFETY: a connected cluster, and a text that ends with zero, which is only read.
        check(unsafe { (self.pool.library().blocklist_add)(cluster.handle(), address.as_ptr().cast_mut(), seconds) })?;
        cluster.wait_for_latest_map()
    }
}

fn text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure(libc::EINVAL))
}
