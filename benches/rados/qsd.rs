//! `qemu-storage-daemon` with an RBD image, exported from an iothread, which polls adaptively: what the same driver sees of RBD that
//! it sees of us.

use crate::child::{end, wait_for_socket};
use crate::cluster::POOL;
use crate::rbd::{Rbd, USER};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends when it is dropped.
pub(crate) struct Qsd {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Qsd {
    pub(crate) fn start(rbd: &Rbd, image: &str, dir: &Path) -> io::Result<Self> {
        let (socket, log_path) = (dir.join(format!("qsd-{image}.sock")), dir.join("qsd.log"));
        let log = File::options().create(true).append(true).open(&log_path)?;
        let blockdev = format!(
            "driver=rbd,node-name=disk,pool={POOL},image={image},conf={},user={},cache.direct=on",
            rbd.conf.display(),
            USER.id()
        );
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={},writable=on,num-queues=1,iothread=thread",
            socket.display()
        );
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--object", "iothread,id=thread", "--blockdev", &blockdev, "--export", &export]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { child, socket };
        wait_for_socket(&mut server.child, &server.socket, &log_path)?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Qsd {
    fn drop(&mut self) {
        end(&mut self.child);
        // The socket of a server that is gone is no sign of readiness of the next.
        let _ = fs::remove_file(&self.socket);
    }
}
