//! Volumes that a daemon holds without serving them.

use crate::host::{Site, name};
use archvhost::admin::branch::Opened;
use archvhost::device::RequestTimeout;
use archvhost::export::socket::SocketOwner;
use archvhost::export::{AttachRequest, Endpoint, ExportError, ExportOptions, HeldAs, HeldStatus, Registry};
use archvhost::store::FreeLock;
use archvhost::volume::Access;
use std::sync::Arc;
use std::time::Duration;

fn registry(site: &Site) -> Registry {
    Registry::new(
        site.store(),
        ExportOptions { open: site.options("a"), poll_max: Duration::ZERO, request_timeout: RequestTimeout::Never },
    )
}

fn attachment(site: &Site) -> AttachRequest {
    let path = site.directory.path().join("socket");
    let endpoint = Endpoint::Path { path, owner: SocketOwner { group: None } };
    AttachRequest { volume: name("web"), endpoint, queues: 1, access: Access::ReadWrite, request_timeout: None }
}

#[test]
fn what_is_held_open_is_what_is_attached_and_stays_open_after_it() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let registry = registry(&site);
    registry.open(&name("web")).unwrap();
    registry.open(&name("web")).unwrap();
    assert_eq!(registry.held(), [HeldStatus { volume: name("web"), held_as: HeldAs::Open }]);
    let open = registry.open_volume(&name("web")).unwrap();
    registry.attach(attachment(&site)).unwrap();
    assert!(Arc::ptr_eq(&open, &registry.open_volume(&name("web")).unwrap()));
    assert!(matches!(registry.close(&name("web")), Err(ExportError::Attached { .. })));
    registry.detach(&name("web")).unwrap();
    assert!(site.host("b").ask("open").unwrap_err().contains("in use by"));
    drop(open);
    registry.close(&name("web")).unwrap();
    assert!(matches!(registry.close(&name("web")), Err(ExportError::NotOpen(_))));
    site.host("b").ask("open").unwrap();
}

#[test]
fn what_is_attached_can_be_held_open_as_well() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let registry = registry(&site);
    registry.attach(attachment(&site)).unwrap();
    registry.open(&name("web")).unwrap();
    registry.detach(&name("web")).unwrap();
    assert!(registry.open_volume(&name("web")).is_some());
    assert!(registry.stop_all().is_empty());
    assert!(matches!(registry.open(&name("web")), Err(ExportError::Stopping)));
    site.host("b").ask("open").unwrap();
}

#[test]
fn what_is_locked_is_opened_by_nobody() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let registry = registry(&site);
    registry.lock_volume(&name("web")).unwrap();
    registry.lock_volume(&name("web")).unwrap();
    assert_eq!(registry.held(), [HeldStatus { volume: name("web"), held_as: HeldAs::Locked }]);
    assert!(matches!(registry.open(&name("web")), Err(ExportError::Locked(_))));
    assert!(matches!(registry.attach(attachment(&site)), Err(ExportError::Locked(_))));
    assert!(matches!(registry.break_lock(&name("web")), Err(ExportError::Locked(_))));
    let mut other = site.host("b");
    let error = other.ask("open").unwrap_err();
    assert!(error.contains(&format!("process {} on host a", std::process::id())), "{error}");
    registry.unlock(&name("web")).unwrap();
    assert!(matches!(registry.unlock(&name("web")), Err(ExportError::NotLocked(_))));
    other.ask("open").unwrap();
    assert!(registry.lock_volume(&name("web")).is_err());
    assert_eq!(registry.held(), []);
}

#[test]
fn a_lock_of_another_daemon_is_broken_by_force() {
    let site = Site::new(FreeLock::ProvesTheEnd);
    let registry = registry(&site);
    let mut other = site.host("b");
    other.ask("open").unwrap();
    let cut_off = registry.break_lock(&name("web")).unwrap();
    assert!(cut_off.held);
    assert_eq!((cut_off.holders[0].pid, cut_off.holders[0].host.as_str()), (other.pid(), "b"));
    registry.open(&name("web")).unwrap();
    assert!(other.ask("flush").is_err() || other.ask("write 1 1").is_err() || other.ask("flush").is_err());
    registry.close(&name("web")).unwrap();
}
