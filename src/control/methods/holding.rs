//! Who has a volume.

use crate::control::failure::Failure;
use crate::control::protocol::holding::{CutOffView, UnlockView};
use crate::control::protocol::params::{NameParams, UnlockParams};
use crate::daemon::Daemon;
use crate::units::VolumeName;

pub(super) fn open(daemon: &Daemon, params: NameParams) -> Result<NameParams, Failure> {
    daemon.open(&VolumeName::new(&params.name)?)?;
    Ok(params)
}

pub(super) fn close(daemon: &Daemon, params: NameParams) -> Result<NameParams, Failure> {
    daemon.close(&VolumeName::new(&params.name)?)?;
    Ok(params)
}

pub(super) fn lock(daemon: &Daemon, params: NameParams) -> Result<NameParams, Failure> {
    daemon.lock(&VolumeName::new(&params.name)?)?;
    Ok(params)
}

pub(super) fn unlock(daemon: &Daemon, params: UnlockParams) -> Result<UnlockView, Failure> {
    let name = VolumeName::new(&params.name)?;
    let cut_off = if params.force {
        Some(CutOffView::from(daemon.break_lock(&name)?))
    } else {
        daemon.unlock(&name)?;
        None
    };
    Ok(UnlockView { name: params.name, cut_off })
}
