//! Where a verb is done: by the daemon that answers on the control socket, or here, on the store.

use super::Global;
use crate::admin::job::Job;
use crate::config::Config;
use crate::config::collection::{GC_MEMORY_DEFAULT, gc_spill_dir};
use crate::config::soft_journal;
use crate::control::client::{Client, ConnectError};
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::{Call, Context, Method, run};
use crate::control::protocol::ErrorObject;
use crate::daemon::{Daemon, DaemonOptions};
use crate::device::DeviceOptions;
use crate::export::ExportOptions;
use crate::export::socket::SocketOwner;
use crate::store::open::{IfMissing, StoreOptions, open};
use crate::volume::lease::LeaseOptions;
use crate::volume::{Access, GRANULE_BYTES, OpenOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Memory for map pages of a volume that a verb opens itself.
const VERB_CACHE_BYTES: u64 = 64 << 20;

pub enum Target {
    Remote(Box<Client>),
    Local(Box<Context>),
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
        let rados = global.ceph.merge(&Config::default());
        let if_missing = reach.if_missing();
        let store = open(url, &StoreOptions { cache, if_missing, rados, ..StoreOptions::default() })?;
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
            lease: lease(global),
        };
        let options = DaemonOptions {
            export: ExportOptions {
                open,
                poll_max: DeviceOptions::default().poll_max,
                request_timeout: DeviceOptions::default().request_timeout,
            },
            collect_memory_bytes: GC_MEMORY_DEFAULT.0,
            collect_spill_dir: gc_spill_dir(None),
        };
        let daemon = Daemon::new(store, options);
        Ok(Self::Local(Box::new(Context { daemon, socket_owner: SocketOwner { group: None } })))
    }

    /// Does what the method says, there or here, and returns what it answers. The job shows the progress of methods that
    /// take long, and cancels them.
    ///
    /// # Errors
    /// What the daemon or the store says.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        params: &impl Serialize,
        descriptor: Option<File>,
        job: &Job,
    ) -> Result<T, Failure> {
        match self {
            Self::Remote(client) => client.call_job(method.name(), params, descriptor.as_ref().map(AsFd::as_fd), job),
            Self::Local(context) => {
                let params = serde_json::to_value(params).map_err(|error| own_fault(&error))?;
                let call = Call { method, params, descriptor: descriptor.map(OwnedFd::from) };
                let answer = run(context, call, job).map_err(ErrorObject::into_failure)?;
                serde_json::from_value(answer).map_err(|error| own_fault(&error))
            }
        }
    }
}

fn lease(global: &Global) -> LeaseOptions {
    let default = LeaseOptions::default();
    LeaseOptions { host_id: global.host_id.clone().unwrap_or(default.host_id), ..default }
}

/// The same program made the message and read it.
fn own_fault(error: &serde_json::Error) -> Failure {
    Failure::because(FailureKind::Failed, "a fault of archvhost's own", error)
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
