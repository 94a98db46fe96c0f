//! A Ceph cluster for tests: the one that `integration/test` has started, or one that this test program starts and that ends with
//! it, whichever way it ends (`integration/ceph` ends when its standard input does).
//!
//! Include it by path: `#[path = "../support/cluster/mod.rs"] mod cluster;`
//!
//! A machine without Ceph skips what needs it, aloud; under `CI=true` that is a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "each program that includes this module uses a part of it")]
#![allow(unreachable_pub, reason = "included by path into programs whose root it is not")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};

/// Where `integration/test` says that its cluster is.
const VARIABLE: &str = "ARCHVHOST_TEST_CEPH_CONF";

const PROGRAMS: [&str; 4] = ["ceph-mon", "ceph-osd", "ceph", "rados"];

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
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = SHARED.get_or_init(|| match std::env::var_os(VARIABLE) {
        Some(conf) => Some(Cluster { conf: conf.into(), orders: None }),
        None => own(),
    });
    cluster.as_ref()
}

/// A cluster that may be harmed. Ends when it is dropped.
pub fn own() -> Option<Cluster> {
    let missing = PROGRAMS.into_iter().find(|program| !is_installed(program));
    if let Some(missing) = missing {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing} is not installed");
        eprintln!("skipped: {missing} is not installed (ceph-mon, ceph-osd and ceph-common are needed)");
        return None;
    }
    Some(Cluster::start())
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
