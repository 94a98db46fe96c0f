"""What every real-guest test starts from: a directory of its own, and everything that it started ended afterwards."""

import shutil
import tempfile
import unittest
from pathlib import Path

from harness.daemon import Daemon, Place, VolumeProcess
from harness.guest import Guest
from harness.place import in_ci
from harness.program import archvhost


class RealCase(unittest.TestCase):
    def setUp(self):
        # Short, because a Unix socket's path has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="archvhost-test."))
        self.addCleanup(shutil.rmtree, self.directory)
        self.store_directory = self.directory / "store"
        self.store_directory.mkdir()
        self.store = f"file:{self.store_directory}"
        self.soft_journals = Path(tempfile.mkdtemp(prefix="archvhost-test.", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, self.soft_journals)

    def place(self) -> Place:
        return Place(self.store, self.soft_journals)

    def create(self, name: str, size: str, *options):
        archvhost(*self.place().options(), "create", name, "--size", size, *options)

    def daemon(self, *options, wrapper=()) -> Daemon:
        daemon = Daemon(self.place(), self.directory, *options, wrapper=wrapper)
        self.addCleanup(daemon.process.kill)
        return daemon

    def serve(self, volume: str, *options, wrapper=()) -> VolumeProcess:
        server = VolumeProcess(self.place(), volume, self.directory, *options, wrapper=wrapper)
        self.addCleanup(server.process.kill)
        return server

    def guest(self, socket: Path, script: str, **options) -> Guest:
        guest = Guest(self.directory, socket, script, **options)
        self.addCleanup(guest.end)
        return guest

    def need(self, present: bool, what: str):
        """A prerequisite: skips aloud where it is missing, and fails under CI."""
        if present:
            return
        if in_ci():
            self.fail(f"prerequisite missing: {what}")
        self.skipTest(f"prerequisite missing: {what}")
