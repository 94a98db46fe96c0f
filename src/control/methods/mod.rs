//! From a request to the daemon's verb and back: checks parameters, calls, converts the result.
//!
//! Every function here blocks and is called on a thread made for that.

use super::failure::{Failure, FailureKind};
use super::protocol::{ErrorObject, HelloParams, HelloResult, PROTOCOL, code};
use crate::admin::job::Job;
use crate::daemon::Daemon;
use crate::export::socket::SocketOwner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::os::fd::OwnedFd;

mod attachments;
mod branches;
mod holding;
mod upkeep;
mod volumes;

pub use attachments::queues;

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
    Rename,
    Resize,
    Limit,
    Import,
    Export,
    ExportStream,
    Snapshot,
    Clone,
    Rollback,
    Diff,
    Flatten,
    Tree,
    Collect,
    Check,
    Open,
    Close,
    Lock,
    Unlock,
    Attach,
    Detach,
    Attachments,
    Status,
}

/// Every method and its name in messages.
const METHODS: [(Method, &str); 27] = [
    (Method::Hello, "hello"),
    (Method::Create, "create"),
    (Method::List, "list"),
    (Method::Info, "info"),
    (Method::Remove, "remove"),
    (Method::Rename, "rename"),
    (Method::Resize, "resize"),
    (Method::Limit, "limit"),
    (Method::Import, "import"),
    (Method::Export, "export"),
    (Method::ExportStream, "export-stream"),
    (Method::Snapshot, "snapshot"),
    (Method::Clone, "clone"),
    (Method::Rollback, "rollback"),
    (Method::Diff, "diff"),
    (Method::Flatten, "flatten"),
    (Method::Tree, "tree"),
    (Method::Collect, "gc"),
    (Method::Check, "check"),
    (Method::Open, "open"),
    (Method::Close, "close"),
    (Method::Lock, "lock"),
    (Method::Unlock, "unlock"),
    (Method::Attach, "attach"),
    (Method::Detach, "detach"),
    (Method::Attachments, "attachments"),
    (Method::Status, "status"),
];

impl Method {
    pub fn named(name: &str) -> Option<Self> {
        METHODS.iter().find(|(_, known)| *known == name).map(|(method, _)| *method)
    }

    pub fn name(self) -> &'static str {
        METHODS.iter().find(|(known, _)| *known == self).map(|(_, name)| *name).expect("every method has a name")
    }

    /// Whether a file descriptor comes with the message.
    pub fn takes_descriptor(self) -> bool {
        matches!(self, Self::Import | Self::Export | Self::ExportStream | Self::Diff)
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
        Method::Create => result(volumes::create(daemon, params(call.params)?)),
        Method::List => no_params(&call.params).and_then(|()| result(volumes::list(daemon))),
        Method::Info => result(volumes::info(daemon, params(call.params)?)),
        Method::Remove => result(volumes::remove(daemon, params(call.params)?, job)),
        Method::Rename => result(volumes::rename(daemon, params(call.params)?)),
        Method::Resize => result(volumes::resize(daemon, params(call.params)?, job)),
        Method::Limit => result(volumes::limit(daemon, params(call.params)?)),
        Method::Import => result(volumes::import(daemon, params(call.params)?, descriptor(call.descriptor)?, job)),
        Method::Export => result(volumes::export(daemon, params(call.params)?, descriptor(call.descriptor)?, job)),
        Method::ExportStream => {
            result(volumes::export_stream(daemon, params(call.params)?, descriptor(call.descriptor)?, job))
        }
        Method::Snapshot => result(branches::snapshot(daemon, params(call.params)?)),
        Method::Clone => result(branches::clone(daemon, params(call.params)?)),
        Method::Rollback => result(branches::rollback(daemon, params(call.params)?)),
        Method::Diff => result(branches::diff(daemon, params(call.params)?, descriptor(call.descriptor)?, job)),
        Method::Flatten => result(branches::flatten(daemon, params(call.params)?, job)),
        Method::Tree => result(branches::tree(daemon, optional_params(call.params)?)),
        Method::Collect => result(upkeep::collect(daemon, optional_params(call.params)?, job)),
        Method::Check => result(upkeep::check(daemon, optional_params(call.params)?, job)),
        Method::Open => result(holding::open(daemon, params(call.params)?)),
        Method::Close => result(holding::close(daemon, params(call.params)?)),
        Method::Lock => result(holding::lock(daemon, params(call.params)?)),
        Method::Unlock => result(holding::unlock(daemon, params(call.params)?)),
        Method::Attach => result(attachments::attach(context, params(call.params)?)),
        Method::Detach => result(attachments::detach(daemon, params(call.params)?)),
        Method::Attachments => no_params(&call.params).and_then(|()| result(Ok(attachments::attachments(daemon)))),
        Method::Status => no_params(&call.params).and_then(|()| result(Ok(attachments::status(daemon)))),
    }
}

fn params<T: DeserializeOwned>(params: Value) -> Result<T, ErrorObject> {
    serde_json::from_value(params).map_err(|error| ErrorObject::new(code::INVALID_PARAMS, error.to_string()))
}

/// For methods whose every parameter may be left out.
fn optional_params<T: DeserializeOwned + Default>(value: Value) -> Result<T, ErrorObject> {
    if value.is_null() { Ok(T::default()) } else { params(value) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_method_and_back() {
        for (method, name) in METHODS {
            assert_eq!(Method::named(name), Some(method));
            assert_eq!(method.name(), name);
        }
    }
}
