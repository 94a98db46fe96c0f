//! vhost-user messages on a Unix socket: framing, descriptors, replies.
//!
//! ```text
//!   request (4) | flags (4): version 1, reply, need-reply | size (4) | body (size bytes)      native byte order
//! ```
//!
//! A message's body is at most 4 KiB and it brings at most 32 descriptors; whatever exceeds that ends the connection.
//! Descriptors that a message should not have are closed with it.

use super::connection::Connection;
use super::error::DeviceError;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use vhost::vhost_user::message::{FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE};
use vm_memory::ByteValued;

const HEADER_BYTES: usize = 12;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Why a message is refused. The reason is for the log; the front-end learns no more than that.
pub(super) type Refusal = String;

/// A message from the front-end.
#[derive(Debug)]
pub(super) struct Message {
    /// The number as sent: it need not be one that anybody knows.
    pub(super) number: u32,
    pub(super) needs_reply: bool,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Message {
    pub(super) fn request(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.number).ok()
    }

    /// What to call it in a log.
    pub(super) fn name(&self) -> String {
        self.request().map_or_else(|| format!("number {}", self.number), |request| format!("{request:?}"))
    }

    /// The body as one value of exactly this size.
    pub(super) fn body_as<T: ByteValued + Default>(&self) -> Result<T, Refusal> {
        decode(&self.body).filter(|_| self.body.len() == size_of::<T>()).ok_or_else(|| self.wrong_size())
    }

    /// The body's start as one value, and what follows it.
    pub(super) fn body_starts_with<T: ByteValued + Default>(&self) -> Result<(T, &[u8]), Refusal> {
        let value = decode(&self.body).ok_or_else(|| self.wrong_size())?;
        Ok((value, &self.body[size_of::<T>()..]))
    }

    /// The one descriptor that the message must bring.
    pub(super) fn one_fd(&mut self) -> Result<OwnedFd, Refusal> {
        match (self.fds.pop(), self.fds.is_empty()) {
            (Some(fd), true) => Ok(fd),
            (_, _) => Err("it must bring exactly one descriptor".to_owned()),
        }
    }

    pub(super) fn wrong_size(&self) -> Refusal {
        format!("its size is {}", self.body.len())
    }
}

/// The value that the bytes start with.
pub(super) fn decode<T: ByteValued + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    let source = bytes.get(..size_of::<T>())?;
    value.as_mut_slice().copy_from_slice(source);
    Some(value)
}

/// Receives the next message; `None` when the front-end closed the connection, or when it is to end.
///
/// # Errors
/// When the socket fails or the framing is lost, after which nothing more can be understood.
pub(super) fn receive(connection: &Connection) -> Result<Option<Message>, DeviceError> {
    // Looked at before each message, because a front-end may send them as fast as they are answered.
    if connection.is_ended() {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    let mut fds = Vec::new();
    if !fill(connection, &mut header, &mut fds)? {
        return Ok(None);
    }
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (number, flags) = (word(0), word(4));
    let size = usize::try_from(word(8)).unwrap_or(usize::MAX);
    let lost = |reason: String| DeviceError::Protocol { message: format!("number {number}"), reason };
    if flags & VERSION_MASK != VERSION || flags & REPLY != 0 {
        return Err(lost(format!("its flags are {flags:#x}")));
    }
    if size > MAX_MSG_SIZE {
        return Err(lost(format!("its size is {size}")));
    }
    let mut body = vec![0; size];
    if !fill(connection, &mut body, &mut fds)? {
        return Err(lost("it ends in the middle".to_owned()));
    }
    Ok(Some(Message { number, needs_reply: flags & NEED_REPLY != 0, body, fds }))
}

/// Fills the buffer. `false` when the connection ends before its first byte.
fn fill(connection: &Connection, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<bool, DeviceError> {
    let mut filled = 0;
    while filled < buffer.len() {
        let now = receive_some(connection, &mut buffer[filled..], fds)?;
        if now == 0 && filled == 0 {
            return Ok(false);
        }
        if now == 0 {
            return Err(failed("receive from", io::ErrorKind::UnexpectedEof.into()));
        }
        filled += now;
    }
    Ok(true)
}

fn receive_some(connection: &Connection, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, DeviceError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHED_FD_ENTRIES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = loop {
        match recvmsg(connection.stream().as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(connection, PollFlags::IN, "receive from")?,
            // A front-end that dies with unread replies resets the connection: an end like another.
            Err(Errno::CONNRESET) => return Ok(0),
            Err(error) => return Err(failed("receive from", error.into())),
            Ok(received) => break received,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_ATTACHED_FD_ENTRIES {
        let reason = format!("it brings more than {MAX_ATTACHED_FD_ENTRIES} descriptors");
        return Err(DeviceError::Protocol { message: "of unknown number".to_owned(), reason });
    }
    Ok(received.bytes)
}

/// Sends the reply to a message.
///
/// # Errors
/// When the socket fails.
pub(super) fn reply(connection: &Connection, number: u32, body: &[u8]) -> Result<(), DeviceError> {
    let bytes = frame(number, VERSION | REPLY, body);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match send(connection.stream(), rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(connection, PollFlags::OUT, "reply on")?,
            Err(error) => return Err(failed("reply on", error.into())),
            Ok(sent) => rest = &rest[sent..],
        }
    }
    Ok(())
}

/// Waits for the socket; that the connection is to end is an error here, as its end would be.
fn wait(connection: &Connection, ready: PollFlags, operation: &'static str) -> Result<(), DeviceError> {
    match connection.wait(ready) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(operation, io::ErrorKind::Interrupted.into())),
        Err(error) => Err(failed(operation, error)),
    }
}

/// Sends a message without a body that we begin, on the front-end's channel for those. Never blocks: a front-end that does
/// not read its messages does without.
///
/// # Errors
/// When it cannot be sent now.
pub(super) fn announce(channel: &OwnedFd, number: u32) -> io::Result<()> {
    let bytes = frame(number, VERSION, &[]);
    send(channel, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

fn frame(number: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("replies are shorter than 4 KiB");
    let header = [number, flags, size].map(u32::to_ne_bytes);
    [header.as_flattened(), body].concat()
}

fn failed(operation: &'static str, source: io::Error) -> DeviceError {
    DeviceError::Socket { operation, source }
}
