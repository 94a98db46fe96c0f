//! The daemon's life: how it starts, what it refuses, how it ends, and what one bad volume means for the others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::Scene;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// The orderly stop takes less than this.
const STOP_MAX: Duration = Duration::from_secs(1);

#[test]
fn sigterm_ends_the_daemon_within_a_second_and_leaves_nothing() {
    let scene = Scene::new();
    let store = scene.file_store();
    let mut daemon = scene.daemon(&store);
    for number in 0..8 {
        let name = format!("v{number}");
        daemon.run(["create", &name, "--size", "1GiB"]).text();
        daemon.run(["attach", &name, "--socket", &format!("{name}.sock")]).text();
    }
    // A front-end that is connected and says nothing must not hold the stop up, nor must a control client.
    let _front_end = UnixStream::connect(scene.path("v0.sock")).unwrap();
    let _client = UnixStream::connect(&daemon.control).unwrap();
    let took = daemon.process.stop();
    assert!(took < STOP_MAX, "{took:?}");
    assert!(!daemon.control.exists() && !scene.path("v0.sock").exists());
    let list = scene.run(["--store", &store, "list", "--json"]).json();
    assert!(list.as_array().unwrap().iter().all(|volume| volume["state"] == "closed"), "{list}");
}

#[test]
fn sigint_ends_it_too() {
    let scene = Scene::new();
    let mut daemon = scene.daemon("memory:");
    daemon.process.signal(libc::SIGINT);
    assert!(daemon.process.wait().success());
}

#[test]
fn an_import_that_waits_for_its_pipe_does_not_hold_the_stop_up() {
    let scene = Scene::new();
    let mut daemon = scene.daemon("memory:");
    let (reader, mut writer) = std::io::pipe().unwrap();
    // Whether it is a stream is known once the first bytes are there; the volume is made then.
    std::io::Write::write_all(&mut writer, &[7; 512]).unwrap();
    let mut command = scene.command();
    command.arg("--control").arg(&daemon.control).args(["import", "web1", "-", "--size", "1GiB"]).stdin(reader);
    let mut import = program::Process { child: command.stderr(std::process::Stdio::null()).spawn().unwrap() };
    drop(command);
    program::wait_until(|| !daemon.run(["list", "--json"]).json().as_array().unwrap().is_empty());
    let took = daemon.process.stop();
    assert!(took < STOP_MAX, "{took:?}");
    assert!(!import.wait().success());
    drop(writer);
}

/// The request waits for a directory's lock, for two seconds; what may hang for ever, hangs no differently.
#[test]
fn a_request_that_takes_long_does_not_keep_volumes_from_being_closed() {
    let scene = Scene::new();
    let store = scene.file_store();
    let mut daemon = scene.daemon(&store);
    for name in ["web1", "slow"] {
        daemon.run(["create", name, "--size", "1GiB"]).text();
    }
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    std::fs::create_dir(scene.path("locked")).unwrap();
    let locked = std::fs::File::open(scene.path("locked")).unwrap();
    locked.lock().unwrap();
    let mut command = scene.command();
    command.arg("--control").arg(&daemon.control).args(["attach", "slow", "--socket", "locked/slow.sock"]);
    let mut attach = program::Process { child: command.stderr(std::process::Stdio::null()).spawn().unwrap() };
    let state = |name: &str| scene.run(["--store", &store, "info", name, "--json"]).json()["state"].clone();
    program::wait_until(|| state("slow") == "open");
    daemon.process.signal(libc::SIGTERM);
    program::wait_until(|| state("web1") == "closed");
    assert!(attach.child.try_wait().unwrap().is_none(), "the request still runs");
    assert!(daemon.process.wait().success());
    assert!(!attach.wait().success());
    assert_eq!(state("slow"), "closed");
}

#[test]
fn an_attachment_outlives_a_shortage_of_descriptors() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let scene = Scene::new();
    let mut daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    let pid = rustix::process::Pid::from_child(&daemon.process.child);
    let none_left = Rlimit { current: Some(3), ..rustix::process::getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, none_left).unwrap();
    let _front_end = UnixStream::connect(scene.path("web1.sock")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    program::wait_until(|| daemon.run(["attachments", "--json"]).json()[0]["state"] == "connected");
    daemon.process.stop();
}

