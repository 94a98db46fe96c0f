//! What the control socket answers: to what the manual allows, and to everything else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{Daemon, Scene};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than anything the daemon does here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Talk {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Talk {
    fn with(daemon: &Daemon<'_>) -> Self {
        let writer = UnixStream::connect(&daemon.control).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(writer.try_clone().unwrap());
        Self { writer, reader }
    }

    fn say(&mut self, bytes: &[u8]) {
        // The daemon may have closed the connection already, which the answer will tell.
        let _ = self.writer.write_all(bytes);
    }

    /// The next message, or `None` at the end.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.say(format!("{request}\n").as_bytes());
        self.hear().unwrap()
    }
}

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

#[test]
fn hello_tells_the_versions_and_refuses_others() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    let answer = talk.ask(&request(1, "hello", json!({ "protocol": 1 })));
    assert_eq!(answer["result"]["protocol"], 1);
    assert_eq!(answer["result"]["store"], "memory:");
    let answer = talk.ask(&request(2, "hello", json!({ "protocol": 2 })));
    assert_eq!((&answer["error"]["code"], &answer["error"]["data"]["kind"]), (&json!(-32000), &json!("protocol")));
}

#[test]
fn failures_carry_their_kind() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    for (method, params, kind) in [
        ("info", json!({ "name": "nope" }), "not-found"),
        ("info", json!({ "name": "../nope" }), "usage"),
        ("create", json!({ "name": "web1", "size": 513 }), "usage"),
        ("attach", json!({ "name": "web1", "socket": "relative" }), "usage"),
        ("detach", json!({ "name": "web1" }), "not-found"),
    ] {
        let answer = talk.ask(&request(7, method, params));
        assert_eq!(answer["id"], 7);
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        assert_eq!(answer["error"]["data"]["kind"], kind, "{answer}");
    }
}

#[test]
fn what_is_not_a_request_gets_the_code_that_json_rpc_gives_it() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    for (line, code) in [
        ("nonsense", -32700),
        ("{\"jsonrpc\":\"2.0\"", -32700),
        ("\u{0}", -32700),
        ("[]", -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}]", -32600),
        ("1", -32600),
        ("null", -32600),
        ("{}", -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"list\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"list\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":2}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"more\":1}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lists\"}", -32601),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"params\":[1]}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"info\"}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"info\",\"params\":{\"name\":1}}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"info\",\"params\":{\"name\":\"a\",\"x\":1}}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"create\",\"params\":{\"name\":\"a\",\"size\":-1}}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"import\",\"params\":{\"name\":\"a\"}}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"cancel\",\"params\":{}}", -32602),
    ] {
        talk.say(format!("{line}\n").as_bytes());
        let answer = talk.hear().unwrap();
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
        assert_eq!(answer["jsonrpc"], "2.0");
    }
    assert!(talk.ask(&request(9, "list", json!({})))["result"].is_array());
}

#[test]
fn an_id_is_kept_for_every_answer_and_so_has_a_limit() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    let mut ask = |bytes| talk.ask(&json!({ "jsonrpc": "2.0", "id": "x".repeat(bytes), "method": "list" }));
    assert!(ask(256)["result"].is_array());
    let answer = ask(257);
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32600)), "{answer}");
}

#[test]
fn requests_may_come_in_pieces_and_together() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    let line = format!("{}\n", request(1, "status", Value::Null));
    for byte in line.as_bytes() {
        talk.say(std::slice::from_ref(byte));
    }
    assert_eq!(talk.hear().unwrap()["id"], 1);
    let several: String = (2..10).map(|id| format!("\n{}\n", request(id, "status", json!({})))).collect();
    talk.say(several.as_bytes());
    let mut ids: Vec<_> = (2..10).map(|_| talk.hear().unwrap()["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (2..10).collect::<Vec<_>>());
}

#[test]
fn a_notification_is_not_answered() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    talk.say(b"{\"jsonrpc\":\"2.0\",\"method\":\"status\"}\n");
    assert_eq!(talk.ask(&request(5, "status", Value::Null))["id"], 5);
}

