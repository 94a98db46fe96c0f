//! The keeper: one task per open volume that makes things durable, on a thread of its own.
//!
//! ```text
//!   rung ─► begin round ─► sync what is dirty ─► one journal record ─► still ours? ─► answer the flushes
//!      ▲                                             │ full                              │
//!      └──── checkpoint wanted? removals? ◄──────────┴── start a checkpoint ─────────────┘
//! ```
//! Rounds go on while a checkpoint runs: it switched to the next journal first. Two things are made one at a time whoever asks:
//! syncs of the dirty set (an async mutex) and journal appends (only rounds append). An error that leaves open what is durable
//! fails the volume; a lack of space at a checkpoint does not.

use super::capture::{Amendment, Granted};
use super::checkpoint::{self, CheckpointError};
use super::rounds::Work;
use super::{Port, Volume, VolumeError, VolumeErrorKind, absorb, unfenced};
use crate::clock;
use crate::map::format::header::{Header, HeaderState};
use crate::map::journal::{Fit, JournalWriter};
use crate::map::soft_journal::SoftJournal;
use crate::map::state::Pending;
use crate::map::tree::Extent;
use crate::store::io::Io;
use crate::store::{FreeLock, ObjectName, PublishMode, Room, StoreError};
use crate::task::Executor;
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use tokio::sync::{Mutex, Notify};

/// Objects removed at once before the keeper looks at flushes again.
const REMOVALS_PER_TURN: usize = 64;

/// What [`super::open`] hands to the keeper.
#[derive(Debug)]
pub struct KeeperSeed {
    /// As published: live, naming the two journals.
    pub header: Header,
    pub current: JournalWriter,
    pub next: JournalWriter,
    /// No higher number of a journal or segment is in use.
    pub number: u32,
    pub soft_journal_dir: PathBuf,
}

pub(super) struct Keeper {
    pub(super) volume: Arc<Volume>,
    pub(super) io: Io,
    /// As last published.
    pub(super) header: RefCell<Header>,
    pub(super) journals: RefCell<Journals>,
    executor: Executor,
    soft_journal_dir: PathBuf,
    /// Held while a sync of the dirty set runs.
    syncing: Mutex<()>,
    checkpointing: Cell<bool>,
    /// A cleaning failed: no other is tried while there are fewer bytes of segments than this.
    not_cleaned_below: Cell<u64>,
    checkpoint_ended: Notify,
}

/// The journals in use. After the switch, appends go to `next`.
pub(super) struct Journals {
    pub(super) current: Option<JournalWriter>,
    pub(super) next: Option<JournalWriter>,
    pub(super) switched: bool,
    /// Highest number used for a journal or segment of this generation.
    pub(super) number: u32,
}

impl Journals {
    /// A header made `next` current. An append to it may be under way; its writer then comes back as `current`.
    pub(super) fn rotate(&mut self, spare: Option<JournalWriter>) {
        self.current = self.next.take();
        self.next = spare;
        self.switched = false;
    }

    fn active(&mut self) -> &mut Option<JournalWriter> {
        if self.switched { &mut self.next } else { &mut self.current }
    }
}

/// Starts the keeper's thread. It ends after [`Volume::close`].
///
/// # Errors
/// When the store gives no channel or the system no thread.
pub(super) fn start_thread(volume: Arc<Volume>, seed: KeeperSeed) -> Result<JoinHandle<()>, VolumeError> {
    let name = volume.name.clone();
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let body = move || match volume.channel() {
        Ok(channel) => {
            let _death = DeathNotice(Arc::clone(&volume));
            let io = Io::new(channel);
            let executor = Executor::new(io.waker());
            spawn(&executor, Arc::clone(&volume), io.clone(), seed);
            let _ = ready.send(Ok(()));
            run_to_end(&volume, &io, &executor);
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    };
    let thread = thread::Builder::new().name(format!("keeper-{name}")).spawn(body).map_err(|error| {
        let error = StoreError::from_io(error, "start", "a keeper thread");
        VolumeError::from_store(error, format!("cannot open volume {name}"))
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(VolumeError::from_store(error, format!("cannot open volume {name}"))),
        Err(_) => Err(VolumeError::new(VolumeErrorKind::Failed, format!("the keeper of volume {name} died"))),
    }
}

/// Fails the volume if the thread panics: nobody may wait for a keeper that is dead.
struct DeathNotice(Arc<Volume>);

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = format!("the keeper of volume {} died: a defect, please report it", self.0.name);
            self.0.fail(VolumeError::new(VolumeErrorKind::Failed, text));
            self.0.end();
            self.0.watch.end();
        }
    }
}

