//! Whether those who have a lock are gone, and what is done about it.
//!
//! ```text
//!   cookie: a process of this host and boot, not there any more ─────────────► gone
//!   answers a notification, or is of this process ─────────────────────────────► lives
//!   does not answer, but its watch counts ─► wait: stopped, or slow, or dead for less than 10 s
//!   has no watch, at two looks, LOOKS_APART ─────────────────────────────────► gone
//! ```
//! Two looks, because a holder that lives and lost its watch, to a cluster that was out of reach for a while, learns of it within 5 s,
//! and watches anew.

use super::calls::Place;
use super::cookie;
use super::reply::{Answers, Locker, Lockers};
use super::volume_text;
use crate::store::rados::error::Failure;
use crate::store::{StoreError, StoreErrorKind, WHOLE_STORE};
use crate::units::VolumeId;
use std::io;
use std::iter;
use std::thread;
use std::time::{Duration, Instant};

/// How long answers are waited for at a look: most come at once, and a watch may end meanwhile.
const ANSWERS_MAX: Duration = Duration::from_secs(2);

/// The library looks after its watches every 5 s (`objecter_tick_interval`).
const LOOKS_APART: Duration = Duration::from_secs(6);

/// Between two looks at who may still come back: the first usually lasts as long as answers are waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// What a process that is seen to be gone has left in the kernel's hands is lost or delivered well before that.
const SEEN_GONE_EXPIRES: Duration = Duration::from_secs(3600);

/// Longer than a process stays stopped, or a virtual machine suspended. Then the operations that it still holds would be carried out.
const OUT_OF_SIGHT_EXPIRES: Duration = Duration::from_secs(10 * 365 * 86400);

/// What is done for a lock.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    /// Whoever is gone is cut off, and waited for until it is seen.
    TakesOver { until: Instant },
    /// Nobody is cut off but a process that is seen to be gone.
    PassesBy,
}

impl Reach {
    fn waits(self) -> bool {
        match self {
            Self::TakesOver { until } => Instant::now() < until,
            Self::PassesBy => false,
        }
    }

    fn takes_from(self, lockers: &Lockers) -> bool {
        match self {
            Self::TakesOver { .. } => true,
            Self::PassesBy => unseen(lockers).next().is_none(),
        }
    }
}

/// Returns when a lock that was refused is worth another attempt.
///
/// # Errors
/// [`StoreErrorKind::Held`] or [`StoreErrorKind::BeingRead`] when somebody lives who has it, or is not known to be gone in time, or may
/// not be cut off.
pub(super) fn make_way(place: &Place, volume: VolumeId, reach: Reach) -> Result<(), StoreError> {
    let failed = |failure: Failure| failure.at("lock", volume_text(volume));
    let mut unwatched = None;
    loop {
        let lockers = place.lockers().map_err(failed)?;
        if !reach.takes_from(&lockers) {
            return Err(refused(&lockers, volume));
        }
        match look(place, &lockers).map_err(failed)? {
            Standing::Gone => return clear(place, volume, &lockers),
            Standing::Unwatched if unwatched.as_ref() == Some(&lockers) => {
                return clear(place, volume, &lockers);
            }
            Standing::Unwatched => {
                unwatched = Some(lockers);
                thread::sleep(LOOKS_APART);
            }
            Standing::Silent if reach.waits() => {
                unwatched = None;
                thread::sleep(PAUSE);
            }
            Standing::Silent | Standing::Lives => return Err(refused(&lockers, volume)),
        }
    }
}

/// What is known of the one locker of whom the least good is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Gone,
    Unwatched,
    Silent,
    Lives,
}

/// The best standing of any locker.
fn look(place: &Place, lockers: &Lockers) -> Result<Standing, Failure> {
    if unseen(lockers).next().is_none() {
        return Ok(Standing::Gone);
    }
    let answers = place.notify(ANSWERS_MAX)?;
    let standings = unseen(lockers).map(|locker| standing(locker, &answers, &place.client()));
    Ok(standings.max().unwrap_or(Standing::Gone))
}

/// Those that are not seen to be gone.
fn unseen(lockers: &Lockers) -> impl Iterator<Item = &Locker> {
    lockers.all.iter().filter(|locker| !cookie::is_seen_gone(&locker.cookie))
}

