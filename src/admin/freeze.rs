//! Freezing a guest's file systems around a snapshot, through the QEMU guest agent.
//!
//! ```text
//!   connect ─► sync ─► frozen already? ─► freeze ─► Frozen ─► still frozen? ─► thaw, as many as were frozen?
//!                │            │ yes: refuse  │ no answer, or an error     │ no        │ no
//!                ▼            ▼              ▼                            ▼           ▼
//!              nothing was changed        thaw                    thaw; the snapshot is only crash-consistent
//! ```
//! Whatever happens between, the guest is thawed: by [`Frozen::thaw`], or by dropping. A guest that somebody else froze is left
//! to whom froze it. Every wait has an end ([`Patience`]), so a stuck guest never keeps the daemon.
//!
//! That the agent was told to freeze is not enough: Windows lets go after ten seconds, and somebody inside the guest can
//! thaw. So the agent is asked again before the thaw, and the thaw must find as many file systems as were frozen.

mod agent;

use agent::Agent;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What a snapshot can be relied on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// As after a power cut: every write that was flushed, and no write without those before it.
    Crash,
    /// The guest's file systems were frozen: as after an orderly unmount.
    Frozen,
}

#[derive(Debug, thiserror::Error)]
#[error("the guest agent at {}: {problem}", .socket.display())]
pub struct FreezeError {
    pub socket: PathBuf,
    pub problem: String,
}

/// How long the agent is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For an answer that needs no work.
    pub answer: Duration,
    /// For freezing, which writes out what the guest has cached; also for thawing.
    pub freeze: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), freeze: Duration::from_secs(20) }
    }
}

/// File systems that are frozen until this is thawed or dropped.
#[derive(Debug)]
pub struct Frozen {
    agent: Agent,
    patience: Patience,
    /// File systems; `None` until the agent has said how many.
    count: Option<u64>,
    thawed: bool,
}

impl Frozen {
    /// Freezes all file systems of the guest.
    ///
    /// # Errors
    /// When the agent does not answer in time or refuses; the guest is thawed then.
    pub fn freeze(socket: &Path) -> Result<Self, FreezeError> {
        Self::freeze_within(socket, Patience::default())
    }

    /// As [`Frozen::freeze`], with another patience.
    ///
    /// # Errors
    /// As [`Frozen::freeze`].
    pub fn freeze_within(socket: &Path, patience: Patience) -> Result<Self, FreezeError> {
        let failed = |problem| FreezeError { socket: socket.to_owned(), problem };
        let mut agent = Agent::connect(socket, patience.answer).map_err(failed)?;
        if agent.is_frozen(patience.answer).map_err(failed)? {
            return Err(failed("the guest's file systems are frozen already, by somebody else".to_owned()));
        }
        // From here on the guest may be frozen, whatever is answered.
        let mut frozen = Self { agent, patience, count: None, thawed: false };
        match frozen.agent.freeze(patience.freeze).map_err(failed)? {
            0 => Err(failed("the guest has no file system that can be frozen".to_owned())),
            count => {
                frozen.count = Some(count);
                Ok(frozen)
            }
        }
    }

    /// Freezes several guests side by side, so that none stays frozen for long: all, or none.
    ///
    /// # Errors
    /// As [`Frozen::freeze`], of the first that fails; all others are thawed then.
    pub fn freeze_all(sockets: &[PathBuf]) -> Result<Vec<Self>, FreezeError> {
        let one = |socket: &PathBuf| Self::freeze(socket);
        side_by_side(sockets.iter().map(|socket| move || one(socket))).into_iter().collect()
    }

    /// # Errors
    /// When the agent does not say that it thawed, or had thawed already: the snapshot is only crash-consistent then.
    pub fn thaw(mut self) -> Result<(), FreezeError> {
        let still_frozen = self.agent.is_frozen(self.patience.answer);
        // In any case.
        let thawed = self.thaw_now();
        let problem = match (still_frozen, thawed) {
            (Err(problem), _) | (_, Err(problem)) => problem,
            (Ok(true), Ok(count)) if Some(count) == self.count => return Ok(()),
            (Ok(_), Ok(_)) => "the guest had thawed its file systems before it was told to".to_owned(),
        };
        Err(FreezeError { socket: self.agent.socket.clone(), problem })
    }

    /// Thaws several guests side by side.
    ///
    /// # Errors
    /// As [`Frozen::thaw`], of the first that fails; all were tried.
    pub fn thaw_all(frozen: Vec<Self>) -> Result<(), FreezeError> {
        side_by_side(frozen.into_iter().map(|frozen| move || frozen.thaw())).into_iter().collect()
    }

    fn thaw_now(&mut self) -> Result<u64, String> {
        let Patience { answer, freeze } = self.patience;
        let thawed = self.agent.thaw(freeze).or_else(|problem| {
            // The connection may be all that broke. QEMU takes the next client when the last has gone.
            self.agent.hang_up();
            let mut agent = Agent::connect(&self.agent.socket, answer).map_err(|_| problem)?;
            agent.thaw(freeze)
        });
        self.thawed = true;
        thawed
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.thawed {
            return;
        }
        if let Err(problem) = self.thaw_now() {
            let socket = self.agent.socket.display();
            tracing::error!(%socket, problem, "cannot tell whether the guest's file systems are thawed");
        }
    }
}

/// Each on a thread of its own. Results in order.
fn side_by_side<T: Send>(works: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = works.map(|work| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("the work does not panic")).collect()
    })
}

#[cfg(test)]
mod tests;
