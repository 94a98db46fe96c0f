"""The two ways to serve: the host daemon with its control socket, and one volume by QEMU's conventions."""

from dataclasses import dataclass
from pathlib import Path

from harness.place import ARCHVHOST
from harness.process import Process
from harness.program import archvhost, archvhost_json, try_archvhost
from harness.waiting import wait_until


@dataclass(frozen=True)
class Place:
    """Where a test's volumes are, and the journals in memory that go with them."""

    store: str
    soft_journals: Path
    """How the store is reached, where its URL does not say so."""
    more: tuple = ()

    def options(self):
        return ["--store", self.store, "--soft-journal-dir", self.soft_journals, *self.more]


class Daemon:
    """`archvhost serve` for a host. Volumes are attached to sockets beside its control socket."""

    def __init__(self, place: Place, directory: Path, *options, wrapper=()):
        self.directory = directory
        self.control = directory / "control.sock"
        self.process = Process(
            [*wrapper, ARCHVHOST, *place.options(), "--control", self.control, "serve", *options],
            directory / "daemon.log",
        )
        try:
            wait_until(self._answers, "the daemon's control socket")
        except AssertionError as error:
            self.process.kill()
            raise AssertionError(f"{error}; its log:\n{self.process.output()}") from None

    def _answers(self) -> bool:
        assert self.process.is_running(), "the daemon ended while it started"
        return self.control.exists() and try_archvhost("--control", self.control, "status").status == 0

    def run(self, *argv) -> str:
        return archvhost("--control", self.control, *argv)

    def run_json(self, *argv):
        return archvhost_json("--control", self.control, *argv)

    def create(self, name: str, size: str, *options):
        self.run("create", name, "--size", size, *options)

    def attach(self, name: str, queues: int = 1, *options) -> Path:
        socket = self.directory / f"{name}.sock"
        self.run("attach", name, "--socket", socket, "--queues", queues, *options)
        return socket

    def stop(self) -> int:
        return self.process.terminate()


class VolumeProcess:
    """`archvhost serve --volume`: a process for one volume, on one socket."""

    def __init__(self, place: Place, volume: str, directory: Path, *options, wrapper=()):
        self.socket = directory / f"{volume}.sock"
        self.process = Process(
            [*wrapper, ARCHVHOST, *place.options(), "serve", "--volume", volume, "--socket-path", self.socket, *options],
            directory / f"{volume}.log",
        )
        try:
            wait_until(self._listens, "the volume's socket")
        except AssertionError as error:
            self.process.kill()
            raise AssertionError(f"{error}; its log:\n{self.process.output()}") from None

    def _listens(self) -> bool:
        """A socket file may be left by a killed predecessor: only a listener of this process counts."""
        assert self.process.is_running(), "the process ended while it started"
        return listens(self.socket)


def listens(path: Path) -> bool:
    """Whether somebody listens on the Unix socket, by the kernel's own table (a connection would disturb)."""
    accepting = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & accepting:
            return True
    return False
