"""A store that runs full under a guest: an error for that write, and nothing else."""

from harness.case import RealCase
from harness.loadgen import Load
from harness.store import SmallFileSystem

MIB = 1 << 20
SMALL_MIB = 160
BALLAST_MIB = 64


class FullStore(RealCase):
    def setUp(self):
        super().setUp()
        small = SmallFileSystem(self.directory, SMALL_MIB)
        self.addCleanup(small.unmount)
        self.store_directory = small.mount_point / "store"
        self.store_directory.mkdir()
        self.store = f"file:{self.store_directory}"
        self.ballast = small.mount_point / "ballast"
        self.ballast.write_bytes(bytes(BALLAST_MIB * MIB))

    def test_writes_into_a_full_store_fail_and_succeed_again_when_space_returns(self):
        self.create("filled", "1GiB")
        self.create("beside", "64MiB")
        daemon = self.daemon()
        beside = daemon.attach("beside", queues=2)
        load = Load(self.directory / "ledger")
        self.assertEqual(load.write(beside, 1000, "--blocks", 64)["failed"], 0)

        guest = self.guest(daemon.attach("filled"), "run-full", mib=SMALL_MIB)
        guest.wait_for("STEP full")
        self.assertEqual(load.write(beside, 1000, "--blocks", 64, "--seed", 2)["failed"], 0, "the other volume goes on")
        load.verify(beside)

        self.ballast.unlink()
        guest.wait_for("STEP space")
        guest.succeed()
        load.verify(beside)
        self.assertEqual(daemon.stop(), 0)
