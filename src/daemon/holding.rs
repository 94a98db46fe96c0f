//! Holding volumes without serving them, and taking them from others. See [`crate::export::held`].

use super::{Daemon, DaemonError};
use crate::export::HeldStatus;
use crate::units::VolumeName;
use crate::volume::lease::CutOff;

impl Daemon {
    /// # Errors
    /// See [`Registry::open`](crate::export::Registry::open).
    pub fn open(&self, name: &VolumeName) -> Result<(), DaemonError> {
        Ok(self.registry.open(name)?)
    }

    /// # Errors
    /// See [`Registry::close`](crate::export::Registry::close).
    pub fn close(&self, name: &VolumeName) -> Result<(), DaemonError> {
        Ok(self.registry.close(name)?)
    }

    /// # Errors
    /// See [`Registry::lock_volume`](crate::export::Registry::lock_volume).
    pub fn lock(&self, name: &VolumeName) -> Result<(), DaemonError> {
        Ok(self.registry.lock_volume(name)?)
    }

    /// # Errors
    /// See [`Registry::unlock`](crate::export::Registry::unlock).
    pub fn unlock(&self, name: &VolumeName) -> Result<(), DaemonError> {
        Ok(self.registry.unlock(name)?)
    }

    /// `unlock --force`. Works without a daemon, too.
    ///
    /// # Errors
    /// See [`Registry::break_lock`](crate::export::Registry::break_lock).
    pub fn break_lock(&self, name: &VolumeName) -> Result<CutOff, DaemonError> {
        Ok(self.registry.break_lock(name)?)
    }

    pub fn held(&self) -> Vec<HeldStatus> {
        self.registry.held()
    }
}
