//! Messages on a stream: one per line, each of bounded length, some with a file descriptor.
//!
//! A descriptor travels with the bytes of the message that it belongs to (SCM_RIGHTS), so `import` and `export` read and
//! write files with the rights of the caller, not with the daemon's.

use super::protocol::MESSAGE_BYTES_MAX;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that may wait for their message; a client that sends more is in error.
const DESCRIPTORS_MAX: usize = 4;

/// Bytes taken from the socket at once.
const CHUNK_BYTES: usize = 16 << 10;

/// What has arrived and has not been taken.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// So many bytes at the start hold no line's end, however often they are looked for.
    searched: usize,
    descriptors: VecDeque<OwnedFd>,
    closed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("a message is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("more than {DESCRIPTORS_MAX} file descriptors came without their message")]
    TooManyDescriptors,
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl Inbox {
    /// The next whole line, without its end.
    pub fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.search();
        if end == self.bytes.len() {
            return None;
        }
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        self.searched = 0;
        Some(line)
    }

    /// The place of the first line's end, or the number of bytes when there is none. Looks at each byte once.
    fn search(&mut self) -> usize {
        let rest = &self.bytes[self.searched..];
        self.searched += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        self.searched
    }

    /// The descriptor that came first.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Whether the other side will send no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what the socket has, once.
    ///
    /// # Errors
    /// `WouldBlock` as the socket says; otherwise the connection is of no more use.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: Limit) -> Result<(), LineError> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| {
            let flags = RecvFlags::CMSG_CLOEXEC;
            recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, flags)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.closed |= received.bytes == 0;
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        self.check(limit)
    }

    fn check(&mut self, limit: Limit) -> Result<(), LineError> {
        if self.search() > MESSAGE_BYTES_MAX && limit == Limit::Message {
            return Err(LineError::TooLong);
        }
        if self.descriptors.len() > DESCRIPTORS_MAX { Err(LineError::TooManyDescriptors) } else { Ok(()) }
    }
}

/// How much an inbox takes before it has a whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// One message's length: for a server, who trusts nobody.
    Message,
    /// No limit: for a client, who asked for the answer.
    None,
}

/// Sends the bytes, the descriptor with the first of them.
///
/// # Errors
/// When the other side is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    let mut sent = 0;
    while sent < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sent += retry(|| sendmsg(socket.as_fd(), &[IoSlice::new(&bytes[sent..])], &mut control, SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_arrive_whole_however_they_were_cut() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut inbox = Inbox::default();
        for part in ["on", "e\ntwo\nth", "ree\n"] {
            ours.write_all(part.as_bytes()).unwrap();
            inbox.receive(theirs.as_fd(), Limit::Message).unwrap();
        }
        let lines: Vec<_> = std::iter::from_fn(|| inbox.line()).collect();
        assert_eq!(lines, [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn no_byte_of_a_line_is_searched_twice() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut inbox = Inbox::default();
        for (part, searched) in [("on", 2), ("e", 3), ("\ntwo", 3)] {
            ours.write_all(part.as_bytes()).unwrap();
            inbox.receive(theirs.as_fd(), Limit::Message).unwrap();
            assert_eq!(inbox.searched, searched, "{part:?}");
        }
        assert_eq!(inbox.line().unwrap(), b"one");
        assert!(inbox.line().is_none());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || ours.write_all(&vec![b'x'; MESSAGE_BYTES_MAX + 1]));
        let mut inbox = Inbox::default();
        let error = loop {
            if let Err(error) = inbox.receive(theirs.as_fd(), Limit::Message) {
                break error;
            }
        };
        assert!(matches!(error, LineError::TooLong));
        drop(theirs);
        let _ = sender.join();
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        send(ours.as_fd(), b"take this\n", Some(file.as_fd())).unwrap();
        let mut inbox = Inbox::default();
        inbox.receive(theirs.as_fd(), Limit::Message).unwrap();
        assert_eq!(inbox.line().unwrap(), b"take this");
        let mut copy = std::fs::File::from(inbox.descriptor().unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