/// What this process has it gives back itself, whatever became of its watch meanwhile.
fn standing(locker: &Locker, answers: &Answers, ours: &str) -> Standing {
    if locker.client == ours || answers.given.iter().any(|answer| answer == locker.cookie.as_bytes()) {
        return Standing::Lives;
    }
    let missing = answers.missing.iter().any(|client| locker.client == format!("client.{client}"));
    if missing { Standing::Silent } else { Standing::Unwatched }
}

/// Takes the lock from all of them, who are gone. Who is not in the list any more has ended in order, watch and all, and is let alone.
fn clear(place: &Place, volume: VolumeId, lockers: &Lockers) -> Result<(), StoreError> {
    let failed = |failure: Failure| failure.at("lock", volume_text(volume));
    let present = place.lockers().map_err(failed)?;
    for locker in lockers.all.iter().filter(|locker| present.all.contains(locker)) {
        // Whoever works on the whole store may be late, and does no harm by it.
        if volume != WHOLE_STORE {
            fence(place, volume, locker).map_err(|failure| cannot_fence(failure, volume, locker))?;
        }
        let address = &locker.address;
        tracing::info!(%volume, client = locker.client, address, "took the lock from a holder that is gone");
        place.break_lock(locker).map_err(failed)?;
    }
    Ok(())
}

/// Cuts off those who have the lock for themselves and do not answer. Whether nothing of any of them can still be written.
///
/// # Errors
/// What the cluster reports; that it may not be done is no error.
pub(super) fn cut_off(place: &Place, volume: VolumeId, lockers: &Lockers) -> Result<bool, Failure> {
    if !lockers.exclusive || lockers.all.is_empty() {
        return Ok(true);
    }
    let answers = place.notify(ANSWERS_MAX)?;
    let present = place.lockers()?;
    let mut all = true;
    for locker in lockers.all.iter().filter(|locker| present.all.contains(locker)) {
        let lives = standing(locker, &answers, &place.client()) == Standing::Lives;
        all &= !lives && fence(place, volume, locker).is_ok();
    }
    Ok(all)
}

fn fence(place: &Place, volume: VolumeId, locker: &Locker) -> Result<(), Failure> {
    let seen_gone = cookie::is_seen_gone(&locker.cookie);
    let expires = if seen_gone { SEEN_GONE_EXPIRES } else { OUT_OF_SIGHT_EXPIRES };
    for address in iter::once(locker.address.as_str()).chain(cookie::other_addresses(&locker.cookie)) {
        place.blocklist(address, expires).inspect_err(|Failure(errno)| {
            tracing::warn!(
                %volume, address, errno,
                "cannot blocklist the last holder of a volume: give this user the monitor capability `profile rbd`"
            );
        })?;
        tracing::warn!(%volume, address, "blocklisted the last holder of a volume");
    }
    Ok(())
}

fn cannot_fence(failure: Failure, volume: VolumeId, locker: &Locker) -> StoreError {
    let Failure(errno) = failure;
    let reason = io::Error::from_raw_os_error(errno);
    let text = format!("its holder is gone, and {} cannot be blocklisted ({reason})", locker.address);
    StoreError::from_io(io::Error::other(text), "lock", volume_text(volume)).with_kind(StoreErrorKind::Held)
}

fn refused(lockers: &Lockers, volume: VolumeId) -> StoreError {
    let kind = if lockers.exclusive { StoreErrorKind::Held } else { StoreErrorKind::BeingRead };
    StoreError::new(kind, "lock", volume_text(volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locker(client: &str, cookie: &str) -> Locker {
        Locker { client: client.into(), cookie: cookie.into(), address: String::new() }
    }

    #[test]
    fn a_locker_lives_if_it_answers_and_counts_for_gone_only_without_a_watch() {
        let answers = Answers { given: vec![b"a".to_vec()], missing: vec![2] };
        let standing = |client, cookie| standing(&locker(client, cookie), &answers, "client.9");
        assert_eq!(standing("client.1", "a"), Standing::Lives);
        assert_eq!(standing("client.2", "b"), Standing::Silent);
        assert_eq!(standing("client.22", "c"), Standing::Unwatched);
        assert_eq!(standing("client.1", "d"), Standing::Unwatched, "another lock of one that lives");
        assert_eq!(standing("client.9", "e"), Standing::Lives, "of this process, watched or not");
    }
}
