"""A Ceph cluster of a test's own (integration/ceph): started, harmed, and ended with the test program, whichever way that ends."""

import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from harness.place import ROOT

POOL = "archvhost"
NEEDS = ("ceph-mon", "ceph-osd", "ceph", "rados")


class Cluster:
    def __init__(self):
        # Removed by integration/ceph at its end.
        self.directory = Path(tempfile.mkdtemp(prefix="archvhost-ceph."))
        self.conf = self.directory / "ceph.conf"
        self._popen = subprocess.Popen([str(ROOT / "integration" / "ceph"), str(self.directory)], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._answer() == "ready", "the cluster did not start"

    def _answer(self) -> str:
        return self._popen.stdout.readline().strip()

    def _order(self, order: str):
        self._popen.stdin.write(f"{order}\n")
        self._popen.stdin.flush()
        assert self._answer() == "done", order

    def kill_osd(self):
        """Its only OSD dies."""
        self._order("kill-osd")

    def start_osd(self):
        """It comes back, with its disk."""
        self._order("start-osd")

    def set_full(self, full: bool):
        """With anything in it at all it counts as full; or as usual."""
        for name, small, usual in (("nearfull", "0.00001", "0.85"), ("backfillfull", "0.00002", "0.9"), ("full", "0.00003", "0.95")):
            self.ceph("osd", f"set-{name}-ratio", small if full else usual)

    def ceph(self, *argv) -> str:
        return self._run("ceph", "-c", self.conf, *argv)

    def rados(self, namespace: str, *argv) -> str:
        return self._run("rados", "-c", self.conf, "-p", POOL, "-N", namespace, *argv)

    def data_objects(self, namespace: str) -> int:
        """Counts them as the cluster does."""
        return sum(".d." in name for name in self.rados(namespace, "ls").splitlines())

    def options(self):
        """How archvhost reaches it, as the user that docs/operations.md describes."""
        return ["--ceph-conf", self.conf, "--ceph-user", "archvhost"]

    @staticmethod
    def namespace() -> str:
        """One that no other test uses."""
        return f"test-{uuid.uuid4().hex}"

    @staticmethod
    def is_installed() -> bool:
        return all(shutil.which(name) for name in NEEDS)

    def end(self):
        self._popen.stdin.close()
        self._popen.wait(60)
        self._popen.stdout.close()

    @staticmethod
    def _run(*argv) -> str:
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout
