//! Against the agent's half of the protocol, played by a thread, which can do all that a real agent seldom does. The real one
//! is in integration/qemu/test_freeze.py.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use tempfile::TempDir;

const FREEZE: &str = "guest-fsfreeze-freeze";
const THAW: &str = "guest-fsfreeze-thaw";
const STATUS: &str = "guest-fsfreeze-status";
const PATIENT: Patience = Patience { answer: Duration::from_secs(30), freeze: Duration::from_secs(30) };

/// What the played agent does with one command: bytes that it answers, or nothing, or it hangs up.
type Play = Box<dyn FnMut(&str) -> Answer + Send>;

enum Answer {
    Bytes(Vec<u8>),
    Nothing,
    HangUp,
}

struct Guest {
    directory: TempDir,
    heard: Receiver<String>,
}

impl Guest {
    fn playing(play: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent")).unwrap();
        let (tell, heard) = channel();
        thread::spawn(move || serve(&listener, &tell, Box::new(play)));
        Self { directory, heard }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    fn freeze(&self) -> Result<Frozen, FreezeError> {
        Frozen::freeze_within(&self.socket(), PATIENT)
    }

    /// This was asked, syncs left out, in this order.
    fn has_heard(&self, expected: &[&str]) {
        let heard = expected.iter().map_while(|_| self.heard.recv_timeout(PATIENT.answer).ok());
        assert_eq!(heard.collect::<Vec<_>>(), expected);
    }

    fn hears_no_more(&self) -> bool {
        self.heard.recv_timeout(Duration::from_millis(50)).is_err()
    }
}

/// One client after the other, until the test is over.
fn serve(listener: &UnixListener, tell: &Sender<String>, mut play: Play) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        converse(&stream, tell, &mut play);
    }
}

fn converse(stream: &UnixStream, tell: &Sender<String>, play: &mut Play) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        let text = line.strip_prefix(&[0xFF]).unwrap_or(&line);
        let request: serde_json::Value = serde_json::from_slice(text).unwrap();
        let name = request["execute"].as_str().unwrap();
        let answer = match name {
            "guest-sync-delimited" => match play(name) {
                Answer::Bytes(before) => {
                    let answer = format!("{{\"return\": {}}}\n", request["arguments"]["id"]);
                    Answer::Bytes([&before, &[0xFF][..], answer.as_bytes()].concat())
                }
                silent => silent,
            },
            _ => {
                // The test may have heard enough.
                let _ = tell.send(name.to_owned());
                play(name)
            }
        };
        match answer {
            Answer::Bytes(bytes) => {
                if (&*stream).write_all(&bytes).is_err() {
                    return;
                }
            }
            Answer::Nothing => {}
            Answer::HangUp => return,
        }
    }
}

fn returns(value: &str) -> Answer {
    Answer::Bytes(format!("{{\"return\": {value}}}\n").into_bytes())
}

/// An agent with two file systems that does what it is told.
fn good() -> impl FnMut(&str) -> Answer + Send {
    let mut frozen = false;
    move |name| match name {
        FREEZE => {
            frozen = true;
            returns("2")
        }
        THAW => returns(if std::mem::take(&mut frozen) { "2" } else { "0" }),
        STATUS => returns(if frozen { "\"frozen\"" } else { "\"thawed\"" }),
        _ => Answer::Bytes(Vec::new()),
    }
}

/// As a good one, but for some commands.
fn but(mut special: impl FnMut(&str) -> Option<Answer> + Send) -> impl FnMut(&str) -> Answer + Send {
    let mut good = good();
    move |name| special(name).unwrap_or_else(|| good(name))
}

#[test]
fn a_guest_is_frozen_and_thawed() {
    let guest = Guest::playing(good());
    guest.freeze().unwrap().thaw().unwrap();
    guest.has_heard(&[STATUS, FREEZE, STATUS, THAW]);
}

#[test]
fn what_is_dropped_is_thawed() {
    let guest = Guest::playing(good());
    drop(guest.freeze().unwrap());
    guest.has_heard(&[STATUS, FREEZE, THAW]);
}

#[test]
fn what_an_earlier_client_left_in_the_channel_is_passed_over() {
    let garbage = b"\x00\xfe{\"return\": 3}\n}}}\n{\"error\": {}}\n{\"ret".to_vec();
    let guest = Guest::playing(but(move |name| name.starts_with("guest-sync").then(|| Answer::Bytes(garbage.clone()))));
    guest.freeze().unwrap().thaw().unwrap();
}

#[test]
fn no_agent_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = Frozen::freeze(&directory.path().join("agent")).unwrap_err();
    assert!(error.problem.contains("there is none"), "{error}");
}

#[test]
fn an_agent_that_is_silent_or_has_another_client_is_not_waited_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent");
    let _deaf = UnixListener::bind(&socket).unwrap();
    let impatient = Patience { answer: Duration::from_millis(100), ..PATIENT };
    let error = Frozen::freeze_within(&socket, impatient).unwrap_err();
    assert!(error.problem.contains("another client"), "{error}");
}

#[test]
fn a_socket_with_too_many_clients_makes_nobody_wait() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent");
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&socket).unwrap();
    let error = Frozen::freeze(&socket).unwrap_err();
    assert!(error.problem.contains("busy"), "{error}");
}

#[test]
fn a_refusal_is_an_error_with_the_agents_words_and_the_guest_is_thawed() {
    let refusal = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"failed to\\u0007 freeze /\"}}\n".to_vec();
    let guest = Guest::playing(but(move |name| (name == FREEZE).then(|| Answer::Bytes(refusal.clone()))));
    let error = guest.freeze().unwrap_err();
    assert!(error.problem.ends_with("failed to freeze /"), "{error}");
    guest.has_heard(&[STATUS, FREEZE, THAW]);
}

#[test]
fn a_freeze_that_takes_too_long_is_thawed() {
    let guest = Guest::playing(but(|name| (name == FREEZE).then_some(Answer::Nothing)));
    let impatient = Patience { freeze: Duration::from_millis(300), ..PATIENT };
    let error = Frozen::freeze_within(&guest.socket(), impatient).unwrap_err();
    assert!(error.problem.contains("in time"), "{error}");
    guest.has_heard(&[STATUS, FREEZE, THAW]);
}

#[test]
fn an_answer_that_is_none_is_an_error_and_the_guest_is_thawed() {
    for nonsense in [&b"{}\n"[..], b"\xff\xfe\n", b"{\"return\": \"many\"}\n", b"[1]\n", &[b'x'; 100 << 10]] {
        let guest = Guest::playing(but(|name| (name == FREEZE).then(|| Answer::Bytes(nonsense.to_vec()))));
        guest.freeze().unwrap_err();
        guest.has_heard(&[STATUS, FREEZE, THAW]);
    }
}

#[test]
fn a_guest_without_file_systems_is_not_called_frozen() {
    let guest = Guest::playing(but(|name| (name == FREEZE).then(|| returns("0"))));
    assert!(guest.freeze().unwrap_err().problem.contains("no file system"));
    guest.has_heard(&[STATUS, FREEZE, THAW]);
}

#[test]
fn a_guest_that_thawed_by_itself_was_not_frozen() {
    let mut asked = 0;
    let guest = Guest::playing(but(move |name| {
        asked += usize::from(name == STATUS);
        (name == STATUS && asked == 2).then(|| returns("\"thawed\""))
    }));
    let error = guest.freeze().unwrap().thaw().unwrap_err();
    assert!(error.problem.contains("before it was told"), "{error}");
    guest.has_heard(&[STATUS, FREEZE, STATUS, THAW]);
}

#[test]
fn a_guest_of_which_one_file_system_was_thawed_meanwhile_was_not_frozen() {
    let guest = Guest::playing(but(|name| (name == THAW).then(|| returns("1"))));
    assert!(guest.freeze().unwrap().thaw().unwrap_err().problem.contains("before it was told"));
}

#[test]
fn a_guest_that_somebody_else_froze_is_left_frozen() {
    let guest = Guest::playing(but(|name| (name == STATUS).then(|| returns("\"frozen\""))));
    assert!(guest.freeze().unwrap_err().problem.contains("somebody else"));
    guest.has_heard(&[STATUS]);
    assert!(guest.hears_no_more());
}

#[test]
fn a_connection_that_breaks_while_frozen_is_made_anew_for_the_thaw() {
    let mut statuses = 0;
    let guest = Guest::playing(but(move |name| {
        statuses += usize::from(name == STATUS);
        (name == STATUS && statuses == 2).then_some(Answer::HangUp)
    }));
    guest.freeze().unwrap().thaw().unwrap_err();
    guest.has_heard(&[STATUS, FREEZE, STATUS, THAW]);
}

#[test]
fn of_several_guests_all_are_frozen_or_none() {
    let guests = [Guest::playing(good()), Guest::playing(good())];
    let sockets: Vec<_> = guests.iter().map(Guest::socket).collect();
    Frozen::thaw_all(Frozen::freeze_all(&sockets).unwrap()).unwrap();
    guests.iter().for_each(|guest| guest.has_heard(&[STATUS, FREEZE, STATUS, THAW]));
    let with_one_missing = [&sockets[..], &[PathBuf::from("/nowhere")]].concat();
    Frozen::freeze_all(&with_one_missing).unwrap_err();
    guests.iter().for_each(|guest| guest.has_heard(&[STATUS, FREEZE, THAW]));
}
