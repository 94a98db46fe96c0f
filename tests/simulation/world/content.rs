//! The bytes of one object, addressed by sector: the unit that a device writes whole or not at all.

use std::sync::Arc;

/// What a device writes atomically. 512 bytes is the weakest that real devices promise.
pub const SECTOR: usize = 512;

pub type Sector = [u8; SECTOR];

/// Reads as zeros past its end. Copies share their bytes until one of them changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content(Arc<Vec<u8>>);

impl Content {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn sector(&self, number: usize) -> Sector {
        let mut sector = [0; SECTOR];
        let start = (number * SECTOR).min(self.0.len());
        let end = (start + SECTOR).min(self.0.len());
        sector[..end - start].copy_from_slice(&self.0[start..end]);
        sector
    }

    pub fn set_sector(&mut self, number: usize, sector: &Sector) {
        let start = number * SECTOR;
        let bytes = Arc::make_mut(&mut self.0);
        if bytes.len() < start + SECTOR {
            bytes.resize(start + SECTOR, 0);
        }
        bytes[start..start + SECTOR].copy_from_slice(sector);
    }

    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let start = offset.min(self.0.len());
        let end = (offset + bytes.len()).min(self.0.len());
        let (held, past_end) = bytes.split_at_mut(end - start);
        held.copy_from_slice(&self.0[start..end]);
        past_end.fill(0);
    }
}
