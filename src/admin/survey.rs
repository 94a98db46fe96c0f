//! What the headers and name records of a store say, read without any lease, beside whoever changes them: for the verbs
//! that look at all volumes.

use crate::map::format::header::{Header, HeaderState};
use crate::map::format::name as name_record;
use crate::store::io::Io;
use crate::store::{ListScope, ObjectName, StoreError, StoreErrorKind};
use crate::units::{Generation, VolumeId, VolumeName};
use crate::volume::open::{header_generations, list_all};
use crate::volume::{VolumeError, VolumeErrorKind};
use std::collections::BTreeMap;

/// How often a header is looked for again that went away between the listing and the reading.
const LOOKS_MAX: usize = 100;

/// A volume as its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The one that holds the truth.
    pub(super) header: Header,
    /// Of the highest header, which may say *taking over*.
    pub(super) highest: Generation,
}

impl Seen {
    pub(super) fn is_removed(&self) -> bool {
        self.header.state == HeaderState::Removed
    }
}

/// Every id of which there is a header, ascending.
pub(super) async fn ids(io: &Io) -> Result<Vec<VolumeId>, StoreError> {
    Ok(list_all(io, ListScope::Volumes).await?.iter().filter_map(ObjectName::volume).collect())
}

/// What is true of a volume now; `None` when it has no header any more.
///
/// # Errors
/// When a header cannot be read or is damaged: the text names it.
pub(super) async fn look(io: &Io, id: VolumeId) -> Result<Option<Seen>, VolumeError> {
    for _ in 0..LOOKS_MAX {
        let generations = header_generations(io, id).await;
        let generations = generations.map_err(|error| failed(error, id))?;
        let Some(highest) = generations.last().copied() else { return Ok(None) };
        if let Some(header) = follow(io, id, highest).await? {
            return Ok(Some(Seen { header, highest }));
        }
    }
    let text = format!("the headers of volume {id} change faster than they can be read: try again");
    Err(VolumeError::new(VolumeErrorKind::Busy, text))
}

/// The header that the one of `generation` points to; `None` when one of them went away.
async fn follow(io: &Io, id: VolumeId, mut generation: Generation) -> Result<Option<Header>, VolumeError> {
    loop {
        let object = ObjectName::Header { volume: id, generation };
        let bytes = match io.read_all(object.clone()).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error, id)),
        };
        let damaged = |what: String| VolumeError::new(VolumeErrorKind::Damaged, format!("{object}: {what}"));
        let header = Header::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if (header.id, header.generation) != (id, generation) {
            return Err(damaged("it is another volume's header".to_owned()));
        }
        match header.state {
            HeaderState::TakingOver { previous } if previous < generation => generation = previous,
            HeaderState::TakingOver { .. } => return Err(damaged("it points forward".to_owned())),
            HeaderState::Building | HeaderState::Live | HeaderState::Closed | HeaderState::Removed => {
                return Ok(Some(header));
            }
        }
    }
}

fn failed(error: StoreError, id: VolumeId) -> VolumeError {
    VolumeError::from_store(error, format!("cannot read the header of volume {id}"))
}

/// The name records of a store.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) of: BTreeMap<VolumeId, Vec<VolumeName>>,
    /// Records that do not parse, and what is wrong with them.
    pub(super) damaged: Vec<(VolumeName, String)>,
}

/// # Errors
/// When the store cannot be listed, or a record not be read.
pub(super) async fn names(io: &Io) -> Result<Names, VolumeError> {
    let mut names = Names::default();
    for object in list_all(io, ListScope::Names).await? {
        let ObjectName::Name(name) = object else { continue };
        match leads_to(io, &name).await? {
            Some(Ok(id)) => names.of.entry(id).or_default().push(name),
            Some(Err(problem)) => names.damaged.push((name, problem)),
            None => {}
        }
    }
    Ok(names)
}

/// Where a name leads, or why its record says nothing; `None` when there is no such name.
pub(super) async fn leads_to(io: &Io, name: &VolumeName) -> Result<Option<Result<VolumeId, String>>, VolumeError> {
    match io.read_all(ObjectName::Name(name.clone())).await {
        Ok(bytes) => Ok(Some(name_record::decode(&bytes).map_err(|error| error.to_string()))),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == StoreErrorKind::Damaged => Ok(Some(Err(error.to_string()))),
        Err(error) => Err(VolumeError::from_store(error, format!("cannot read the name record {name}"))),
    }
}