fn run_to_end(volume: &Volume, io: &Io, executor: &Executor) {
    let mut raw = Vec::new();
    while executor.alive() != 0 {
        io.reap(&mut raw);
        if !executor.run_ready() {
            io.wait(volume.watch.ask_when_due());
        }
        io.kick();
    }
}

/// Puts the keeper's task on an executor whose thread owns `io`. It ends after the volume's close was asked for.
pub fn spawn(executor: &Executor, volume: Arc<Volume>, io: Io, seed: KeeperSeed) {
    let journals =
        Journals { current: Some(seed.current), next: Some(seed.next), switched: false, number: seed.number };
    if volume.watch.is_on() {
        executor.spawn(look_out(Arc::clone(&volume), io.clone()));
    }
    if seed.header.unfenced.is_some() {
        executor.spawn(unfenced::keep_copying(Port::with_io(&volume, io.clone())));
    }
    executor.spawn(absorb::keep_absorbing(Port::with_io(&volume, io.clone())));
    let keeper = Rc::new(Keeper {
        volume,
        io,
        header: RefCell::new(seed.header),
        journals: RefCell::new(journals),
        executor: executor.clone(),
        soft_journal_dir: seed.soft_journal_dir,
        syncing: Mutex::new(()),
        checkpointing: Cell::new(false),
        not_cleaned_below: Cell::new(0),
        checkpoint_ended: Notify::new(),
    });
    executor.spawn(async move { keeper.run().await });
}

/// Looks whether the lease is in force, whenever the watch asks for it.
async fn look_out(volume: Arc<Volume>, io: Io) {
    while volume.watch.asked().await {
        let began = clock::boottime_ns();
        let result = volume.look(&io).await;
        volume.watch.looked(began, result);
    }
}

impl Keeper {
    async fn run(self: Rc<Self>) {
        loop {
            self.volume.rounds.rung().await;
            while let More::Yes = self.turn().await {}
            if self.volume.rounds.is_closed() {
                self.volume.watch.end();
                return;
            }
        }
    }

    async fn turn(self: &Rc<Self>) -> More {
        let Work { flushes, commit, close } = self.volume.rounds.begin();
        // Without space, a round that nobody asked for would only be tried again and again; on a failed volume any.
        let hopeful = !self.volume.out_of_space.load(Ordering::Acquire);
        let wanted = commit || (hopeful && self.volume.map.wants_commit());
        let committing = wanted && self.volume.failure().is_none();
        let busy = !flushes.is_empty() || committing;
        let result = if busy { self.round().await } else { Ok(()) };
        if close.is_none() {
            self.volume.rounds.end();
        }
        for answer in flushes {
            // Nobody waits any more when the request's port is gone.
            let _ = answer.send(result.clone());
        }
        self.grant_a_wish();
        if let Some(extent) = self.wanted_checkpoint() {
            self.start_checkpoint(extent);
        }
        let removed = self.remove_dropped().await;
        if let Some(answer) = close {
            let result = self.close().await;
            self.volume.end();
            let _ = answer.send(result);
            return More::No;
        }
        if busy || removed { More::Yes } else { More::No }
    }

    /// Makes every write durable that completed before this was called.
    async fn round(self: &Rc<Self>) -> Result<(), VolumeError> {
        self.volume.check_writable()?;
        // Taken before the sync: all that these changes name was marked dirty before.
        let pending = self.volume.map.take_pending();
        let written = self.volume.dirty.begin_look();
        let result = self.round_and_look(pending).await;
        if result.is_err() && written {
            self.volume.dirty.not_looked();
        }
        result
    }

