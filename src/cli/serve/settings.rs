//! What the daemon is to do: options over configuration over defaults, checked once, here.

use super::ServeArgs;
use super::inherited::{self, Inherited};
use crate::cli::Global;
use crate::config::collection::{GC_INTERVAL_DEFAULT, GC_MEMORY_DEFAULT, GC_MEMORY_MIN, Interval, gc_spill_dir};
use crate::config::{AttachConfig, Config};
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::queues;
use crate::device::RequestTimeout;
use crate::device::options::POLL_DEFAULT;
use crate::export::socket::{SocketOwner, group};
use crate::export::{AttachRequest, Endpoint};
use crate::store::FreeLock;
use crate::store::open::{StoreOptions, implied_volume_size};
use crate::units::{ByteSize, SECTOR_BYTES, VolumeName, VolumeSize};
use crate::volume::lease::LeaseOptions;
use crate::volume::{Access, GRANULE_BYTES};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Enough for the map of a hot 32 TiB in objects of 4 MiB.
const MAP_CACHE_DEFAULT: ByteSize = ByteSize(256 << 20);

/// Least memory for map pages that makes sense.
const MAP_CACHE_MIN: ByteSize = ByteSize(1 << 20);

/// The volume that is made for a measurement where nothing says how large.
const SCRATCH_SIZE_DEFAULT: ByteSize = ByteSize(1 << 30);

#[derive(Debug)]
pub struct Settings {
    pub store: String,
    pub store_options: StoreOptions,
    pub soft_journal_dir: Option<PathBuf>,
    pub map_cache: ByteSize,
    pub lease: LeaseOptions,
    pub granule: ByteSize,
    pub poll_max: Duration,
    pub request_timeout: RequestTimeout,
    pub socket_owner: SocketOwner,
    pub gc_memory: ByteSize,
    pub gc_spill_dir: PathBuf,
    pub form: Form,
}

/// The two ways to be a daemon.
#[derive(Debug)]
pub enum Form {
    Host { control: Option<ControlSocket>, attach: Vec<AttachRequest>, gc_interval: Interval },
    OneVolume { request: AttachRequest, scratch_size: VolumeSize },
}

#[derive(Debug)]
pub enum ControlSocket {
    Path { path: PathBuf, owner: SocketOwner },
    Inherited(std::os::unix::net::UnixListener),
}

impl Settings {
    /// # Errors
    /// When something is missing, contradictory or out of range.
    pub fn merge(global: &Global, args: ServeArgs, config: Config) -> Result<Self, Failure> {
        let store = global.store.clone().or(config.store.clone()).ok_or_else(|| {
            usage("which store is to be served? give it with --store file:DIR, or as `store` in the configuration file")
        })?;
        let map_cache = args.map_cache.or(config.map_cache).unwrap_or(MAP_CACHE_DEFAULT);
        if map_cache < MAP_CACHE_MIN {
            return Err(usage(format!("the map cache must be at least {MAP_CACHE_MIN}, and {map_cache} is not")));
        }
        let granule = args.granule.unwrap_or(ByteSize(GRANULE_BYTES));
        if !granule.0.is_power_of_two() || granule.0 < SECTOR_BYTES {
            return Err(usage(format!("a granule is a power of two from {SECTOR_BYTES} on, and {granule} is not")));
        }
        let gc_memory = args.gc_memory.or(config.gc_memory).unwrap_or(GC_MEMORY_DEFAULT);
        if gc_memory < GC_MEMORY_MIN {
            return Err(usage(format!("a collection needs at least {GC_MEMORY_MIN}, and {gc_memory} is less")));
        }
        let request_timeout = args.request_timeout.map(RequestTimeout::from_seconds).transpose();
        let request_timeout = request_timeout.map_err(|error| usage(error.to_string()))?;
        let request_timeout = request_timeout.or(config.request_timeout).unwrap_or_default();
        let poll_us = args.poll_us.or(config.poll_us);
        let socket_owner = owner(args.socket_group.as_deref().or(config.socket_group.as_deref()))?;
        Ok(Self {
            store_options: StoreOptions {
                cache: global.cache.or(config.cache).map(Into::into).unwrap_or_default(),
                free_lock: config
                    .shared_store
                    .map(|shared| if shared { FreeLock::ProvesNothing } else { FreeLock::ProvesTheEnd }),
                rados: global.ceph.merge(&config),
                ..StoreOptions::default()
            },
            lease: lease(global, &config),
            soft_journal_dir: global.soft_journal_dir.clone().or(config.soft_journal_dir.clone()),
            map_cache,
            granule,
            poll_max: poll_us.map_or(POLL_DEFAULT, |micros| Duration::from_micros(micros.into())),
            request_timeout,
            socket_owner,
            gc_memory,
            gc_spill_dir: gc_spill_dir(args.gc_spill_dir.as_deref().or(config.gc_spill_dir.as_deref())),
            form: form(global, args, config, &store, socket_owner)?,
            store,
        })
    }
}

