//! Volumes that are held without being served, and who was cut off from one.

use super::volumes::HolderView;
use crate::export::{HeldAs, HeldStatus};
use crate::volume::lease::CutOff;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockView {
    pub name: String,
    /// Null without force.
    pub cut_off: Option<CutOffView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffView {
    /// Who had the volume, the latest first, and who had not closed it and may be alive.
    pub holders: Vec<HolderView>,
    /// The first of them had it until now.
    pub held: bool,
    /// None of them can write any more.
    pub fenced: bool,
    /// It was being read.
    pub readers: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    pub volume: String,
    /// `open` or `locked`.
    pub held_as: String,
}

impl From<CutOff> for CutOffView {
    fn from(cut_off: CutOff) -> Self {
        let holders = cut_off.holders.into_iter().map(|doubt| HolderView { host: doubt.host, pid: doubt.pid });
        Self { holders: holders.collect(), held: cut_off.held, fenced: cut_off.fenced, readers: cut_off.readers }
    }
}

impl From<HeldStatus> for HeldView {
    fn from(status: HeldStatus) -> Self {
        let held_as = match status.held_as {
            HeldAs::Open => "open",
            HeldAs::Locked => "locked",
        };
        Self { volume: status.volume.to_string(), held_as: held_as.into() }
    }
}
