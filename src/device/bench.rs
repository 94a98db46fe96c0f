//! The ring machinery without a volume, for `benches/parts`: takes every chain that is available and answers it at once.
//! Not part of the crate's interface.

#![allow(unsafe_code, reason = "the status byte lies in guest memory")]

use super::chain::Chain;
use super::guest_bytes;
use super::memory::{Memory, RegionAddress};
use super::options::{Serial, Writes};
use super::request::{self, Rules, Status, Verdict};
use super::ring::{Notification, Ring, RingAddress, RingParts};
use crate::units::VolumeId;
use crate::volume::{Request, Stability};
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where the guest's ring lies in its memory file.
#[derive(Clone, Copy)]
pub struct Layout {
    pub memory_bytes: u64,
    pub ring_size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// One ring over a memory file.
pub struct BareRing {
    ring: Ring,
    chain: Chain,
    memory: Arc<Memory>,
    keep: Arc<dyn Any + Send + Sync>,
    serial: Serial,
}

const CAPACITY_BYTES: u64 = 1 << 30;

impl BareRing {
    /// # Panics
    /// When the file cannot be mapped or the ring does not lie in it.
    pub fn new(file: OwnedFd, layout: Layout) -> Self {
        let region = RegionAddress { guest: 0, user: 0, size: layout.memory_bytes, file_offset: 0 };
        let memory = Memory::map([(region, file)].into_iter()).expect("the file can be mapped");
        let memory = Arc::new(memory);
        let Layout { descriptors, available, used, .. } = layout;
        let parts = RingParts::locate(&memory, RingAddress { descriptors, available, used }, layout.ring_size)
            .expect("the ring lies in memory");
        Self {
            ring: Ring::new(parts, layout.ring_size, 0, Notification::EventIndex),
            chain: Chain::default(),
            keep: Arc::new(Arc::clone(&memory)),
            memory,
            serial: Serial::of(VolumeId([7; 16])),
        }
    }

    /// Collects every available chain and answers it; `seen` gets the chain's number of pieces. Returns how many there were.
    ///
    /// # Panics
    /// When the guest misbehaves.
    pub fn serve(&mut self, mut seen: impl FnMut(usize)) -> u16 {
        self.serve_each(|ring, _| seen(ring.chain.readable.len() + ring.chain.writable.len()))
    }

    /// Does the same and parses each chain as a request.
    ///
    /// # Panics
    /// When the guest misbehaves, or asks for what needs no volume.
    pub fn serve_parsed(&mut self, mut seen: impl FnMut(Request)) -> u16 {
        self.serve_each(|ring, keep| seen(ring.parse(keep)))
    }

    fn serve_each(&mut self, mut each: impl FnMut(&mut Self, &Arc<dyn Any + Send + Sync>)) -> u16 {
        let keep = Arc::clone(&self.keep);
        let mut served = 0;
        while let Some(head) = self.ring.take().expect("the guest behaves") {
            let status = self.chain.collect(&self.ring, &self.memory, head).expect("the guest behaves");
            each(self, &keep);
            // SAFETY: the status byte was translated through the memory that `self` holds.
            unsafe { guest_bytes::write_byte(status, Status::Ok.byte()) }
            self.ring.push(head, 1);
            served += 1;
        }
        self.ring.publish();
        served
    }

    fn parse(&mut self, keep: &Arc<dyn Any + Send + Sync>) -> Request {
        let rules = Rules {
            capacity_bytes: CAPACITY_BYTES,
            writes: Writes::Allowed,
            stability: Stability::Cached,
            serial: &self.serial,
            keep,
        };
        match request::parse(&mut self.chain, &rules).verdict {
            Verdict::Submit { request, .. } => request,
            Verdict::Answer { .. } => panic!("the guest asks for reads and writes"),
        }
    }
}
