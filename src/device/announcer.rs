//! Messages that the device itself begins, on the channel that the front-end opens for them. There is one: the
//! configuration changed (the volume was resized).
//!
//! While all rings are stopped, the device is suspended and announces nothing; nor does it without a front-end. What happened
//! meanwhile is announced when a ring starts.

use super::wire;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vhost::vhost_user::message::BackendReq;

#[derive(Default)]
pub(super) struct Announcer(Mutex<State>);

#[derive(Default)]
struct State {
    channel: Option<OwnedFd>,
    running: bool,
    config_changed: bool,
}

impl Announcer {
    pub(super) fn connect(&self, channel: OwnedFd) {
        self.lock().channel = Some(channel);
    }

    /// The connection is gone. What was not announced is announced on the next: a front-end that reconnects (QEMU) shows its
    /// guest the configuration of before, and asks for it again only when told to.
    pub(super) fn disconnect(&self) {
        let mut state = self.lock();
        state.channel = None;
        state.running = false;
    }

    pub(super) fn set_running(&self, running: bool) {
        let mut state = self.lock();
        state.running = running;
        state.announce();
    }

    pub(super) fn config_changed(&self) {
        let mut state = self.lock();
        state.config_changed = true;
        state.announce();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn announce(&mut self) {
        let Some(channel) = &self.channel else { return };
        if !self.running || !self.config_changed {
            return;
        }
        // Once, whatever comes of it: a front-end that does not take it will not take it later either.
        self.config_changed = false;
        if let Err(error) = wire::announce(channel, BackendReq::CONFIG_CHANGE_MSG.into()) {
            tracing::warn!(%error, "cannot tell the front-end that the volume's size changed");
        }
    }
}
