//! A guest agent as far as freezing goes, played by a thread; the real one is in integration/qemu/test_freeze.py.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "as for the program, beside which it lies")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the guest does with file systems that are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    Frozen,
    /// Somebody thaws them at once.
    Thawed,
}

/// The commands that were heard, syncs and questions left out.
pub type Heard = Arc<Mutex<Vec<String>>>;

/// Serves one client after the other at `socket`, until the process ends.
pub fn agent(socket: &Path, stays: Stays) -> Heard {
    let listener = UnixListener::bind(socket).unwrap();
    let heard = Heard::default();
    let said = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            converse(&stream.unwrap(), stays, &said);
        }
    });
    heard
}

fn converse(mut stream: &UnixStream, stays: Stays, heard: &Heard) {
    let mut frozen = false;
    for line in BufReader::new(stream).split(b'\n') {
        let line = line.unwrap();
        let request: Value = serde_json::from_slice(line.strip_prefix(&[0xFF]).unwrap_or(&line)).unwrap();
        let command = request["execute"].as_str().unwrap();
        let answer = match command {
            "guest-sync-delimited" => request["arguments"]["id"].clone(),
            "guest-fsfreeze-status" => json!(if frozen { "frozen" } else { "thawed" }),
            _ => {
                heard.lock().unwrap().push(command.to_owned());
                let before = frozen;
                frozen = command == "guest-fsfreeze-freeze" && stays == Stays::Frozen;
                json!(u8::from(frozen || before || command == "guest-fsfreeze-freeze"))
            }
        };
        let delimiter: &[u8] = if command == "guest-sync-delimited" { &[0xFF] } else { &[] };
        let answer = format!("{}\n", json!({ "return": answer }));
        stream.write_all(&[delimiter, answer.as_bytes()].concat()).unwrap();
    }
}
