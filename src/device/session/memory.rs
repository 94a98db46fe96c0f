//! Messages about the guest's memory. Each makes a new table, hands it to every running ring, and is answered then.

use super::super::memory::{Memory, RegionAddress};
use super::super::wire::{self, Message};
use super::{Answer, Outcome, Session};
use std::sync::Arc;
use vhost::vhost_user::message::{VhostUserMemory, VhostUserMemoryRegion, VhostUserSingleMemoryRegion};

impl Session {
    pub(super) fn set_memory_table(&mut self, mut message: Message) -> Outcome {
        let fds = std::mem::take(&mut message.fds);
        let (header, rest) = message.body_starts_with::<VhostUserMemory>()?;
        let count = usize::try_from(header.num_regions).unwrap_or(usize::MAX);
        if count == 0 || count != fds.len() || count.checked_mul(size_of::<VhostUserMemoryRegion>()) != Some(rest.len())
        {
            return Err("regions, descriptors and size do not agree".into());
        }
        let regions =
            rest.chunks_exact(size_of::<VhostUserMemoryRegion>()).filter_map(wire::decode).map(region_address);
        self.set_memory(self.memory.replacement(regions.zip(fds))?)
    }

    pub(super) fn add_region(&mut self, mut message: Message) -> Outcome {
        let file = message.one_fd()?;
        let region = message.body_as::<VhostUserSingleMemoryRegion>()?;
        self.set_memory(self.memory.with(region_address(*region), &file)?)
    }

    /// Some front-ends send the region's descriptor along; it is closed with the message.
    pub(super) fn remove_region(&mut self, message: &Message) -> Outcome {
        let region = message.body_as::<VhostUserSingleMemoryRegion>()?;
        self.set_memory(self.memory.without(region_address(*region))?)
    }

    fn set_memory(&mut self, memory: Memory) -> Outcome {
        self.memory = Arc::new(memory);
        for vring in &mut self.vrings {
            vring.set_memory(&self.memory)?;
        }
        // Rings that waited for memory start now; those that this memory does not hold go on waiting.
        self.start_rings()?;
        Ok(Answer::Acknowledge)
    }
}

fn region_address(region: VhostUserMemoryRegion) -> RegionAddress {
    RegionAddress {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        size: region.memory_size,
        file_offset: region.mmap_offset,
    }
}
