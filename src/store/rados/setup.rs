//! Opening the store in a pool: it is one already, it can become one, or it is left alone with a clear word why.
//!
//! The objects that list names and volumes are made here only, so that one that is lost is noticed, not taken for empty. The store's own
//! object is written last, so a store that has it is complete; what a crash leaves before that is made
//! again. It says which layout this is and which pool has the data, so that nobody can open it with another one.

use super::cluster::{Cluster, Pool};
use super::compound::WriteOp;
use super::error::{Failure, check};
use super::key::{self, NAMES, STORE, VOLUME_SHARDS};
use super::options::{Place, RadosOptions};
use crate::store::open::IfMissing;
use crate::store::{Buffer, StoreError, StoreErrorKind};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const FIRST_LINE: &str = "archvhost store, layout version 1";

const EXPLANATION: &str = "\nThis pool or namespace holds the volumes of archvhost, an object for each piece.\n\
    Its objects are not meant to be read or changed by hand; `archvhost --store rados:POOL list` says what is there.\n";

/// The store's own object is far smaller.
const STORE_BYTES_MAX: usize = 4096;

/// How long whoever opens a store waits for its first answer.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(30);

/// The pools of a store.
pub(super) struct Opened {
    pub(super) metadata: Pool,
    pub(super) data: Pool,
}

/// # Errors
/// When the pool cannot be used as a store; the text says what is wrong with it.
pub(super) fn open_pools(
    cluster: &Arc<Cluster>,
    place: &Place,
    options: &RadosOptions,
    if_missing: IfMissing,
) -> Result<Opened, StoreError> {
    let refuse = |kind, why: &str| StoreError::new(kind, "open", format_args!("store {place} ({why})"));
    let failed = |failure: Failure| failure.at("open", format_args!("store {place}"));
    let metadata = match cluster.pool(&place.pool, &place.namespace) {
        Err(Failure(libc::ENOENT)) => return Err(refuse(StoreErrorKind::NotFound, "there is no such pool")),
        other => other.map_err(failed)?,
    };
    let wanted = options.data_pool.as_deref();
    let text = match (first_look(cluster, place)?.map_err(failed)?, if_missing) {
        (Some(text), _) => text,
        (None, IfMissing::Refuse) => return Err(refuse(StoreErrorKind::NotFound, "nothing was ever stored there")),
        (None, IfMissing::Create) => {
            // Only erasure-coded pools append; what is to be said of this one is not how it takes data.
            if appends_only(&metadata).map_err(failed)? {
                return Err(cannot_make(Failure(libc::EOPNOTSUPP), place));
            }
            let data = open_data_pool(cluster, place, wanted.unwrap_or(&place.pool))?;
            make(&metadata, &data).map_err(|failure| cannot_make(failure, place))?;
            // Another process may have been first, with another data pool, or another version.
            read(&metadata).map_err(failed)?.unwrap_or_default()
        }
    };
    let data_pool = data_pool(&text).ok_or_else(|| {
        let why = "its object archvhost-store is of another version, or damaged: a damaged one is to be removed and, with the \
                   store's --data-pool, made again by `create`";
        refuse(StoreErrorKind::Unsupported, why)
    })?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != data_pool) {
        let why = format!("its data is in pool {data_pool}, not in {wanted}, and that cannot be changed");
        return Err(refuse(StoreErrorKind::Unsupported, &why));
    }
    let data = open_data_pool(cluster, place, &data_pool)?;
    Ok(Opened { metadata, data })
}

/// As [`read`]. Of all operations this one does not wait for an OSD as long as it takes: nobody waits for it yet who would not rather hear
/// why.
fn first_look(cluster: &Arc<Cluster>, place: &Place) -> Result<Result<Option<String>, Failure>, StoreError> {
    let failed = |failure: Failure| failure.at("open", format_args!("store {place}"));
    let metadata = cluster.pool(&place.pool, &place.namespace).map_err(failed)?;
    let (sender, answer) = mpsc::channel();
    let look = move || {
        let seen = read(&metadata);
        // Before whoever waits goes on, and may be the last to have the connection (blocking.rs).
        drop(metadata);
        let _too_late = sender.send(seen);
    };
    // Librados keeps what is under way until it is answered, and so does this thread.
    let thread = thread::Builder::new().name("first look".to_owned()).spawn(look);
    thread.map_err(|error| StoreError::from_io(error, "start a thread for", format_args!("store {place}")))?;
    answer.recv_timeout(FIRST_LOOK_MAX).map_err(|_| {
        let pool = &place.pool;
        let why = format!("no OSD of pool {pool} answered within 30 s; `ceph health detail` tells which are down");
        StoreError::from_io(io::Error::other(why), "open", format_args!("store {place}"))
            .with_kind(StoreErrorKind::Unavailable)
    })
}

