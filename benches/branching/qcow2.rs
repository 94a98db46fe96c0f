//! The peer: `qemu-storage-daemon` on a qcow2 image over a backing file, which is what an external snapshot leaves a guest with.

use crate::child::{end, run};
use crate::fill::{Stripes, fill};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(20);

/// Images in a directory.
pub(crate) struct Images {
    dir: PathBuf,
}

/// A running `qemu-storage-daemon`.
pub(crate) struct Peer {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Images {
    /// Makes the base image, fully written.
    pub(crate) fn make(dir: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let images = Self { dir: dir.to_owned() };
        run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(images.base()).arg(bytes.to_string()))?;
        let peer = images.serve(&images.base())?;
        fill(&peer.socket, Stripes { span: bytes, step: 64 << 10, len: 64 << 10 })?;
        Ok(images)
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.dir.join("base.qcow2")
    }

    /// A new image over the base, in the place of the last one.
    pub(crate) fn snapshot(&self) -> io::Result<PathBuf> {
        let top = self.dir.join("top.qcow2");
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(self.base()).arg(&top);
        run(&mut command)?;
        Ok(top)
    }

    pub(crate) fn serve(&self, image: &Path) -> io::Result<Peer> {
        let socket = self.dir.join("peer.sock");
        // A socket that a predecessor left is no sign of readiness.
        let _ = std::fs::remove_file(&socket);
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let blockdev = format!(
            "driver=qcow2,node-name=disk,file.driver=file,file.filename={},file.cache.direct=on,file.aio=io_uring,cache.direct=on",
            image.display()
        );
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={},writable=on,num-queues=1,iothread=thread",
            socket.display()
        );
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--object", "iothread,id=thread", "--blockdev", &blockdev, "--export", &export]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut peer = Peer { child, socket };
        peer.wait_until_ready(&self.dir)?;
        Ok(peer)
    }
}

impl Peer {
    fn wait_until_ready(&mut self, dir: &Path) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !self.socket.exists() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("qemu-storage-daemon does not serve: {log}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
