"""Incremental transfer to another store: only what differs travels, and both sides have the same bytes."""

import hashlib
from pathlib import Path

from harness.case import RealCase
from harness.daemon import Place
from harness.loadgen import Load
from harness.program import archvhost

MIB = 1 << 20


class Transfer(RealCase):
    def test_increments_carry_only_what_differs_and_arrive_whole(self):
        self.create("web1", "512MiB")
        daemon = self.daemon()
        socket = daemon.attach("web1", queues=2)
        load = Load(self.directory / "ledger")
        load.write(socket, 1500, "--blocks", 8192)
        daemon.run("snapshot", "web1", "monday")
        load.write(socket, 200, "--blocks", 256, "--seed", 2)
        daemon.run("snapshot", "web1", "tuesday")
        # What is written later is in neither stream.
        load.write(socket, 200, "--blocks", 128, "--seed", 3)
        streams = {"full": self.directory / "full", "increment": self.directory / "increment"}
        daemon.run("export", "monday", streams["full"], "--stream")
        daemon.run("export", "tuesday", streams["increment"], "--from", "monday")
        sizes = {name: path.stat().st_size for name, path in streams.items()}
        self.assertLess(sizes["increment"], sizes["full"] / 4, "the second stream has the difference only")

        other_directory = self.directory / "other"
        other_directory.mkdir()
        other = Place(f"file:{other_directory}", self.soft_journals)
        for name, original in (("full", "monday"), ("increment", "tuesday")):
            archvhost(*other.options(), "import", "copy", streams[name])
            self.assertEqual(self._sum(*other.options(), "export", "copy"),
                             self._sum("--control", daemon.control, "export", original), original)

    def _sum(self, *export) -> str:
        image = self.directory / "image.raw"
        archvhost(*export, image)
        return digest_of(image)


def digest_of(image: Path) -> str:
    digest = hashlib.sha256()
    with open(image, "rb") as file:
        while piece := file.read(4 * MIB):
            digest.update(piece)
    image.unlink()
    return digest.hexdigest()