#[test]
fn a_front_end_that_connects_in_a_loop_does_not_fill_the_log() {
    let scene = Scene::new();
    let mut daemon = scene.daemon("memory:");
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    for connections in 1..=100 {
        drop(UnixStream::connect(scene.path("web1.sock")).unwrap());
        if connections % 10 == 0 {
            program::wait_until(|| daemon.run(["attachments", "--json"]).json()[0]["connections"] == connections);
        }
    }
    daemon.process.stop();
    let log = daemon.process.log();
    assert!(log.lines().filter(|line| line.contains("front-end")).count() <= 20, "{log}");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    let second = scene.run(["--store", "memory:", "--control", daemon.control.to_str().unwrap(), "serve"]);
    assert_eq!(second.code, 4, "{}", second.stderr);
    assert!(second.stderr.contains("another process listens there"), "{}", second.stderr);
    daemon.run(["status"]).text();
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let scene = Scene::new();
    let mut first = scene.daemon("memory:");
    first.process.signal(libc::SIGKILL);
    first.process.wait();
    assert!(first.control.exists());
    let second = scene.daemon("memory:");
    second.run(["status"]).text();
    let mode = std::fs::metadata(&second.control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_killed_daemon_hands_its_volumes_on() {
    let scene = Scene::new();
    let store = scene.file_store();
    let mut first = scene.daemon(&store);
    first.run(["create", "web1", "--size", "1GiB"]).text();
    first.run(["attach", "web1", "--socket", "web1.sock"]).text();
    first.process.signal(libc::SIGKILL);
    first.process.wait();
    let second = scene.daemon(&store);
    assert_eq!(second.run(["info", "web1", "--json"]).json()["state"].as_str(), Some("open"));
    second.run(["attach", "web1", "--socket", "web1.sock"]).text();
}

#[test]
fn a_removed_volume_leaves_no_soft_journal_of_its_killed_holder() {
    let scene = Scene::new();
    let store = scene.file_store();
    let mut daemon = scene.daemon(&store);
    daemon.run(["create", "web1", "--size", "1GiB"]).text();
    daemon.run(["attach", "web1", "--socket", "web1.sock"]).text();
    daemon.process.signal(libc::SIGKILL);
    daemon.process.wait();
    let journals = || std::fs::read_dir(scene.soft_journals.path()).unwrap().count();
    assert_eq!(journals(), 1);
    scene.run(["--store", &store, "remove", "web1"]).text();
    assert_eq!(journals(), 0);
}

#[test]
fn configured_volumes_are_served_and_a_bad_one_hinders_nobody() {
    let scene = Scene::new();
    let store = scene.file_store();
    scene.run(["--store", &store, "create", "good", "--size", "1GiB"]).text();
    let text = format!(
        "store = \"{store}\"\ncontrol = \"{dir}/control.sock\"\nlog_format = \"json\"\n\
         [[attach]]\nvolume = \"missing\"\nsocket = \"{dir}/missing.sock\"\n\
         [[attach]]\nvolume = \"good\"\nsocket = \"{dir}/good.sock\"\nqueues = 2\n",
        dir = scene.dir.path().display()
    );
    std::fs::write(scene.path("archvhost.toml"), text).unwrap();
    let mut command = scene.command();
    command.args(["serve", "--config", "archvhost.toml"]);
    let mut process = scene.start(command);
    let control = scene.path("control.sock");
    let attachments = scene.run(["--control", control.to_str().unwrap(), "attachments", "--json"]).json();
    let states: Vec<_> = attachments.as_array().unwrap().iter().map(|a| a["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["listening", "failed"]);
    assert!(attachments[1]["reason"].as_str().unwrap().contains("missing"));
    assert!(UnixStream::connect(scene.path("good.sock")).is_ok());
    // Once the reason is gone, it is attached as any other.
    scene.run(["--store", &store, "create", "missing", "--size", "1GiB"]).text();
    let attach = ["--control", control.to_str().unwrap(), "attach", "missing", "--socket", "missing.sock"];
    scene.run(attach).text();
    process.stop();
    let log = process.log();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
}

#[test]
fn a_time_out_is_the_daemons_unless_an_attachment_says_otherwise() {
    let scene = Scene::new();
    let store = scene.file_store();
    let names = ["a", "b", "c", "d"];
    names.iter().for_each(|name| _ = scene.run(["--store", &store, "create", name, "--size", "1GiB"]).text());
    let text = format!(
        "store = \"{store}\"\ncontrol = \"{dir}/control.sock\"\nrequest_timeout = 30\n\
         [[attach]]\nvolume = \"a\"\nsocket = \"{dir}/a.sock\"\n\
         [[attach]]\nvolume = \"b\"\nsocket = \"{dir}/b.sock\"\nrequest_timeout = 0\n",
        dir = scene.dir.path().display()
    );
    std::fs::write(scene.path("archvhost.toml"), text).unwrap();
    let mut command = scene.command();
    command.args(["serve", "--config", "archvhost.toml", "--request-timeout", "60"]);
    let mut process = scene.start(command);
    let control = scene.path("control.sock");
    let run = |arguments: &[&str]| scene.run([&["--control", control.to_str().unwrap()], arguments].concat());
    run(&["attach", "c", "--socket", "c.sock"]).text();
    run(&["attach", "d", "--socket", "d.sock", "--request-timeout", "5"]).text();
    let attachments = run(&["attachments", "--json"]).json();
    let timeouts: Vec<_> = attachments.as_array().unwrap().iter().map(|a| a["request_timeout"].as_u64()).collect();
    assert_eq!(timeouts, [Some(60), Some(0), Some(60), Some(5)]);
    process.stop();
}

#[test]
fn one_volume_is_served_without_a_control_socket() {
    let scene = Scene::new();
    let mut command = scene.command();
    command.args(["--store", "null:1TiB", "serve", "--volume", "bench", "--socket-path", "bench.sock"]);
    command.args(["--queues", "2", "--read-only"]);
    let mut process = scene.start(command);
    assert!(UnixStream::connect(scene.path("bench.sock")).is_ok(), "{}", process.log());
    let took = process.stop();
    assert!(took < STOP_MAX, "{took:?}");
    assert!(!scene.path("bench.sock").exists());
}

#[test]
fn one_volume_that_is_not_there_ends_with_its_code() {
    let scene = Scene::new();
    let store = scene.file_store();
    let ran = scene.run(["--store", &store, "serve", "--volume", "web1", "--socket-path", "s"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("web1") && !scene.path("s").exists());
}

/// Starts the one-volume form with an inherited descriptor.
fn serve_descriptor(scene: &Scene, descriptor: &OwnedFd) -> program::Process {
    let number = descriptor.as_raw_fd();
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    let mut command = scene.command();
    command.args(["--store", "memory:", "serve", "--volume", "scratch", "--fd", &number.to_string()]);
    let process = scene.start(command);
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).unwrap();
    process
}

#[test]
fn an_inherited_connection_is_served_until_it_ends() {
    let scene = Scene::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let mut process = serve_descriptor(&scene, &theirs);
    assert!(process.child.try_wait().unwrap().is_none(), "{}", process.log());
    drop((ours, theirs));
    let status = process.wait();
    assert!(status.success(), "{}", process.log());
}

#[test]
fn an_inherited_listener_is_served() {
    let scene = Scene::new();
    let listener = OwnedFd::from(UnixListener::bind(scene.path("s")).unwrap());
    let mut process = serve_descriptor(&scene, &listener);
    for _ in 0..2 {
        drop(UnixStream::connect(scene.path("s")).unwrap());
    }
    process.stop();
    assert!(scene.path("s").exists(), "what we did not make, we do not remove");
}

#[test]
fn descriptors_that_are_no_sockets_are_refused() {
    let scene = Scene::new();
    for number in ["0", "77", "-1"] {
        let fd = format!("--fd={number}");
        let ran = scene.run(["--store", "memory:", "serve", "--volume", "web1", &fd]);
        assert!(ran.failure(2).contains(number), "{}", ran.stderr);
    }
}

/// As systemd does it: descriptor 3, and the process's own number in LISTEN_PID, for which a shell is needed.
#[test]
fn the_control_socket_may_come_from_a_supervisor() {
    let scene = Scene::new();
    let path = scene.path("activated.sock");
    let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec {} --store memory: --soft-journal-dir {} serve",
        listener.as_raw_fd(),
        env!("CARGO_BIN_EXE_archvhost"),
        scene.soft_journals.path().display()
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).env_remove("ARCHVHOST_CONTROL").env_remove("ARCHVHOST_STORE");
    let mut process = scene.start(command);
    scene.run(["--control", path.to_str().unwrap(), "status"]).text();
    process.stop();
}

#[test]
fn a_connection_that_talks_nonsense_ends_and_the_next_is_served() {
    use std::io::Write;
    let scene = Scene::new();
    let daemon = scene.daemon("memory:");
    for name in ["web1", "web2"] {
        daemon.run(["create", name, "--size", "1GiB"]).text();
        daemon.run(["attach", name, "--socket", &format!("{name}.sock")]).text();
    }
    for _ in 0..3 {
        let mut front_end = UnixStream::connect(scene.path("web1.sock")).unwrap();
        front_end.write_all(&[0xff; 4096]).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let attachments = daemon.run(["attachments", "--json"]).json();
        let done = attachments[0]["connections"] == 3 && attachments[0]["state"] == "listening";
        assert_eq!(attachments[1]["state"], "listening");
        if done {
            assert!(attachments[0]["reason"].is_string(), "{attachments}");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{attachments}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