    async fn round_and_look(self: &Rc<Self>, pending: Pending) -> Result<(), VolumeError> {
        self.sync().await?;
        self.commit(pending).await?;
        self.volume.check_not_superseded(&self.io).await
    }

    /// Syncs what is dirty. Ends after any sync that was under way, so what is clean now is durable.
    pub(super) async fn sync(&self) -> Result<(), VolumeError> {
        let _one_at_a_time = self.syncing.lock().await;
        self.volume.check_writable()?;
        let before = self.volume.dirty.flushes();
        let Some(objects) = self.volume.dirty.begin_sync() else { return Ok(()) };
        // After a failure the set stays "syncing", so that it never looks clean again.
        self.io.sync(objects).await.map_err(|error| self.fail(error, "could not be made durable"))?;
        self.volume.after_flushes_before(before).await?;
        self.volume.dirty.end_sync();
        Ok(())
    }

    /// Makes the changes durable: in a record, or, when no journal has room for them, in pages.
    async fn commit(self: &Rc<Self>, pending: Pending) -> Result<(), VolumeError> {
        let through = pending.through;
        let mut tried = false;
        loop {
            if pending.changes.is_empty() || self.header.borrow().change_through >= through {
                self.volume.map.committed(through);
                return Ok(());
            }
            let active = self.journals.borrow_mut().active().take().expect("only rounds append, one at a time");
            if active.fit(&pending) == Fit::Fits {
                return self.append(active, pending).await;
            }
            *self.journals.borrow_mut().active() = Some(active);
            if !self.checkpointing.get() {
                if tried && self.volume.out_of_space.load(Ordering::Acquire) {
                    self.volume.map.put_back(pending);
                    return Err(self.volume.no_space());
                }
                self.start_checkpoint(Extent::Changed);
                tried = true;
            }
            self.checkpoint_ended.notified().await;
            self.volume.check_writable()?;
        }
    }

    async fn append(&self, mut journal: JournalWriter, pending: Pending) -> Result<(), VolumeError> {
        let through = pending.through;
        let result = journal.append(&self.io, pending).await;
        *self.journals.borrow_mut().active() = Some(journal);
        result.map_err(|error| self.fail(error, "could not append to its journal"))?;
        self.volume.map.committed(through);
        Ok(())
    }

    pub(super) fn fail(&self, error: StoreError, what: &str) -> VolumeError {
        self.volume.fail_store(error, what)
    }

    // ---- checkpoints

    fn wanted_checkpoint(&self) -> Option<Extent> {
        if self.volume.failure().is_some() || self.checkpointing.get() {
            return None;
        }
        let mut journals = self.journals.borrow_mut();
        let half_full = journals.active().as_ref().is_some_and(|journal| journal.quarters_used() >= 2);
        let owed = journals.switched;
        drop(journals);
        match half_full || owed || self.volume.map.wants_checkpoint() {
            true => Some(Extent::Changed),
            false => self.wants_cleaning().then_some(Extent::Whole),
        }
    }

    /// Not where space lacks: it would take more before it frees any.
    fn wants_cleaning(&self) -> bool {
        let header = self.header.borrow();
        let hopeful = header.segment_bytes >= self.not_cleaned_below.get();
        hopeful && checkpoint::is_mostly_dead(&header) && !self.volume.out_of_space.load(Ordering::Acquire)
    }

    fn start_checkpoint(self: &Rc<Self>, extent: Extent) {
        self.checkpointing.set(true);
        self.journals.borrow_mut().switched = true;
        let frozen = self.volume.map.freeze();
        let keeper = Rc::clone(self);
        self.executor.spawn(async move {
            let result = checkpoint::write(&keeper, frozen, HeaderState::Live, Amendment::Checkpoint, extent).await;
            keeper.checkpointed(result.map(|()| Granted::Checkpoint));
        });
    }

    /// Starts the next checkpoint that somebody waits for, when none is under way. Only called where no append is under way:
    /// it switches journals.
    fn grant_a_wish(self: &Rc<Self>) {
        if self.checkpointing.get() {
            return;
        }
        let Some(wish) = self.volume.rounds.next_wish() else { return };
        self.checkpointing.set(true);
        self.journals.borrow_mut().switched = true;
        let keeper = Rc::clone(self);
        self.executor.spawn(async move {
            let result = wish.grant(&keeper).await;
            keeper.checkpointed(result);
        });
    }

