//! A host of the cluster: the real daemon, as a user of its own, and verbs as that user.

use crate::cluster::{Cluster, POOL, User};
use crate::guest::Guest;
use crate::program::{Process, Ran, Scene, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a daemon is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processes {
    /// With all others of this machine, who see when it is gone.
    Shared,
    /// A process namespace of its own, so that others see no more of it than another machine would.
    Own,
    /// With all others of this machine, but of another boot of it.
    OfAnotherBoot,
}

pub(crate) struct Host {
    scene: Scene,
    conf: PathBuf,
    user: User,
    store: String,
    /// Before every verb.
    options: Vec<String>,
    daemon: Option<Process>,
    log: Arc<Mutex<String>>,
}

impl Host {
    /// One that runs no daemon (yet).
    pub(crate) fn new(cluster: &Cluster, user: User, namespace: &str) -> Self {
        Self::in_pool(cluster, user, POOL, namespace)
    }

    /// Whose store is in that pool.
    pub(crate) fn in_pool(cluster: &Cluster, user: User, pool: &str, namespace: &str) -> Self {
        let (scene, conf, store) = (Scene::new(), cluster.conf.clone(), format!("rados:{pool}/{namespace}"));
        Self { scene, conf, user, store, options: Vec::new(), daemon: None, log: Arc::default() }
    }

    /// With further options for its daemons and verbs.
    pub(crate) fn told(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    pub(crate) fn with_daemon(cluster: &Cluster, user: User, namespace: &str, processes: Processes) -> Self {
        let mut host = Self::new(cluster, user, namespace);
        host.start(processes);
        host
    }

    pub(crate) fn start(&mut self, processes: Processes) {
        let plain = self.command();
        let mut command = match processes {
            Processes::Shared => plain,
            Processes::Own => in_a_namespace(&plain),
            Processes::OfAnotherBoot => in_another_boot(&plain, &self.scene.path("boot-id")),
        };
        command.arg("--control").arg(self.control()).args(["serve", "--log-level", "info"]);
        let mut daemon = self.scene.start(command);
        let lines = BufReader::new(daemon.child.stderr.take().unwrap()).lines();
        let log = Arc::clone(&self.log);
        // Ends with the daemon, whose pipe it reads.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.daemon = Some(daemon);
    }

    fn control(&self) -> PathBuf {
        self.scene.path("control.sock")
    }

    fn command(&self) -> Command {
        let mut command = self.scene.command();
        command.arg("--ceph-conf").arg(&self.conf).args(["--ceph-user", self.user.id(), "--host-id", self.user.id()]);
        command.args(["--store", &self.store]).args(&self.options);
        command
    }

    /// Runs a verb through the daemon, if there is one.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command();
        if self.daemon.is_some() {
            command.arg("--control").arg(self.control());
        }
        Ran::of(command.args(arguments))
    }

    /// An import whose image never ends, in a process namespace of its own, under way.
    pub(crate) fn imports(&self, volume: &str) -> Process {
        let mut command = in_a_namespace(self.command().args(["import", volume, "-", "--size", "64MiB"]));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process { child: command.spawn().unwrap() };
        process.child.stdin.as_mut().unwrap().write_all(&vec![7; 8 << 20]).unwrap();
        process
    }

    pub(crate) fn attach(&self, volume: &str) -> PathBuf {
        self.attach_with(volume, &[])
    }

    pub(crate) fn attach_with(&self, volume: &str, options: &[&str]) -> PathBuf {
        let socket = self.scene.path(&format!("{volume}.sock"));
        let arguments = ["attach", volume, "--socket", socket.to_str().unwrap(), "--queues", "1"];
        self.run(&[&arguments[..], options].concat()).text();
        socket
    }

    /// Another guest of a volume that is attached.
    pub(crate) fn guest_again(&self, volume: &str) -> Guest {
        Guest::at(&self.scene.path(&format!("{volume}.sock")))
    }

    pub(crate) fn guest(&self, volume: &str) -> Guest {
        Guest::at(&self.attach(volume))
    }

    pub(crate) fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("it has been started")
    }

    /// As kill -9 does. Where the daemon is in a namespace of its own, the kernel passes it on.
    pub(crate) fn kill(&mut self) {
        self.daemon().signal(libc::SIGKILL);
        self.daemon().wait();
        self.daemon = None;
    }

    /// Returns when none of its threads runs any more.
    pub(crate) fn stop(&mut self) {
        self.daemon().signal(libc::SIGSTOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.daemon().child.id()));
        let is_stopped = |task: PathBuf| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        wait_until(|| std::fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap().path())));
    }

    pub(crate) fn go_on(&mut self) {
        self.daemon().signal(libc::SIGCONT);
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

fn in_a_namespace(plain: &Command) -> Command {
    unshare(&["--pid", "--fork", "--kill-child", "--mount-proc"], plain)
}

/// The process itself: nothing forks on the way.
fn in_another_boot(plain: &Command, boot_id: &Path) -> Command {
    std::fs::write(boot_id, format!("{}\n", uuid::Uuid::new_v4())).unwrap();
    let begin = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"", boot_id.display());
    unshare(&["--mount", "sh", "-c", &begin], plain)
}

fn unshare(options: &[&str], plain: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(options).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(plain.get_current_dir().unwrap()).stdin(Stdio::null());
    for (variable, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command.process_group(0);
    command
}
