//! A Ceph cluster for tests: the one that `integration/test` has started, or one that this test program starts and that ends with
//! it, whichever way it ends (`integration/ceph` ends when its standard input does).
//!
//! Include it by path: `#[path = "../support/cluster/mod.rs"] mod cluster;`
//!
//! A machine without Ceph skips what needs it, aloud and past libtest's capture, so that `integration/test` counts it as skipped
//! (`sum_results`); under `CI=true` that is a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "each program that includes this module uses a part of it")]
#![allow(unreachable_pub, reason = "included by path into programs whose root it is not")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where `integration/test` says that its cluster is.
const VARIABLE: &str = "ARCHVHOST_TEST_CEPH_CONF";

const PROGRAMS: [&str; 5] = ["ceph-mon", "ceph-osd", "ceph-mgr", "ceph", "rados"];

/// The pool for everything, and the one for data where they are to be separate. `integration/lib/ceph.sh` makes them.
pub const POOL: &str = "archvhost";
pub const DATA_POOL: &str = "archvhost-data";

/// A user of the cluster; its key is found through the cluster's ceph.conf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Admin,
    /// What docs/operations.md tells to give, for a first host and a second.
    Archvhost,
    Other,
    /// May not blocklist.
    Unfencing,
    /// May use no pool.
    Stranger,
}

impl User {
    pub fn id(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Archvhost => "archvhost",
            Self::Other => "other",
            Self::Unfencing => "unfencing",
            Self::Stranger => "stranger",
        }
    }
}

pub struct Cluster {
    pub conf: PathBuf,
    /// Of a cluster that is ours alone.
    orders: Option<Mutex<Orders>>,
}

struct Orders {
    child: Child,
    /// While it is open, the cluster runs. An option, so that a drop can close it first.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The cluster of this test program; `None`, with a word about it, where there is no Ceph.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let make = || match std::env::var_os(VARIABLE) {
        Some(conf) => Cluster { conf: conf.into(), orders: None },
        None => Cluster::start(),
    };
    can_be().then(|| SHARED.get_or_init(make))
}

/// A cluster that may be harmed. Ends when it is dropped.
pub fn own() -> Option<Cluster> {
    can_be().then(Cluster::start)
}

/// Whether there is a cluster, or can be one. If not, the test that asks is skipped, which is said.
pub fn can_be() -> bool {
    let Some(missing) = missing() else { return true };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    aloud(&format!(
        "skipped: {test}: {missing} is not installed (ceph-mon, ceph-osd, ceph-mgr and ceph-common are needed)"
    ));
    false
}

/// For programs of which no test can say anything without a cluster: ends the program when there can be none, with a line of sums as
/// libtest's own, in which all tests that it was to run are ignored.
pub fn or_skip_all() -> &'static Cluster {
    static ENDING: Mutex<()> = Mutex::new(());
    let _only_once = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(missing) = missing() {
        let mut listing = Command::new(std::env::current_exe().unwrap());
        let listed = text_of(listing.args(std::env::args_os().skip(1)).arg("--list").output().unwrap());
        let tests = listed.lines().filter(|line| line.ends_with(": test")).count();
        aloud(&format!(
            "skipped all: {missing} is not installed (ceph-mon, ceph-osd, ceph-mgr and ceph-common are needed)"
        ));
        aloud(&format!("test result: ok. 0 passed; 0 failed; {tests} ignored; none of them can run here"));
        std::process::exit(0);
    }
    shared().expect("nothing is missing")
}

/// What a cluster needs and this machine does not have; a failure under `CI=true`.
fn missing() -> Option<&'static str> {
    if std::env::var_os(VARIABLE).is_some() {
        return None;
    }
    let missing = PROGRAMS.into_iter().find(|program| !is_installed(program))?;
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing} is not installed");
    Some(missing)
}

/// Past the test's captured output.
fn aloud(line: &str) {
    // In a line of its own: libtest may be in the middle of one.
    let _nobody_listens = writeln!(std::io::stderr(), "\n{line}");
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/ceph");
        let mut child =
            Command::new(script).arg(&directory).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut running = Orders { child, orders, answers };
        assert_eq!(running.answer(), "ready", "the cluster did not start");
        Self { conf: directory.join("ceph.conf"), orders: Some(Mutex::new(running)) }
    }

    /// The OSD dies.
    pub fn kill_osd(&self) {
        self.order("kill-osd");
    }

    /// It comes back, with its disk.
    pub fn start_osd(&self) {
        self.order("start-osd");
    }

    /// The OSD says nothing until this is dropped.
    pub fn silence(&self) -> Silence<'_> {
        self.order("pause-osd");
        Silence(self)
    }

    /// The same with its only monitor.
    pub fn kill_mon(&self) {
        self.order("kill-mon");
    }

    pub fn start_mon(&self) {
        self.order("start-mon");
    }

    /// A manager, which collects figures: without one the cluster does not know how much a pool has, and no quota is ever used up.
    pub fn start_mgr(&self) {
        self.order("start-mgr");
    }

    pub fn kill_mgr(&self) {
        self.order("kill-mgr");
    }

    fn order(&self, order: &str) {
        let mut running = self.orders.as_ref().expect("the cluster is this test's own").lock().unwrap();
        writeln!(running.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(running.answer(), "done");
    }

    /// The store in the pool's namespace.
    pub fn url(&self, namespace: &str) -> String {
        format!("rados:{POOL}/{namespace}")
    }

    /// `ceph ARGUMENTS`, as the cluster's administrator.
    pub fn ceph(&self, arguments: &[&str]) -> String {
        text_of(Command::new("ceph").arg("-c").arg(&self.conf).args(arguments).output().unwrap())
    }

    /// `rados ARGUMENTS` in the pool's namespace, as the cluster's administrator.
    pub fn rados(&self, namespace: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("rados");
        command.arg("-c").arg(&self.conf).args(["-p", POOL, "-N", namespace]).args(arguments);
        text_of(command.output().unwrap())
    }

    /// Whom the cluster does not serve any more.
    pub fn blocklist(&self) -> String {
        self.ceph(&["osd", "blocklist", "ls"])
    }
}

/// See [`Cluster::silence`].
pub struct Silence<'a>(&'a Cluster);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.order("resume-osd");
    }
}

/// A namespace that no other test uses.
pub fn namespace() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

fn text_of(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Orders {
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _status = self.child.wait();
    }
}
