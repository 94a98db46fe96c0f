//! From a request to the daemon's verb and back: checks parameters, calls, converts the result.
//!
//! Every function here blocks and is called on a thread made for that.

use super::failure::{Failure, FailureKind};
use super::protocol::{
    AttachParams, AttachmentView, CreateParams, ErrorObject, ExportView, HelloParams, HelloResult, ImportParams,
    ImportView, ListEntryView, NameParams, PROTOCOL, StatusView, StoreView, VolumeView, code,
};
use crate::admin::create::CreateRequest;
use crate::admin::import::ImportRequest;
use crate::admin::job::Job;
use crate::daemon::Daemon;
use crate::device::{QUEUES_DEFAULT, QUEUES_MAX};
use crate::export::socket::SocketOwner;
use crate::export::{AttachRequest, Endpoint};
use crate::store::open::implied_volume_size;
use crate::units::{ObjectSize, VolumeName, VolumeSize};
use crate::volume::Access;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A request that is understood as far as its method goes.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub params: Value,
    pub descriptor: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Hello,
    Create,
    List,
    Info,
    Remove,
    Import,
    Export,
    Attach,
    Detach,
    Attachments,
    Status,
}

impl Method {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "hello" => Self::Hello,
            "create" => Self::Create,
            "list" => Self::List,
            "info" => Self::Info,
            "remove" => Self::Remove,
            "import" => Self::Import,
            "export" => Self::Export,
            "attach" => Self::Attach,
            "detach" => Self::Detach,
            "attachments" => Self::Attachments,
            "status" => Self::Status,
            _ => return None,
        })
    }

    /// Whether a file descriptor comes with the message.
    pub fn takes_descriptor(self) -> bool {
        matches!(self, Self::Import | Self::Export)
    }
}

/// What the methods work on.
pub struct Context {
    pub daemon: Daemon,
    /// Who may connect to the sockets of attachments.
    pub socket_owner: SocketOwner,
}

/// Does what the call asks for.
///
/// # Errors
/// Whatever the caller is to be told.
pub fn run(context: &Context, call: Call, job: &Job) -> Result<Value, ErrorObject> {
    let daemon = &context.daemon;
    match call.method {
        Method::Hello => result(hello(daemon, params(call.params)?)),
        Method::Create => result(create(daemon, params(call.params)?)),
        Method::List => no_params(&call.params).and_then(|()| result(list(daemon))),
        Method::Info => result(info(daemon, params(call.params)?)),
        Method::Remove => result(remove(daemon, params(call.params)?, job)),
        Method::Import => result(import(daemon, params(call.params)?, descriptor(call.descriptor)?, job)),
        Method::Export => result(export(daemon, params(call.params)?, descriptor(call.descriptor)?, job)),
        Method::Attach => result(attach(context, params(call.params)?)),
        Method::Detach => result(detach(daemon, params(call.params)?)),
        Method::Attachments => no_params(&call.params).and_then(|()| result(Ok(attachments(daemon)))),
        Method::Status => no_params(&call.params).and_then(|()| result(Ok(status(daemon)))),
    }
}

fn params<T: DeserializeOwned>(params: Value) -> Result<T, ErrorObject> {
    serde_json::from_value(params).map_err(|error| ErrorObject::new(code::INVALID_PARAMS, error.to_string()))
}

fn no_params(params: &Value) -> Result<(), ErrorObject> {
    let empty = params.is_null() || params.as_object().is_some_and(serde_json::Map::is_empty);
    let refused = || ErrorObject::new(code::INVALID_PARAMS, "this method takes no parameters");
    if empty { Ok(()) } else { Err(refused()) }
}

fn descriptor(descriptor: Option<OwnedFd>) -> Result<File, ErrorObject> {
    let missing =
        || ErrorObject::new(code::INVALID_PARAMS, "the file must come with the message as a descriptor (SCM_RIGHTS)");
    descriptor.map(File::from).ok_or_else(missing)
}

fn result<T: Serialize>(result: Result<T, Failure>) -> Result<Value, ErrorObject> {
    let unserializable = |error: serde_json::Error| Failure::from_error(FailureKind::Failed, &error);
    let value = result.and_then(|result| serde_json::to_value(result).map_err(unserializable));
    value.map_err(ErrorObject::from)
}

fn hello(daemon: &Daemon, params: HelloParams) -> Result<HelloResult, Failure> {
    if params.protocol != PROTOCOL {
        let text = format!("this daemon speaks protocol {PROTOCOL}, not {}", params.protocol);
        return Err(Failure::new(FailureKind::Protocol, text));
    }
    let store = daemon.store_info().url.clone();
    Ok(HelloResult { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into(), store })
}