/// The store's own object, if there is one.
fn read(metadata: &Pool) -> Result<Option<String>, Failure> {
    match metadata.start_of(STORE, STORE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(Failure(libc::ENOENT)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn text(data_pool: &str) -> String {
    format!("{FIRST_LINE}\ndata pool: {data_pool}\n{EXPLANATION}")
}

/// The data pool that the store's own object names, if the object is one that we know.
fn data_pool(text: &str) -> Option<String> {
    let mut lines = text.lines();
    let known = lines.next() == Some(FIRST_LINE);
    lines.next()?.strip_prefix("data pool: ").filter(|pool| known && !pool.is_empty()).map(str::to_owned)
}

fn make(metadata: &Pool, data: &Pool) -> Result<(), Failure> {
    let library = metadata.library();
    // Removing an entry that no name can be shows whether the pool has omaps at all.
    metadata.operate(NAMES, &WriteOp::new(library).create().remove_entries([c"-"].into_iter()))?;
    for digit in 0..VOLUME_SHARDS {
        metadata.operate(key::volumes(digit).as_c_str(), &WriteOp::new(library).create())?;
    }
    let content = Buffer::copied_from(text(data.name()).as_bytes());
    match metadata.operate(STORE, &WriteOp::new(library).create_exclusive().write_full(&content)) {
        Err(Failure(libc::EEXIST)) => Ok(()),
        other => other,
    }
}

fn cannot_make(failure: Failure, place: &Place) -> StoreError {
    let pool = &place.pool;
    match failure.0 {
        libc::EOPNOTSUPP => {
            let why = format_args!(
                "pool {pool}, which is erasure-coded (make the store in a replicated pool, with --data-pool {pool})"
            );
            failure.at("make a store in", why)
        }
        _ => failure.at("make", format_args!("store {place}")),
    }
}

fn open_data_pool(cluster: &Arc<Cluster>, place: &Place, name: &str) -> Result<Pool, StoreError> {
    let pool = match cluster.pool(name, &place.namespace) {
        Err(Failure(libc::ENOENT)) => {
            let target = format_args!("store {place} (there is no data pool {name})");
            return Err(StoreError::new(StoreErrorKind::NotFound, "open", target));
        }
        other => other.map_err(|failure| failure.at("open", format_args!("data pool {name}")))?,
    };
    if appends_only(&pool).map_err(|failure| failure.at("look at", format_args!("data pool {name}")))? {
        let why = format_args!("data pool {name} (`ceph osd pool set {name} allow_ec_overwrites true` lets them be)");
        return Err(StoreError::new(StoreErrorKind::Unsupported, "overwrite objects in", why));
    }
    Ok(pool)
}

#[allow(unsafe_code, reason = "a call into librados")]
fn appends_only(pool: &Pool) -> Result<bool, Failure> {
    let mut required = 0;
    // SAFETY: a pool's handle and a place for the answer.
    check(unsafe { (pool.library().ioctx_pool_requires_alignment2)(pool.handle(), &raw mut required) })?;
    Ok(required != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_own_object_names_its_data_pool() {
        assert_eq!(data_pool(&text("volumes.ec")).as_deref(), Some("volumes.ec"));
    }

    #[test]
    fn what_we_did_not_write_is_not_taken_for_it() {
        let other_version = text("volumes").replace("version 1", "version 2");
        for text in ["", "hello", "archvhost store, layout version 1\n", &other_version, &text("")] {
            assert_eq!(data_pool(text), None, "{text:?}");
        }
    }
}
