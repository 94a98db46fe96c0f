//! What a volume has from a transfer, as its header says (docs/stream-format.md, "Whose content"), and when that ends.

use crate::map::format::header::{Header, Receiving};
use crate::store::{Store, io};
use crate::units::ByteSize;
use crate::volume::capture::Amendment;
use crate::volume::open::read_header;
use crate::volume::{Port, Volume, VolumeError, VolumeErrorKind};
use std::sync::Arc;

/// To be called before a guest may write: whatever the volume has received, it is its own from now on, and takes no increment
/// any more. Blocks.
///
/// # Errors
/// When a transfer into the volume is not complete, so that it is of no use to a guest; or when the header cannot be written.
pub fn before_writing(store: &Arc<dyn Store>, volume: &Arc<Volume>) -> Result<(), VolumeError> {
    let header = header_of(store, volume)?;
    if let Some(Receiving { position, .. }) = header.receiving {
        let (name, received) = (volume.name(), ByteSize(position));
        let text = format!(
            "volume {name} is half received: the import into it was interrupted after {received}. Finish that (the same \
             import says how), roll the volume back to a snapshot, or remove it"
        );
        return Err(VolumeError::new(VolumeErrorKind::Busy, text));
    }
    forget(volume, &header)
}

/// To be called before the volume gets another size: it is not what it received any more, unless that is what the size comes from.
///
/// # Errors
/// When the header cannot be read or written.
pub(in super::super) fn before_resizing(store: &Arc<dyn Store>, volume: &Arc<Volume>) -> Result<(), VolumeError> {
    let header = header_of(store, volume)?;
    if header.receiving.is_some() { Ok(()) } else { forget(volume, &header) }
}

fn forget(volume: &Arc<Volume>, header: &Header) -> Result<(), VolumeError> {
    if header.content.is_none() {
        return Ok(());
    }
    let port = Port::open(volume)?;
    port.block_on(volume.amend(Amendment::Content { content: None, receiving: None }))
}

/// The header of a volume whose lease this process has.
pub(super) fn header_of(store: &Arc<dyn Store>, volume: &Arc<Volume>) -> Result<Header, VolumeError> {
    let (id, name) = (volume.id(), volume.name());
    io::block_on(store, None, |io| async move { read_header(&io, id, &name).await.map(|(header, _)| header) })
}
