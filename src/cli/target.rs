//! Where a verb is done: by the daemon that answers on the control socket, or here, on the store.

use super::Global;
use crate::admin::job::Job;
use crate::config::soft_journal;
use crate::control::client::{Client, ConnectError};
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods;
use crate::control::protocol::{
    CreateParams, ExportView, ImportParams, ImportView, ListEntryView, NameParams, VolumeView,
};
use crate::daemon::Daemon;
use crate::device::DeviceOptions;
use crate::export::ExportOptions;
use crate::store::open::{IfMissing, StoreOptions, open};
use crate::volume::{Access, GRANULE_BYTES, OpenOptions};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Memory for map pages of a volume that a verb opens itself.
const VERB_CACHE_BYTES: u64 = 64 << 20;

pub enum Target {
    Remote(Box<Client>),
    Local(Box<Daemon>),
}

/// What a verb does to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Looks at names and headers, or removes; a store that is not there is a mistake.
    Metadata,
    /// Makes a volume, and the store if there is none yet.
    NewVolume,
    /// Reads a volume's content, for which a soft journal directory must be there.
    Content,
    /// Makes a volume with content.
    NewContent,
}

impl Reach {
    fn if_missing(self) -> IfMissing {
        match self {
            Self::Metadata | Self::Content => IfMissing::Refuse,
            Self::NewVolume | Self::NewContent => IfMissing::Create,
        }
    }

    fn opens_volumes(self) -> bool {
        match self {
            Self::Metadata | Self::NewVolume => false,
            Self::Content | Self::NewContent => true,
        }
    }
}

impl Target {
    /// The daemon if one answers, the store otherwise.
    ///
    /// # Errors
    /// When neither is given, or neither works.
    pub fn choose(global: &Global, reach: Reach) -> Result<Self, Failure> {
        match (&global.control, &global.store) {
            (None, None) => Err(nothing_given()),
            (None, Some(store)) => Self::local(global, store, reach),
            (Some(control), store) => match (Client::connect(control), store) {
                (Ok(client), store) => {
                    store.as_ref().map_or(Ok(()), |store| same_store(&client, store, control))?;
                    Ok(Self::Remote(Box::new(client)))
                }
                (Err(ConnectError::Failure(failure)), _) => Err(failure),
                (Err(ConnectError::NobodyListens), Some(store)) => Self::local(global, store, reach),
                (Err(ConnectError::NobodyListens), None) => Err(no_daemon(control)),
            },
        }
    }

    fn local(global: &Global, url: &str, reach: Reach) -> Result<Self, Failure> {
        let cache = global.cache.map(Into::into).unwrap_or_default();
        let store = open(url, &StoreOptions { cache, if_missing: reach.if_missing(), ..StoreOptions::default() })?;
        let soft_journal_dir = if reach.opens_volumes() {
            soft_journal::prepare(global.soft_journal_dir.as_deref())?
        } else {
            soft_journal::directory(global.soft_journal_dir.as_deref())
        };
        let open = OpenOptions {
            access: Access::ReadWrite,
            soft_journal_dir,
            cache_bytes: VERB_CACHE_BYTES,
            granule_bytes: GRANULE_BYTES,
        };
        let options = ExportOptions { open, poll_max: DeviceOptions::default().poll_max };
        Ok(Self::Local(Box::new(Daemon::new(store, options))))
    }

    /// # Errors
    /// See [`methods::create`].
    pub fn create(&mut self, params: CreateParams) -> Result<VolumeView, Failure> {
        match self {
            Self::Remote(client) => client.call("create", &params),
            Self::Local(daemon) => methods::create(daemon, params),
        }
    }

    /// # Errors
    /// See [`methods::list`].
    pub fn list(&mut self) -> Result<Vec<ListEntryView>, Failure> {
        match self {
            Self::Remote(client) => client.call("list", &()),
            Self::Local(daemon) => methods::list(daemon),
        }
    }

    /// # Errors
    /// See [`methods::info`].
    pub fn info(&mut self, params: NameParams) -> Result<VolumeView, Failure> {
        match self {
            Self::Remote(client) => client.call("info", &params),
            Self::Local(daemon) => methods::info(daemon, params),
        }
    }

    /// # Errors
    /// See [`methods::remove`].
    pub fn remove(&mut self, params: NameParams, job: &Job) -> Result<NameParams, Failure> {
        match self {
            Self::Remote(client) => client.call_job("remove", &params, None, job),
            Self::Local(daemon) => methods::remove(daemon, params, job),
        }
    }

    /// # Errors
    /// See [`methods::import`].
    pub fn import(&mut self, params: ImportParams, image: File, job: &Job) -> Result<ImportView, Failure> {
        match self {
            Self::Remote(client) => client.call_job("import", &params, Some(image.as_fd()), job),
            Self::Local(daemon) => methods::import(daemon, params, image, job),
        }
    }

    /// # Errors
    /// See [`methods::export`].
    pub fn export(&mut self, params: NameParams, target: File, job: &Job) -> Result<ExportView, Failure> {
        match self {
            Self::Remote(client) => client.call_job("export", &params, Some(target.as_fd()), job),
            Self::Local(daemon) => methods::export(daemon, params, target, job),
        }
    }
}

/// The daemon, for verbs that only a daemon can do.
///
/// # Errors
/// When none is given, or none answers.
pub fn daemon(global: &Global) -> Result<Client, Failure> {
    let missing = || Failure::new(FailureKind::Usage, "which daemon? give its control socket with --control PATH");
    let control = global.control.as_ref().ok_or_else(missing)?;
    let client = Client::connect(control).map_err(|error| match error {
        ConnectError::NobodyListens => no_daemon(control),
        ConnectError::Failure(failure) => failure,
    })?;
    global.store.as_ref().map_or(Ok(()), |store| same_store(&client, store, control))?;
    Ok(client)
}

fn nothing_given() -> Failure {
    let text = "which store? give the daemon's control socket with --control PATH, or a store with --store file:DIR";
    Failure::new(FailureKind::Usage, text)
}

fn no_daemon(control: &Path) -> Failure {
    let path = control.display();
    let text = format!(
        "no daemon listens on {path}: start one with `archvhost --store URL --control {path} serve`, \
         or give --store to work without one"
    );
    Failure::new(FailureKind::Unreachable, text)
}

/// Two stores may have volumes of the same name; which one is meant must not be guessed.
fn same_store(client: &Client, given: &str, control: &Path) -> Result<(), Failure> {
    let served = &client.server().store;
    if canonical(served) == canonical(given) {
        return Ok(());
    }
    let text =
        format!("the daemon on {} serves the store {served}, not {given}: give one of the two", control.display());
    Err(Failure::new(FailureKind::Usage, text))
}

fn canonical(url: &str) -> String {
    let directory = url.strip_prefix("file:").and_then(|directory| std::fs::canonicalize(directory).ok());
    directory.map_or_else(|| url.to_owned(), |directory| format!("file:{}", directory.display()))
}