/// A host's own name, unless the configuration gives it another.
fn lease(global: &Global, config: &Config) -> LeaseOptions {
    let default = LeaseOptions::default();
    LeaseOptions {
        host_id: global.host_id.clone().or(config.host_id.clone()).unwrap_or(default.host_id),
        fence_command: config.fence_command.clone(),
        valid_for: default.valid_for,
    }
}

fn form(
    global: &Global,
    args: ServeArgs,
    config: Config,
    store: &str,
    socket_owner: SocketOwner,
) -> Result<Form, Failure> {
    match args.volume.clone() {
        Some(volume) => one_volume(args, volume, store, socket_owner),
        None => host(global, args, config, socket_owner),
    }
}

fn host(global: &Global, args: ServeArgs, config: Config, socket_owner: SocketOwner) -> Result<Form, Failure> {
    let owner = owner(args.control_group.as_deref().or(config.control_group.as_deref()))?;
    let control = match (inherited::from_supervisor()?, global.control.clone().or(config.control)) {
        (Some(Inherited::Listener(listener)), _) => Some(ControlSocket::Inherited(listener)),
        (Some(Inherited::Connection(_)), _) => return Err(usage("the supervisor must hand over a listening socket")),
        (None, Some(path)) => Some(ControlSocket::Path { path, owner }),
        (None, None) => None,
    };
    if control.is_none() && config.attach.is_empty() {
        return Err(usage("there is nothing to serve: give --control PATH, or --volume NAME with --socket-path PATH"));
    }
    let gc_interval = args.gc_interval.or(config.gc_interval).unwrap_or(GC_INTERVAL_DEFAULT);
    let attach = config.attach.into_iter().map(|attach| configured(attach, socket_owner));
    Ok(Form::Host { control, attach: attach.collect::<Result<_, _>>()?, gc_interval })
}

fn configured(attach: AttachConfig, owner: SocketOwner) -> Result<AttachRequest, Failure> {
    Ok(AttachRequest {
        endpoint: Endpoint::Path { path: absolute(&attach.socket)?, owner },
        volume: attach.volume,
        queues: queues(attach.queues)?,
        access: access(attach.read_only),
        request_timeout: attach.request_timeout,
    })
}

fn one_volume(args: ServeArgs, volume: VolumeName, store: &str, owner: SocketOwner) -> Result<Form, Failure> {
    let endpoint = match (args.socket_path, args.fd) {
        (Some(path), _) => Endpoint::Path { path: absolute(&path)?, owner },
        (None, Some(fd)) => inherited::from_number(fd)?.into(),
        (None, None) => inherited::from_supervisor()?.map(Endpoint::from).ok_or_else(|| {
            usage(format!("where is volume {volume} to be served? give --socket-path PATH or --fd N"))
        })?,
    };
    let implied = implied_volume_size(store).unwrap_or(SCRATCH_SIZE_DEFAULT);
    let scratch_size = args.size.map_or_else(|| VolumeSize::new(implied.0), Ok)?;
    let request = AttachRequest {
        volume,
        endpoint,
        queues: queues(args.queues)?,
        access: access(args.read_only),
        request_timeout: None,
    };
    Ok(Form::OneVolume { request, scratch_size })
}

fn access(read_only: bool) -> Access {
    if read_only { Access::ReadOnly } else { Access::ReadWrite }
}

fn owner(name: Option<&str>) -> Result<SocketOwner, Failure> {
    Ok(SocketOwner { group: name.map(group).transpose()? })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::because(FailureKind::Usage, "the socket's path is not a path", &error))
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, text)
}
