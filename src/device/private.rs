//! A request's data in memory of ours, for requests that may be answered before they have ended: whoever still works on one
//! then touches nothing of the guest's (rule C13). A write's bytes are copied when it is accepted, a read's when it is
//! answered.

use crate::store::Buffer;
use crate::volume::Request;

/// What is copied at a time: stays in the first cache between its two halves.
const PIECE_BYTES: usize = 8 << 10;

/// Moves data between guests' buffers and ours.
pub(super) struct Mover {
    piece: Box<[u8]>,
}

impl Default for Mover {
    fn default() -> Self {
        Self { piece: vec![0; PIECE_BYTES].into() }
    }
}

impl Mover {
    /// The request with a buffer of ours in place of the guest's. The guest's comes back where it is to be filled.
    pub(super) fn hide(&mut self, request: Request) -> (Request, Option<Buffer>) {
        match request {
            Request::Read { range, buffer } => {
                (Request::Read { range, buffer: Buffer::zeroed(buffer.len()) }, Some(buffer))
            }
            Request::Write { range, buffer, stability } => {
                let private = Buffer::zeroed(buffer.len());
                self.copy(&buffer, &private);
                (Request::Write { range, buffer: private, stability }, None)
            }
            Request::Flush | Request::Discard { .. } | Request::WriteZeroes { .. } => (request, None),
        }
    }

    /// Copies all of one buffer into another of the same length. In two steps, because neither's bytes are ever behind a
    /// reference.
    ///
    /// # Panics
    /// When they differ in length.
    pub(super) fn copy(&mut self, from: &Buffer, to: &Buffer) {
        assert_eq!(from.len(), to.len(), "a request's buffers are of one length");
        let mut offset = 0;
        while offset < from.len() {
            let now = self.piece.len().min(from.len() - offset);
            let piece = &mut self.piece[..now];
            from.copy_out(offset, piece);
            to.copy_in(offset, piece);
            offset += now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteRange;
    use crate::volume::Stability;

    fn bytes(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[test]
    fn a_write_keeps_the_bytes_that_it_was_accepted_with() {
        let guest = Buffer::copied_from(&bytes(3 * PIECE_BYTES + 512));
        let range = ByteRange::new(0, guest.len() as u64);
        let request = Request::Write { range, buffer: guest.slice(0, guest.len()), stability: Stability::Cached };
        let (hidden, filled) = Mover::default().hide(request);
        guest.fill_zero(0, guest.len());
        assert!(filled.is_none());
        assert_eq!(hidden.into_buffer().unwrap().to_vec(), bytes(3 * PIECE_BYTES + 512));
    }

    #[test]
    fn a_read_reaches_the_guest_when_it_is_copied_and_not_before() {
        let guest = Buffer::zeroed(PIECE_BYTES + 1024);
        let range = ByteRange::new(0, guest.len() as u64);
        let mut mover = Mover::default();
        let (hidden, filled) = mover.hide(Request::Read { range, buffer: guest.slice(0, guest.len()) });
        let private = hidden.into_buffer().unwrap();
        private.copy_in(0, &bytes(guest.len()));
        assert_eq!(guest.to_vec(), vec![0; guest.len()]);
        mover.copy(&private, &filled.unwrap());
        assert_eq!(guest.to_vec(), bytes(guest.len()));
    }
}