    fn checkpointed(&self, result: Result<Granted, CheckpointError>) {
        let volume = &self.volume;
        match result {
            Ok(Granted::Checkpoint) => volume.out_of_space.store(false, Ordering::Release),
            Ok(Granted::Nothing) => {}
            Err(CheckpointError::NoSpace(error)) => {
                tracing::warn!(volume = %volume.name, %error, "no space for a checkpoint; it will be tried again");
                volume.map.unfreeze();
                volume.out_of_space.store(true, Ordering::Release);
            }
            Err(CheckpointError::NotCleaned(error)) => {
                let again = self.header.borrow().segment_bytes.saturating_mul(2);
                self.not_cleaned_below.set(again);
                tracing::warn!(volume = %volume.name, error, "the map's outdated pages stay; tried again when they are twice as many");
                volume.map.unfreeze();
            }
            // The volume failed, and the log says why.
            Err(CheckpointError::Failed(_)) => volume.map.unfreeze(),
        }
        self.checkpointing.set(false);
        volume.checkpoints.fetch_add(1, Ordering::AcqRel);
        volume.map.wake_waiting();
        self.checkpoint_ended.notify_waiters();
        let hopeful = self.wanted_checkpoint().is_some() && !volume.out_of_space.load(Ordering::Acquire);
        volume.rounds.ring_if(hopeful || volume.rounds.has_wishes());
    }

    // ---- removal and close

    /// Removes some objects that no durable map names. What cannot be removed is left for collection.
    async fn remove_dropped(&self) -> bool {
        if self.volume.failure().is_some() {
            return false;
        }
        let objects = self.volume.map.take_removable(REMOVALS_PER_TURN);
        let any = !objects.is_empty();
        for result in join_all(objects.into_iter().map(|object| self.io.remove(object))).await {
            if let Err(error) = result {
                tracing::warn!(volume = %self.volume.name, %error, "an unused object stays for collection");
            }
        }
        if any {
            self.volume.map.wake_waiting();
        }
        any
    }

    async fn close(self: &Rc<Self>) -> Result<(), VolumeError> {
        self.volume.unfenced.stop().await;
        self.volume.full_blocks.stop().await;
        while self.checkpointing.get() {
            self.checkpoint_ended.notified().await;
        }
        self.round().await?;
        while self.remove_dropped().await {}
        self.journals.borrow_mut().switched = true;
        let frozen = self.volume.map.freeze();
        let result = checkpoint::write(self, frozen, HeaderState::Closed, Amendment::Checkpoint, Extent::Changed).await;
        if let Err(error) = result {
            self.volume.map.unfreeze();
            return self.close_unwritten(&error);
        }
        let generation = self.header.borrow().generation;
        if let Err(error) = SoftJournal::remove_through(&self.soft_journal_dir, self.volume.id, generation) {
            tracing::warn!(volume = %self.volume.name, %error, "cannot remove the soft journal");
        }
        Ok(())
    }

    /// All changes are in the journals, where the next opening finds them: where a free lock proves that nothing more is written, that is
    /// as good as closed.
    fn close_unwritten(&self, error: &CheckpointError) -> Result<(), VolumeError> {
        let Volume { name, store, .. } = &*self.volume;
        let text = error.to_volume_error(name);
        match (error, store.info().free_lock) {
            (CheckpointError::NoSpace(_), FreeLock::ProvesTheEnd) => {
                tracing::warn!(error = %text, "closed with its last changes in its journals; the next opening goes on from them");
                Ok(())
            }
            _ => Err(text),
        }
    }

    pub(super) async fn publish_header(&self, header: &Header) -> Result<(), StoreError> {
        let object = ObjectName::Header { volume: self.volume.id, generation: header.generation };
        // The last one takes the place of one as large, and lets the volume be removed.
        let room = if header.state == HeaderState::Closed { Room::Reserve } else { Room::Ordinary };
        self.io.publish_in(room, object, &header.encode(), PublishMode::Replace).await
    }
}

enum More {
    Yes,
    No,
}