#[test]
fn a_message_without_end_ends_the_connection() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    let mut writer = talk.writer.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let chunk = [b'x'; 65536];
        (0..64).take_while(|_| writer.write_all(&chunk).is_ok()).count()
    });
    // The answer may be lost to the reset that closing with unread bytes causes.
    if let Some(answer) = talk.hear() {
        assert_eq!(answer["error"]["code"], -32600);
        assert!(talk.hear().is_none());
    }
    assert!(sender.join().unwrap() < 64, "4 MiB were taken");
    daemon.run(["status"]).text();
}

#[test]
fn random_bytes_do_no_harm() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let model = request(1, "info", json!({ "name": "web1" })).to_string().into_bytes();
    for round in 0..200 {
        let mut talk = Talk::with(&daemon);
        let mut bytes: Vec<u8> = match round % 2 {
            0 => (0..random() % 600).map(|_| random().to_le_bytes()[0]).collect(),
            _ => model.clone(),
        };
        for _ in 0..random() % 4 {
            if let Some(at) = usize::try_from(random()).unwrap().checked_rem(bytes.len()) {
                bytes[at] = random().to_le_bytes()[0];
            }
        }
        bytes.push(b'\n');
        talk.say(&bytes);
        talk.writer.shutdown(std::net::Shutdown::Write).unwrap();
        while talk.hear().is_some() {}
    }
    assert!(daemon.run(["list"]).text().contains("web1"));
}

#[test]
fn a_client_that_asks_too_much_at_once_is_told_so() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    // Imports that wait for their pipes keep their places.
    let (reader, _writer) = std::io::pipe().unwrap();
    for id in 0..16 {
        let line = format!("{}\n", request(id, "import", json!({ "name": format!("v{id}"), "size": 1 << 30 })));
        archvhost::control::lines::send(
            std::os::fd::AsFd::as_fd(&talk.writer),
            line.as_bytes(),
            Some(std::os::fd::AsFd::as_fd(&reader)),
        )
        .unwrap();
    }
    let answer = talk.ask(&request(99, "status", Value::Null));
    assert_eq!((&answer["id"], &answer["error"]["data"]["kind"]), (&json!(99), &json!("busy")));
    // Each can be cancelled, and says so itself.
    let answers: Vec<_> = (0..16)
        .flat_map(|id| {
            talk.say(format!("{}\n", request(100 + id, "cancel", json!({ "id": id }))).as_bytes());
            [talk.hear().unwrap(), talk.hear().unwrap()]
        })
        .collect();
    let cancelled = answers.iter().filter(|answer| answer["error"]["data"]["kind"] == "cancelled").count();
    let found = answers.iter().filter(|answer| answer["result"]["found"] == true).count();
    assert_eq!((cancelled, found), (16, 16), "{answers:?}");
    assert_eq!(talk.ask(&request(200, "list", Value::Null))["result"], json!([]));
}

#[test]
fn a_long_job_tells_how_far_it_is() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let mut talk = Talk::with(&daemon);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let line = format!("{}\n", request(3, "import", json!({ "name": "web1", "size": 16 << 20 })));
    let socket = std::os::fd::AsFd::as_fd(&talk.writer);
    archvhost::control::lines::send(socket, line.as_bytes(), Some(std::os::fd::AsFd::as_fd(&reader))).unwrap();
    drop(reader);
    writer.write_all(&vec![1; 8 << 20]).unwrap();
    let progress = talk.hear().unwrap();
    assert_eq!((&progress["method"], &progress["params"]["id"]), (&json!("progress"), &json!(3)), "{progress}");
    assert!(progress["params"]["done"].as_u64().unwrap() >= 4 << 20);
    drop(writer);
    let answer = std::iter::from_fn(|| talk.hear()).find(|message| message["method"].is_null()).unwrap();
    assert_eq!(answer["result"]["bytes_written"], 8 << 20, "{answer}");
}

/// Only root can be somebody else.
#[test]
fn other_users_are_refused_even_when_they_reach_the_socket() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    std::fs::set_permissions(scene.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => \"{}\") or die \"$!\"; print <$s>'",
        daemon.control.display()
    );
    let as_nobody = || {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).uid(65534).gid(65534);
        program::Ran::of(&mut command)
    };
    assert!(as_nobody().stderr.contains("Permission denied"), "the mode keeps others out");
    std::fs::set_permissions(&daemon.control, std::fs::Permissions::from_mode(0o666)).unwrap();
    let ran = as_nobody();
    let answer: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
}
