//! The QEMU guest agent's protocol: one JSON object a line, over the Unix socket of the guest's virtio-serial channel.
//!
//! The channel outlives its clients: what an earlier one left half said, and answers that it did not wait for, may still be in
//! it. `guest-sync-delimited` finds the place where our answers begin: a byte that is in no JSON (0xFF), then an answer with our
//! number. QEMU serves one client at a time; another (libvirt, for one) that has the channel shows as silence.

use crate::units::VolumeId;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// In no JSON text and no UTF-8.
const DELIMITER: u8 = 0xFF;

/// The answers that we ask for have a hundred bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    stream: UnixStream,
    /// Received and not looked at yet.
    received: Vec<u8>,
}

/// What went wrong, for people; the caller adds whose agent it is.
type Problem = String;

impl Agent {
    /// A connection on which the agent answers.
    pub(super) fn connect(socket: &Path, patience: Duration) -> Result<Self, Problem> {
        let stream = connect(socket).map_err(|error| match error {
            Errno::AGAIN => "it is busy with other clients".to_owned(),
            Errno::NOENT | Errno::CONNREFUSED => {
                format!("there is none ({error}): does the guest run, with a channel for the agent?")
            }
            error => format!("cannot connect: {error}"),
        })?;
        let mut agent = Self { socket: socket.to_owned(), stream, received: Vec::new() };
        let until = Instant::now() + patience;
        agent.sync(until).map_err(|problem| {
            format!("{problem}: the agent does not run in the guest, or another client (libvirt?) has the channel")
        })?;
        Ok(agent)
    }

    pub(super) fn is_frozen(&mut self, patience: Duration) -> Result<bool, Problem> {
        match self.execute("guest-fsfreeze-status", patience)?.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err("it does not say whether its file systems are frozen".to_owned()),
        }
    }

    /// Returns how many file systems were frozen.
    pub(super) fn freeze(&mut self, patience: Duration) -> Result<u64, Problem> {
        let frozen = self.execute("guest-fsfreeze-freeze", patience)?;
        frozen.as_u64().ok_or_else(|| "it does not say how many file systems it froze".to_owned())
    }

    /// Returns how many file systems were thawed. Whatever was asked before and not answered: the agent does one thing after the
    /// other, so this comes to it even when nobody waits for the answer any more.
    pub(super) fn thaw(&mut self, patience: Duration) -> Result<u64, Problem> {
        let until = Instant::now() + patience;
        let number = self.send_sync(until)?;
        self.send(&command("guest-fsfreeze-thaw"), until)?;
        self.receive_sync(number, until)?;
        let thawed = self.receive("guest-fsfreeze-thaw", until)?;
        thawed.as_u64().ok_or_else(|| "it does not say how many file systems it thawed".to_owned())
    }

    pub(super) fn hang_up(&self) {
        // It fails only when it is done already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn execute(&mut self, name: &str, patience: Duration) -> Result<Value, Problem> {
        let until = Instant::now() + patience;
        self.send(&command(name), until)?;
        self.receive(name, until)
    }

    fn sync(&mut self, until: Instant) -> Result<(), Problem> {
        let number = self.send_sync(until)?;
        self.receive_sync(number, until)
    }

    fn send_sync(&mut self, until: Instant) -> Result<u64, Problem> {
        let number = random_number();
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": number}});
        // The delimiter makes the agent forget what an earlier client left half said.
        let text = [&[DELIMITER], sync.to_string().as_bytes(), b"\n"].concat();
        self.send(&text, until).map(|()| number)
    }

    /// Passes over everything before the answer with this number.
    fn receive_sync(&mut self, number: u64, until: Instant) -> Result<(), Problem> {
        loop {
            let line = self.line(until)?;
            let answer = line.rsplit(|byte| *byte == DELIMITER).next().unwrap_or_default();
            let answer = serde_json::from_slice::<Value>(answer).unwrap_or_default();
            if answer.get("return").and_then(Value::as_u64) == Some(number) {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, asked: &str, until: Instant) -> Result<Value, Problem> {
        let line = self.line(until)?;
        let mut answer: Value = serde_json::from_slice(&line).map_err(|_| format!("its answer to {asked} is none"))?;
        if let Some(error) = answer.get("error") {
            let text = error.get("desc").and_then(Value::as_str).unwrap_or("without saying why");
            // It comes from the guest, and goes to people's screens.
            let text: String = text.chars().filter(|character| !character.is_control()).take(300).collect();
            return Err(format!("it refuses {asked}: {text}"));
        }
        answer.get_mut("return").map(Value::take).ok_or_else(|| format!("its answer to {asked} says nothing"))
    }

    fn send(&mut self, mut bytes: &[u8], until: Instant) -> Result<(), Problem> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(time_left(until)?)).map_err(|error| broken(&error))?;
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) => tolerate(&error)?,
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    fn line(&mut self, until: Instant) -> Result<Vec<u8>, Problem> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err("it sends a line without end".to_owned());
            }
            self.receive_some(until)?;
        }
    }

    fn receive_some(&mut self, until: Instant) -> Result<(), Problem> {
        let mut bytes = [0; 4096];
        self.stream.set_read_timeout(Some(time_left(until)?)).map_err(|error| broken(&error))?;
        match self.stream.read(&mut bytes) {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(len) => {
                self.received.extend_from_slice(&bytes[..len]);
                Ok(())
            }
            Err(error) => tolerate(&error),
        }
    }
}

/// Never waits: the kernel makes a client of a socket wait whose listener has enough of them.
fn connect(socket: &Path) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    rustix::io::ioctl_fionbio(&stream, false)?;
    Ok(UnixStream::from(stream))
}

fn command(name: &str) -> Vec<u8> {
    format!("{}\n", json!({ "execute": name })).into_bytes()
}

/// One that no other client is likely to have used. JSON's numbers are exact up to 2^53.
fn random_number() -> u64 {
    let VolumeId(random) = VolumeId::random();
    u64::from_le_bytes([random[0], random[1], random[2], random[3], random[4], random[5], 0, 0])
}

fn time_left(until: Instant) -> Result<Duration, Problem> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("it does not answer in time".to_owned()) } else { Ok(left) }
}

/// Whether to look at the time and try again.
fn tolerate(error: &std::io::Error) -> Result<(), Problem> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
        _ => Err(broken(error)),
    }
}

fn broken(error: &std::io::Error) -> Problem {
    format!("the connection broke: {error}")
}
