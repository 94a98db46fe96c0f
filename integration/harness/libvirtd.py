"""A libvirtd of the test's own: in namespaces where its configuration and state are in the test's directory and its
network is a loopback, so that it meets no other libvirtd and leaves nothing on the machine."""

import shutil
import subprocess
from pathlib import Path

from harness.process import Process
from harness.waiting import wait_until

# QEMU as root and unconfined: the test's files are root's, in a directory that no AppArmor profile knows.
QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""
STATE = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
         "log": "/var/log/libvirt"}


class Libvirtd:
    def __init__(self, directory: Path):
        self.directory = directory
        for name, path in STATE.items():
            (directory / name).mkdir(parents=True)
            Path(path).mkdir(parents=True, exist_ok=True)
        (directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
        (directory / "etc" / "libvirtd.conf").write_text('auth_unix_rw = "none"\n')
        mounts = " && ".join(f"mount --bind {directory / name} {path}" for name, path in STATE.items())
        # Everything in the process namespace ends with its first process, which ends with unshare. That first process
        # is the shell and not libvirtd, because it inherits the QEMUs that fork away, and has to reap them.
        self.process = Process(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", f"{mounts} && libvirtd; exit $?"],
            directory / "libvirtd.log",
        )
        self.socket = directory / "run" / "libvirt-sock"
        wait_until(self._answers, "libvirtd")

    def _answers(self) -> bool:
        assert self.process.is_running(), f"libvirtd ended: {self.process.output()}"
        return self.socket.exists() and self.try_virsh("uri").returncode == 0

    def try_virsh(self, *argv) -> subprocess.CompletedProcess:
        uri = f"qemu+unix:///system?socket={self.socket}"
        return subprocess.run(["virsh", "-q", "-c", uri, *map(str, argv)], capture_output=True, text=True, timeout=60)

    def virsh(self, *argv) -> str:
        done = self.try_virsh(*argv)
        assert done.returncode == 0, f"virsh {argv}: {done.stderr}\nlibvirtd: {self.process.output()[-3000:]}"
        return done.stdout

    def end(self):
        self.process.kill()

    @staticmethod
    def is_installed() -> bool:
        return all(shutil.which(name) for name in ("libvirtd", "virsh", "unshare"))
