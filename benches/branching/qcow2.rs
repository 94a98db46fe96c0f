//! The peer: `qemu-storage-daemon` on a qcow2 image over a backing file, which is what an external snapshot leaves a guest with.

use crate::child::{end, run, wait_for_socket};
use crate::fill::{Stripes, fill};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        wait_for_socket(&mut peer.child, &peer.socket, &self.dir.join("log"))?;
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
