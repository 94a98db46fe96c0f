"""A Ceph cluster of the tests' own (integration/ceph): started by the first that needs it, harmed, and ended with the test program,
whichever way that ends."""

import atexit
import contextlib
import functools
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from harness.place import ROOT

POOL = "archvhost"
NEEDS = ("ceph-mon", "ceph-osd", "ceph", "rados")


# Objects that belong to no volume: the store's own, the indexes, and the lock by which collections take turns.
OF_THE_STORE = ("archvhost-", "f" * 32 + ".")


class Cluster:
    # The one that docs/operations.md describes.
    USER = "archvhost"

    @staticmethod
    @functools.cache
    def shared() -> "Cluster":
        """For one test after the other; each leaves it whole."""
        cluster = Cluster()
        atexit.register(cluster.end)
        return cluster

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

    @contextlib.contextmanager
    def without_osd(self):
        """Its only OSD is killed, and comes back with its disk."""
        self._order("kill-osd")
        try:
            yield
        finally:
            self._order("start-osd")

    @contextlib.contextmanager
    def full(self):
        """With anything in it at all it counts as full."""
        self._set_ratios(nearfull="0.00001", backfillfull="0.00002", full="0.00003")
        try:
            yield
        finally:
            self._set_ratios(full="0.95", backfillfull="0.9", nearfull="0.85")

    def _set_ratios(self, **ratios):
        for name, ratio in ratios.items():
            self.ceph("osd", f"set-{name}-ratio", ratio)

    def ceph(self, *argv) -> str:
        return self._run("ceph", "-c", self.conf, *argv)

    def rados(self, namespace: str, *argv) -> str:
        return self._run("rados", "-c", self.conf, "-p", POOL, "-N", namespace, *argv)

    def objects_of_volumes(self, namespace: str) -> list:
        """Their names, as the cluster knows them."""
        return [name for name in self.rados(namespace, "ls").splitlines() if not name.startswith(OF_THE_STORE)]

    def data_objects(self, namespace: str) -> int:
        return sum(".d." in name for name in self.objects_of_volumes(namespace))

    def options(self):
        """How archvhost reaches it."""
        return ["--ceph-conf", self.conf, "--ceph-user", self.USER]

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