/// `create`, here and on the command line.
///
/// # Errors
/// When a parameter is not acceptable, or the daemon says so.
pub fn create(daemon: &Daemon, params: CreateParams) -> Result<VolumeView, Failure> {
    let implied = implied_volume_size(&daemon.store_info().url).map(|size| size.0);
    let missing =
        || Failure::new(FailureKind::Usage, "how large is the volume to be? say it with --size, as in --size 20GiB");
    let size = VolumeSize::new(params.size.or(implied).ok_or_else(missing)?)?;
    let request =
        CreateRequest { name: VolumeName::new(&params.name)?, size, object_size: object_size(params.object_size)? };
    Ok(daemon.create(&request)?.into())
}

/// # Errors
/// When the store cannot be listed.
pub fn list(daemon: &Daemon) -> Result<Vec<ListEntryView>, Failure> {
    Ok(daemon.list()?.into_iter().map(ListEntryView::new).collect())
}

/// # Errors
/// When there is no such volume, or it is damaged.
pub fn info(daemon: &Daemon, params: NameParams) -> Result<VolumeView, Failure> {
    Ok(daemon.info(&VolumeName::new(&params.name)?)?.into())
}

/// # Errors
/// When there is no such volume, or it is in use.
pub fn remove(daemon: &Daemon, params: NameParams, job: &Job) -> Result<NameParams, Failure> {
    daemon.remove(&VolumeName::new(&params.name)?, job)?;
    Ok(params)
}

/// # Errors
/// When the name is taken, or the image or the store fails.
pub fn import(daemon: &Daemon, params: ImportParams, image: File, job: &Job) -> Result<ImportView, Failure> {
    let request = ImportRequest {
        name: VolumeName::new(&params.name)?,
        size: params.size.map(VolumeSize::new).transpose()?,
        object_size: object_size(params.object_size)?,
    };
    Ok(daemon.import(&request, image, job)?.into())
}

/// # Errors
/// When the volume cannot be read as of one moment, or the target cannot be written.
pub fn export(daemon: &Daemon, params: NameParams, target: File, job: &Job) -> Result<ExportView, Failure> {
    let report = daemon.export(&VolumeName::new(&params.name)?, target, job)?;
    Ok(ExportView::new(params.name, report))
}

fn attach(context: &Context, params: AttachParams) -> Result<AttachmentView, Failure> {
    let path = PathBuf::from(params.socket);
    if !path.is_absolute() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("the socket's path must be absolute, and {} is not", path.display()),
        ));
    }
    let request = AttachRequest {
        volume: VolumeName::new(&params.name)?,
        endpoint: Endpoint::Path { path, owner: context.socket_owner },
        queues: queues(params.queues)?,
        access: if params.read_only { Access::ReadOnly } else { Access::ReadWrite },
    };
    Ok(context.daemon.attach(request)?.into())
}

fn detach(daemon: &Daemon, params: NameParams) -> Result<NameParams, Failure> {
    daemon.detach(&VolumeName::new(&params.name)?)?;
    Ok(params)
}

fn attachments(daemon: &Daemon) -> Vec<AttachmentView> {
    daemon.attachments().into_iter().map(AttachmentView::from).collect()
}

fn status(daemon: &Daemon) -> StatusView {
    let store = daemon.store_info();
    StatusView {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: PROTOCOL,
        pid: std::process::id(),
        uptime_seconds: daemon.uptime().as_secs(),
        store: StoreView {
            url: store.url.clone(),
            method: store.method.clone(),
            io_align: store.io_align,
            persistent: store.persistent,
        },
        attachments: attachments(daemon),
    }
}

fn object_size(bytes: Option<u64>) -> Result<ObjectSize, Failure> {
    Ok(bytes.map_or(Ok(ObjectSize::DEFAULT), ObjectSize::new)?)
}

/// One queue unless said otherwise.
///
/// # Errors
/// When there are none or too many.
pub fn queues(queues: Option<u16>) -> Result<u16, Failure> {
    let queues = queues.unwrap_or(QUEUES_DEFAULT);
    let refused =
        || Failure::new(FailureKind::Usage, format!("a device has 1 to {QUEUES_MAX} queues, and {queues} is not"));
    if (1..=QUEUES_MAX).contains(&queues) { Ok(queues) } else { Err(refused()) }
}
