//! Volumes: made, looked at, changed, copied in and out, removed.

use crate::admin::create::CreateRequest;
use crate::admin::import::{ImageFormat, ImportRequest};
use crate::admin::increment::StreamRequest;
use crate::admin::job::Job;
use crate::admin::limit::LimitChange;
use crate::admin::resize::{ResizeRequest, Shrink};
use crate::control::failure::{Failure, FailureKind};
use crate::control::protocol::params::{
    CreateParams, ExportStreamParams, ImportParams, LimitParams, NameParams, RenameParams, ResizeParams,
};
use crate::control::protocol::volumes::{ExportView, ImportView, ListEntryView, VolumeView};
use crate::daemon::Daemon;
use crate::store::open::implied_volume_size;
use crate::units::{ObjectSize, VolumeName, VolumeSize};
use std::fs::File;

pub(super) fn create(daemon: &Daemon, params: CreateParams) -> Result<VolumeView, Failure> {
    let implied = implied_volume_size(&daemon.store_info().url).map(|size| size.0);
    let missing =
        || Failure::new(FailureKind::Usage, "how large is the volume to be? say it with --size, as in --size 20GiB");
    let size = VolumeSize::new(params.size.or(implied).ok_or_else(missing)?)?;
    let request =
        CreateRequest { name: VolumeName::new(&params.name)?, size, object_size: object_size(params.object_size)? };
    Ok(daemon.create(&request)?.into())
}

pub(super) fn list(daemon: &Daemon) -> Result<Vec<ListEntryView>, Failure> {
    Ok(daemon.list()?.into_iter().map(ListEntryView::new).collect())
}

pub(super) fn info(daemon: &Daemon, params: NameParams) -> Result<VolumeView, Failure> {
    Ok(daemon.info(&VolumeName::new(&params.name)?)?.into())
}

pub(super) fn remove(daemon: &Daemon, params: NameParams, job: &Job) -> Result<NameParams, Failure> {
    daemon.remove(&VolumeName::new(&params.name)?, job)?;
    Ok(params)
}

pub(super) fn import(daemon: &Daemon, params: ImportParams, image: File, job: &Job) -> Result<ImportView, Failure> {
    let request = ImportRequest {
        name: VolumeName::new(&params.name)?,
        size: params.size.map(VolumeSize::new).transpose()?,
        object_size: object_size(params.object_size)?,
        format: if params.raw { ImageFormat::Raw } else { ImageFormat::RawOrStream },
    };
    Ok(daemon.import(&request, image, job)?.into())
}

pub(super) fn export(daemon: &Daemon, params: NameParams, target: File, job: &Job) -> Result<ExportView, Failure> {
    let report = daemon.export(&VolumeName::new(&params.name)?, target, job)?;
    Ok(ExportView::new(params.name, report))
}

pub(super) fn export_stream(
    daemon: &Daemon,
    params: ExportStreamParams,
    target: File,
    job: &Job,
) -> Result<ExportView, Failure> {
    let request = StreamRequest {
        name: VolumeName::new(&params.name)?,
        from: params.from.as_deref().map(VolumeName::new).transpose()?,
        resume: params.resume,
    };
    let report = daemon.export_stream(&request, target, job)?;
    Ok(ExportView::new(params.name, report))
}

pub(super) fn rename(daemon: &Daemon, params: RenameParams) -> Result<VolumeView, Failure> {
    Ok(daemon.rename(&VolumeName::new(&params.name)?, &VolumeName::new(&params.new_name)?)?.into())
}

pub(super) fn resize(daemon: &Daemon, params: ResizeParams, job: &Job) -> Result<VolumeView, Failure> {
    let request = ResizeRequest {
        volume: VolumeName::new(&params.name)?,
        size: VolumeSize::new(params.size)?,
        shrink: if params.shrink { Shrink::Allow } else { Shrink::Refuse },
    };
    Ok(daemon.resize(&request, job)?.into())
}

pub(super) fn limit(daemon: &Daemon, params: LimitParams) -> Result<VolumeView, Failure> {
    let LimitParams { name, iops, iops_burst, bytes, bytes_burst } = params;
    let change = LimitChange { iops, iops_burst, bytes, bytes_burst };
    Ok(daemon.limit(&VolumeName::new(&name)?, &change)?.into())
}

fn object_size(bytes: Option<u64>) -> Result<ObjectSize, Failure> {
    Ok(bytes.map_or(Ok(ObjectSize::DEFAULT), ObjectSize::new)?)
}
