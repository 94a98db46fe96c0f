//! vhost-user messages sent byte by byte, for what a front-end library would refuse to send.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

pub(crate) const VERSION: u32 = 1;
pub(crate) const NEED_REPLY: u32 = 8;

pub(crate) fn frame(number: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [number, flags, size].iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied()).collect()
}

/// Sends; `false` when the device has closed the connection already.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// The next reply: its number and body; `None` when the connection was closed.
pub(crate) fn receive(mut stream: &UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; 12];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!(word(4), 5, "version 1, reply");
    let mut body = vec![0; usize::try_from(word(8)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some((word(0), body))
}

/// Sends a message that asks for a reply and returns the number in it.
pub(crate) fn call(stream: &UnixStream, number: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<u64> {
    send(stream, &frame(number, VERSION | NEED_REPLY, body), fds);
    let (answered, body) = receive(stream)?;
    assert_eq!(answered, number);
    Some(u64::from_ne_bytes(body.try_into().unwrap()))
}
