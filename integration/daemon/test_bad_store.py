"""Stores that cannot take what they are asked to: read-only, or full. Each is an error that names the thing."""

import subprocess

from harness.case import RealCase
from harness.loadgen import Load
from harness.program import archvhost, try_archvhost
from harness.store import SmallFileSystem

EXIT_NO_SPACE = 7
MIB = 1 << 20


class BadStore(RealCase):
    def setUp(self):
        super().setUp()
        self.small = SmallFileSystem(self.directory, 64)
        self.addCleanup(self.small.unmount)
        self.store_directory = self.small.mount_point / "store"
        self.store_directory.mkdir()
        self.store = f"file:{self.store_directory}"

    def test_read_only_store_is_named_and_unharmed(self):
        self.create("web1", "32MiB")
        subprocess.run(["mount", "-o", "remount,ro", self.small.mount_point], check=True)
        outcome = try_archvhost(*self.place().options(), "create", "web2", "--size", "1GiB")
        self.assertNotEqual(outcome.status, 0)
        self.assertIn(str(self.store_directory), outcome.err)
        self.assertIn("read-only", outcome.err)
        subprocess.run(["mount", "-o", "remount,rw", self.small.mount_point], check=True)
        self.assertIn("web1", archvhost(*self.place().options(), "info", "web1"))

    def test_full_store_takes_no_new_volume_and_keeps_the_old_ones(self):
        self.create("web1", "32MiB")
        load = Load(self.directory / "ledger", queues=1)
        server = self.serve("web1")
        load.write(server.socket, 300, "--blocks", 64)
        self.fill_up()
        outcome = try_archvhost(*self.place().options(), "create", "web2", "--size", "1GiB")
        self.assertEqual(outcome.status, EXIT_NO_SPACE, outcome.err)
        self.assertIn("web2", outcome.err)
        load.verify(server.socket)
        self.assertEqual(server.process.terminate(), 0, "what finds no room is in the journals, and that is an orderly end")
        (self.small.mount_point / "ballast").unlink()
        self.assertNotIn("web2", archvhost(*self.place().options(), "list"))
        load.verify(self.serve("web1").socket)

    def fill_up(self):
        """Takes every last block, so that not even a directory entry finds room."""
        with open(self.small.mount_point / "ballast", "wb", buffering=0) as ballast:
            for size in (MIB, 4096):
                try:
                    while ballast.write(bytes(size)):
                        pass
                except OSError:
                    continue
