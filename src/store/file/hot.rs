//! A channel's own table of the files it uses most: no lock, and registered with its ring once that pays.
//!
//! Direct-mapped: an object has one place. An occupant that is in use keeps its place against newcomers for a few
//! collisions. Everything here pins a descriptor, so files of removed objects are swept out.

use super::open_file::OpenFile;
use super::ring::Ring;
use crate::store::ObjectName;
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Uses after which a file is registered, which costs a system call once and saves a reference count per operation.
const REGISTER_AT: u8 = 4;

/// An occupant's uses count against newcomers up to this.
const USES_MAX: u8 = 8;

pub(super) struct HotFiles {
    places: Vec<Option<Place>>,
}

struct Place {
    file: Arc<OpenFile>,
    uses: u8,
    registered: bool,
}

/// An open file and, if it is registered, its slot.
pub(super) struct Found {
    pub(super) file: Arc<OpenFile>,
    pub(super) slot: Option<u32>,
}

impl HotFiles {
    /// `len` is a power of two.
    pub(super) fn new(len: usize) -> Self {
        assert!(len.is_power_of_two(), "a place is picked by masking");
        Self { places: std::iter::repeat_with(|| None).take(len).collect() }
    }

    /// The file, if it is here and its object still exists.
    pub(super) fn get(&mut self, name: &ObjectName, ring: &mut Ring) -> Option<Found> {
        let index = self.index(name);
        let place = self.places[index].as_mut().filter(|place| place.file.name == *name)?;
        if place.file.is_gone() {
            return None;
        }
        if place.uses < USES_MAX {
            place.uses += 1;
            if place.uses == REGISTER_AT && !place.registered {
                place.registered = ring.set_file(slot(index), place.file.fd().as_raw_fd());
            }
            place.file.set_used();
        }
        Some(Found { file: Arc::clone(&place.file), slot: place.registered.then(|| slot(index)) })
    }

    /// Offers a file that was looked up elsewhere. Returns an occupant that had to go.
    pub(super) fn offer(&mut self, file: &Arc<OpenFile>, ring: &mut Ring) -> Option<Arc<OpenFile>> {
        let index = self.index(&file.name);
        if let Some(place) = &mut self.places[index]
            && place.uses > 1
            && !place.file.is_gone()
            && place.file.name != file.name
        {
            place.uses -= 1;
            return None;
        }
        let old = self.vacate(index, ring);
        self.places[index] = Some(Place { file: Arc::clone(file), uses: 1, registered: false });
        old
    }

    /// Lets go of files whose objects are gone; returns them.
    pub(super) fn sweep(&mut self, ring: &mut Ring) -> Vec<Arc<OpenFile>> {
        let gone = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.file.is_gone());
        let indexes: Vec<_> = (0..self.places.len()).filter(|index| gone(&self.places[*index])).collect();
        indexes.into_iter().filter_map(|index| self.vacate(index, ring)).collect()
    }

    fn vacate(&mut self, index: usize, ring: &mut Ring) -> Option<Arc<OpenFile>> {
        let place = self.places[index].take()?;
        if place.registered {
            // A slot that cannot be emptied now pins its file until it is used again; nothing will name it before.
            ring.set_file(slot(index), -1);
        }
        Some(place.file)
    }

    fn index(&self, name: &ObjectName) -> usize {
        // Of this hash the high bits are the well mixed ones.
        let hash = FxBuildHasher.hash_one(name) >> 32;
        usize::try_from(hash).expect("32 bits fit in a usize") & (self.places.len() - 1)
    }
}

fn slot(index: usize) -> u32 {
    u32::try_from(index).expect("a table has far fewer places")
}
