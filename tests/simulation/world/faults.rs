//! What may go wrong by itself, and how often: part of a seed's plan, changed while a run goes on.

/// Each number is "once in so many operations"; zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    pub read_fails: u64,
    /// Writes and zeroing of data objects; some of the sectors are written all the same.
    pub write_fails: u64,
    /// Creations of data objects.
    pub create_fails: u64,
    /// Creations and publications find no space.
    pub no_space: u64,
    /// Durable writes: journal records.
    pub journal_fails: u64,
    pub publish_fails: u64,
    pub sync_fails: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        read_fails: 0,
        write_fails: 0,
        create_fails: 0,
        no_space: 0,
        journal_fails: 0,
        publish_fails: 0,
        sync_fails: 0,
    };
}

/// What kind of store this is; fixed for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Ordinary operations take up to this many steps.
    pub delay_max: u64,
    /// Once in so many operations one stalls.
    pub stall_one_in: u64,
    pub stall_max: u64,
    /// How completed writes persist.
    pub persistence: PersistenceHabit,
    /// Larger publications find no space: this makes journals small, and checkpoints frequent.
    pub publish_bytes_max: usize,
    /// Broken on purpose, to see that the oracle notices: the lock of a dead process is free at once (against rule C5).
    pub lock_ignores_late_io: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersistenceHabit {
    /// Like RADOS: whatever completes is durable.
    AllDurable,
    /// Like files without O_DIRECT: each object needs its own sync.
    AllObject,
    /// Like files with O_DIRECT: overwrites reach the device's cache, anything else needs the object's sync.
    DeviceWherePossible,
    /// Either, at random, for overwrites.
    Mixed,
}
